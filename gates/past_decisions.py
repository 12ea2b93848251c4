"""What was decided about a target before: one line a run in the state folder, begun as a hold and then settled, and one
for each rollback that a person or a watch made, and for each way back.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gates import disk
from gates.evidence import JsonValue, moment, stamp, typed
from gates.text import foreign
from gates.verdict import Action, Decision, Verdict

FILE = "decisions.ndjson"
MOST_BYTES = 4 * 1024 * 1024
"""Above it the older half of the lines goes."""
ROOM_S = 2.0
"""So long the history is waited for while another process cuts it down."""
UNFINISHED = "the run has not finished"
BROKEN = "a line of the history cannot be read"


@dataclass(frozen=True, slots=True)
class PastDecision:
    """One run as it is remembered. finished_at: empty while it runs, and of a run that was killed.

    room: the part of the nearest limit that was left, None where no limit was near; before, after: the flag's
    percentage around the action, 0 for off; target: its kind, empty where nobody named it, or an older gate wrote the
    line.
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
        """A run that has not decided yet: a hold, also if it is killed."""
        run_id, at = str(run.get("run_id", "")), str(run.get("started_at", ""))
        dry_run, kind = bool(run.get("dry_run")), str(run.get("target", ""))
        return cls(run_id, release, Decision.HOLD, UNFINISHED, at, dry_run=dry_run, target=kind)

    @classmethod
    def of(cls, run: Mapping[str, JsonValue], verdict: Verdict) -> PastDecision:
        """A run as its verdict says."""
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
        """A rollback or an emergency outside a run; or the way back from it, after which nothing is known: a hold.

        release: what was running, empty where nobody knows. run_id: of the line that this one takes the place of.
        """
        at, verdict = stamp(now), Verdict(decision, reason, release, kind, action=action)
        settled = dataclasses.replace(verdict, started_at=at, finished_at=at)
        return cls.of({"run_id": run_id or secrets.token_hex(4)}, settled)

    @property
    def finished(self) -> dt.datetime | None:
        """When it was decided; None where it was not, or where the text is not a time."""
        try:
            return moment(self.finished_at)
        except ValueError:
            return None

    def to_json(self) -> dict[str, JsonValue]:
        return {**dataclasses.asdict(self), "decision": self.decision.value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PastDecision:
        """Raise ValueError or TypeError for anything that to_json did not write."""
        return typed(cls(**{**data, "decision": Decision(data["decision"])}))


UNREADABLE = PastDecision("", "", Decision.HOLD, BROKEN)


def remember(folder: Path, one: PastDecision) -> None:
    """Add a line to the history of a target, on the disk. Raise OSError where that is not possible.

    Who writes has the folder's lock: a line that is added while another process puts a shorter history in place would
    be lost, and with it perhaps a rollback. Where its holder is stopped, the line is added all the same.
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
    """Every run of a target, in their order; what cannot be read is a hold of its own. Raise OSError, also for a link
    to what is not there: that is no empty history.
    """
    path = folder / FILE
    if not os.path.lexists(path):
        return []
    runs: dict[str, PastDecision] = {}
    for number, line in enumerate(disk.read(path, end=2 * MOST_BYTES).splitlines()):
        try:
            one = PastDecision.from_json(foreign.json_object(line))
        except (ValueError, TypeError, KeyError, RecursionError):
            one = UNREADABLE
        key = one.run_id or f"line {number}"
        runs.pop(key, None)  # the end of a run stands where it ended
        runs[key] = one
    return list(runs.values())


def newest(folder: Path, most: int = 5) -> list[JsonValue]:
    """The last runs that were decided, for the report of the next one; none where the history cannot be read."""
    try:
        decided = [one for one in read(folder) if one.finished is not None]
    except OSError:
        return []
    names = ("release", "finished_at", "dry_run", "before", "after")
    return [{"decision": d.decision.value, **{n: getattr(d, n) for n in names}} for d in decided[-most:]]


def last_named(folder: Path) -> str:
    """The release that was judged last, which is the one that runs as far as is known; empty where there is none."""
    try:
        return next((one.release for one in reversed(read(folder)) if one.release), "")
    except OSError:
        return ""


def last_of(release: str, past: Sequence[PastDecision]) -> PastDecision | None:
    """The last run of a release. One after it that names none may be of it, unless it has promoted: it has not
    finished, cannot be read, held, or rolled back.
    """

    def counts(one: PastDecision) -> bool:
        may_be = not one.release and (one.decision is not Decision.PROMOTE or not one.finished_at)
        return one.release == release or may_be

    return next((one for one in reversed(past) if counts(one)), None)
