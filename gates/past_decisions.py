"""The history of a target, in the state folder. One line per run, written as a hold when it begins and again when it
ends; one line per rollback by a person or a watch, and per recovery from it.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gates import disk
from gates.evidence import JsonValue, moment, stamp, typed
from gates.text import foreign
from gates.verdict import Action, Decision, Verdict

FILE = "decisions.ndjson"
MOST_BYTES = 4 * 1024 * 1024
"""If the file is larger, the older half of its lines is removed."""
ROOM_S = 2.0
"""How long to wait for the history while another process shortens it."""
UNFINISHED = "the run has not finished"
BROKEN = "a line of the history cannot be read"


@dataclass(frozen=True, slots=True)
class PastDecision:
    """One run in the history.

    finished_at: empty while it runs, and if it was killed. room: the share of the nearest limit that was left, None if
    none was near. before, after: the flag's percentage around the action, 0 for off. target: its kind, empty if nobody
    named it or an older gate wrote the line.
    """

    run_id: str
    release: str
    decision: Decision
    reason: str
    started_at: str = ""
    finished_at: str = ""
    exit_code: int = Decision.HOLD.exit_code
    dry_run: bool = False
    passed: int = 0
    failed: int = 0
    unknown: int = 0
    action: str = "none"
    result: str = "pending"
    before: int | None = None
    after: int | None = None
    nearest: str = ""
    room: float | None = None
    target: str = ""

    @classmethod
    def begun(cls, run: Mapping[str, JsonValue], release: str) -> PastDecision:
        """A run that has not decided yet. It counts as a hold, also if it is killed."""
        run_id, at = str(run.get("run_id", "")), str(run.get("started_at", ""))
        dry_run, kind = bool(run.get("dry_run")), str(run.get("target", ""))
        return cls(run_id, release, Decision.HOLD, UNFINISHED, at, dry_run=dry_run, target=kind)

    @classmethod
    def of(cls, run: Mapping[str, JsonValue], verdict: Verdict) -> PastDecision:
        """The line of a run that ended with this verdict."""
        counts, action, margin = verdict.counts, verdict.action, verdict.margin
        return cls(
            run_id=str(run.get("run_id", "")),
            release=verdict.release,
            decision=verdict.decision,
            reason=verdict.reason,
            started_at=verdict.started_at,
            finished_at=verdict.finished_at,
            exit_code=verdict.exit_code,
            dry_run=bool(run.get("dry_run")),
            passed=counts.passed,
            failed=counts.failed,
            unknown=counts.unknown,
            action=action.kind,
            result=action.result,
            before=action.from_percent,
            after=action.to_percent,
            nearest=margin.check if margin else "",
            room=margin.room if margin else None,
            target=verdict.target,
        )

    @classmethod
    def by_hand(
        cls,
        action: Action,
        reason: str,
        kind: str,
        now: dt.datetime,
        release: str = "",
        decision: Decision = Decision.ROLLBACK,
        run_id: str = "",
    ) -> PastDecision:
        """A rollback or emergency outside a run; or the recovery from it, which is a hold because nothing is known
        then. release: what was running, empty if unknown. run_id: of the line that this one replaces.
        """
        at, verdict = stamp(now), Verdict(decision, reason, release, kind, action=action)
        settled = replace(verdict, started_at=at, finished_at=at)
        return cls.of({"run_id": run_id or secrets.token_hex(4)}, settled)

    @property
    def finished(self) -> dt.datetime | None:
        """When it was decided; None if it was not, or if the text is no time."""
        try:
            return moment(self.finished_at)
        except ValueError:
            return None

    def to_json(self) -> dict[str, JsonValue]:
        return {**asdict(self), "decision": self.decision.value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PastDecision:
        """Raise ValueError or TypeError for anything that to_json did not write."""
        return typed(cls(**{**data, "decision": Decision(data["decision"])}))


UNREADABLE = PastDecision("", "", Decision.HOLD, BROKEN)


def remember(folder: Path, one: PastDecision) -> None:
    """Add a line to the history of a target, on disk. Raise OSError if that is not possible.

    Writers lock the folder: a line added while another process replaces the file by a shorter one would be lost,
    perhaps with a rollback. If the lock's holder is stopped, the line is added without it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            disk.lock(place, folder, within_s=ROOM_S)
        _add(folder / FILE, one)
    finally:
        os.close(place)


def _add(path: Path, one: PastDecision) -> None:
    if path.exists() and path.stat().st_size > MOST_BYTES:
        lines = disk.read(path).splitlines(keepends=True)
        disk.write(path, b"".join(lines[len(lines) // 2 :]))
    with disk.opened(path, "a+b") as out:
        whole = not out.seek(0, os.SEEK_END) or disk.read(path).endswith(b"\n")
        out.write((b"" if whole else b"\n") + json.dumps(one.to_json(), ensure_ascii=False).encode() + b"\n")
        out.flush()
        os.fsync(out.fileno())


def read(folder: Path) -> list[PastDecision]:
    """All runs of a target, in order; an unreadable line is a hold. Raise OSError, also for a link to nothing."""
    path = folder / FILE
    if disk.missing(path):
        return []
    runs: dict[str, PastDecision] = {}
    for number, line in enumerate(disk.read(path, end=2 * MOST_BYTES).splitlines()):
        try:
            one = PastDecision.from_json(foreign.json_object(line))
        except (ValueError, TypeError, KeyError, RecursionError):
            one = UNREADABLE
        key = one.run_id or f"line {number}"
        runs.pop(key, None)  # a finished run takes the place where it finished
        runs[key] = one
    return list(runs.values())


def histories(state: Path) -> list[Path]:
    """The folders of targets with a history. Raise OSError if that is not known of one, as behind a link to nothing."""
    found = []
    for folder in () if disk.missing(state) else sorted(state.iterdir()):
        if folder.is_dir() or folder.is_symlink():
            folder.stat()
            with suppress(FileNotFoundError):
                (folder / FILE).lstat()
                found.append(folder)
    return found


def newest(folder: Path, most: int = 5) -> list[JsonValue]:
    """The last decided runs, for the report of the next one; none if the history cannot be read."""
    try:
        decided = [one for one in read(folder) if one.finished is not None]
    except OSError:
        return []
    names = ("release", "finished_at", "dry_run", "before", "after")
    return [{"decision": d.decision.value, **{n: getattr(d, n) for n in names}} for d in decided[-most:]]


def last_named(folder: Path) -> str:
    """The release that was judged last, which is taken to be the one that runs; empty if there is none."""
    try:
        return next((one.release for one in reversed(read(folder)) if one.release), "")
    except OSError:
        return ""


def last_of(release: str, past: Sequence[PastDecision]) -> PastDecision | None:
    """The last run of a release. A later run that names no release may be of it, unless it promoted: it did not finish,
    is unreadable, held, or rolled back.
    """

    def counts(one: PastDecision) -> bool:
        may_be = not one.release and (one.decision is not Decision.PROMOTE or not one.finished_at)
        return one.release == release or may_be

    return next((one for one in reversed(past) if counts(one)), None)
