"""What a run leaves on disk: run.json and verdict.json, written so that a killed run leaves a hold. run.json holds the
policy, the times and the action. With evidence.ndjson it yields verdict.json again, byte for byte.
"""

import datetime as dt
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gates import disk, gate_version
from gates.contract.scope import WHOLE, Scope
from gates.decision.decide import decide
from gates.decision.rules import Policy
from gates.errors import CannotWork, GateError, NotRolledBack, first_line, of_file
from gates.evidence import CheckSpec, Evidence, JsonValue, moment, stamp, typed
from gates.evidence_file import MOST_BYTES, ChainEnd, read_log
from gates.text import characters, foreign
from gates.verdict import GOES_ON, Action, Decision, Verdict, settle

T = TypeVar("T")

FORMAT = 2
"""2: evidence is chained, and run.json ends the chain."""
RUN, VERDICT, EVIDENCE = "run.json", "verdict.json", "evidence.ndjson"
FLAG = "flag"
"""The member of run.json with the flag as seen at the start of the run; null if it could not be read."""
UNFINISHED = "the run did not finish"
MAY_BE_DONE = "whether that was done is not known: see gate flags and the audit rows"

TEXTS = ("run_id", "started_at", "finished_at", "target", "release")
"""Members of run.json that reports show as they stand."""
OURS = (*(RUN, VERDICT, EVIDENCE, "companies.txt"), *("verdict.intoto.jsonl", "load/companies.txt", "load/result.json"))
"""Files of an earlier run, removed before a new one begins: an old promote must not survive."""
FOLDERS = ("allure-results", "load", "logs", "pipeline", "state", ".gate-tmp")
"""Folders that a run makes in its output folder, and whose files it writes and removes."""
ALLURE = ("*-result.json", "*-container.json", "*-attachment*")


def begin(folder: Path, facts: Mapping[str, JsonValue], reports: Sequence[str] = ()) -> dict[str, JsonValue]:
    """Clear the folder of an earlier run and its reports, write a hold, and return the contents of run.json."""
    run: dict[str, JsonValue] = {"format": FORMAT, **facts, "finished_at": ""}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        disk.clear(folder, FOLDERS)
        write(folder / VERDICT, unfinished(run).dump())
        for name in (*OURS, *reports):
            if name != VERDICT:
                (folder / name).unlink(missing_ok=True)
        (folder / EVIDENCE).touch()  # where the rest finds no room, it shows the next run that the folder is a gate's
        for pattern in ALLURE:
            for old in (folder / "allure-results").glob(pattern):
                old.unlink()
        write_run(folder, run)
    except OSError as error:
        raise _unusable(folder, error) from error
    return run


def _unusable(folder: Path, error: OSError) -> CannotWork:
    for name in (VERDICT, RUN):  # an old promote must not survive on a full disk either
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)
    return CannotWork(f"{error}; allowed: a folder that can be written. Correct --output")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder: two gates that write there would mix their evidence. Raise CannotWork if another one runs there.
    The lock ends with the process.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = f"another gate writes to {folder}; allowed: one at a time"
            raise CannotWork(f"{said}. Wait for its end, or give another --output") from None
        if others := _of_others(folder):
            said = f"{folder} has {', '.join(others)}, and no file of a gate: a run would write and remove files there"
            raise CannotWork(f"{said}; allowed: a new folder, or that of a run. Correct --output")
        yield
    finally:
        os.close(lock)


def _of_others(folder: Path) -> list[str]:
    """Folders that have the names of a run's folders, but were made by no run."""
    if any((folder / name).is_file() for name in (RUN, VERDICT, EVIDENCE)):
        return []
    return [name for name in FOLDERS if (folder / name).is_dir() and any((folder / name).iterdir())]


def unfinished(run: Mapping[str, Any]) -> Verdict:
    """The verdict of a run that was killed, or is still going on."""
    reason, intent, scope = UNFINISHED, run.get("intent"), WHOLE
    if isinstance(intent, dict):
        at = "" if intent.get("at") is None else f", seen at {intent['at']} %"
        reason += f": it was about to {intent.get('decision')} {intent.get('flag')}{at}, and {MAY_BE_DONE}"
    with suppress(KeyError, TypeError, ValueError):
        scope = Scope.from_json(run["policy"]["contract"])
    return Verdict(
        Decision.HOLD,
        reason,
        contract=scope,
        release=str(run.get("release", "")),
        target=str(run.get("target", "")),
        started_at=str(run.get("started_at", "")),
        policy_digest=str(run.get("policy_digest", "")),
        ends_when=("the gate runs to its end",),
    )


def intend(folder: Path, run: dict[str, JsonValue], decision: Decision, flag: str, at: int | None) -> None:
    """Record an action before it is taken, in case the gate dies. Raise CannotWork if that is not possible."""
    run["intent"] = {"decision": decision.value, "flag": flag, "at": at}
    try:
        write_run(folder, run)
        write(folder / VERDICT, unfinished(run).dump())
    except OSError as error:
        raise CannotWork(f"{error}; allowed: a folder that can be written. See to the disk of --output") from error


def unkept(verdict: Verdict, error: BaseException) -> GateError:
    """The error for a run that cannot be recorded: it tells on stderr, and only there, what was done."""
    action = verdict.action
    lost = f"This could not be written down: {first_line(error)}. Keep this line"
    said = f"{action.kind}: {action.result}. {verdict.reason}. {lost}"
    if not verdict.headline:
        return CannotWork(said)
    by_hand = " ".join(action.by_hand.split("\n"))
    return NotRolledBack(f"{verdict.headline}. {said}" + (f". Run this by hand: {by_hand}" if by_hand else ""))


def write_run(folder: Path, run: Mapping[str, JsonValue]) -> None:
    write(folder / RUN, characters.log(json.dumps(run, ensure_ascii=False, indent=1, allow_nan=False)) + "\n")


def write(path: Path, text: str) -> None:
    """Replace a file atomically and durably."""
    disk.write(path, text, durable=True)


def facts_of(policy: Policy) -> dict[str, JsonValue]:
    """The members of run.json that follow from the policy."""
    return {
        "target": policy.target.value,
        "release": policy.release,
        "policy_digest": policy.digest,
        "proof_digest": policy.proof_digest,
        "policy": policy.to_json(),
    }


@dataclass(frozen=True, slots=True)
class Decided:
    """What a verdict is recomputed from, besides the evidence. All times are RFC 3339."""

    policy: Policy
    at: dt.datetime
    evidence: ChainEnd
    action: Action
    finished_at: str

    def facts(self) -> dict[str, JsonValue]:
        """The same as members of run.json."""
        return facts_of(self.policy) | {
            "decided_at": stamp(self.at),
            "evidence": self.evidence.to_json(),
            "finished_at": self.finished_at,
            "action": self.action.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Recorded:
    """A folder as read: its run.json, its evidence (with defects of the file), and the verdict on both. checks: those
    of the policy, without their prose.
    """

    run: dict[str, Any]
    evidence: tuple[Evidence, ...]
    verdict: Verdict
    checks: tuple[CheckSpec, ...] = ()

    def specs(self, known: Sequence[CheckSpec]) -> list[CheckSpec]:
        """The judged checks, with their claims if `known` has them."""
        named = {s.id: s for s in known}
        return [named.get(s.id, s) for s in self.checks] or list(known)


def recompute(folder: Path) -> Verdict:
    """The verdict from evidence.ndjson and run.json alone. Raise CannotWork if run.json cannot be read."""
    return read(folder).verdict


def read(folder: Path, decided: Verdict | None = None) -> Recorded:
    """What a folder holds, and the verdict recomputed from it. Raise CannotWork if it is no record of a run, or yields
    another verdict than `decided`.
    """
    path, run = folder / RUN, dict[str, Any]()
    try:
        run = _run(foreign.json_value(disk.read(path, MOST_BYTES), foreign.MOST_MARKS_OWN))
        _readable(run)
        if not _member(run, "finished_at", _text):
            return Recorded(run, read_log(folder / EVIDENCE).evidence, unfinished(run))
        policy = _policy(run)
        decided_at = _member(run, "decided_at", moment)
        action = _member(run, "action", _acted)
        end = _member(run, "evidence", lambda found: typed(ChainEnd(**found)))
        evidence = read_log(folder / EVIDENCE, end).evidence
        started_at, finished_at = _member(run, "started_at", _text), _member(run, "finished_at", _text)
    except FileNotFoundError as error:
        lost = f"there is no {error.filename}; allowed: the folder of a gate run"
        raise CannotWork(f"{lost}. Run the gate, or name the folder of a run") from error
    except (OSError, ValueError, RecursionError) as error:
        wrong, text = path, str(error)
        if isinstance(error, OSError):
            wrong, text = Path(error.filename or path), of_file(error)
        do = "Name the folder of one"
        if (by := foreign.text(run.get("gate", ""), 40)) and by != gate_version():
            do = f"Gate {by} wrote it, and this is {gate_version()}: use that one, or run this one again"
        raise CannotWork(f"{wrong}: {text}; allowed: the {wrong.name} of a gate run. {do}") from error
    verdict = settle(decide(evidence, policy, decided_at), action, started_at, finished_at)
    if decided is not None and verdict != decided:
        said = f"{folder} was written to by somebody else: its files give another verdict than was decided"
        raise CannotWork(f"{said}; allowed: a folder that one gate alone writes to. Give another --output")
    return Recorded(run, evidence, verdict, policy.catalogue)


def _run(found: JsonValue) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object, or one that names a member twice")  # noqa: TRY004  -- of the file
    return found


def _readable(run: Mapping[str, Any]) -> None:
    if _member(run, "format", str) != str(FORMAT):
        raise ValueError(f"format {run['format']} where {FORMAT} is read: another version of the gate wrote it")
    for name in TEXTS:
        if name in run:
            _member(run, name, _text)


def _acted(data: dict[str, Any]) -> Action:
    action = Action.from_json(data)
    if action.result not in GOES_ON and not action.holds:
        raise ValueError("no gate writes this result of an action that does not hold")
    return action


def _policy(run: Mapping[str, Any]) -> Policy:
    """The policy. Raise ValueError if what stands beside it is of another one: runs were mixed, or it was changed."""
    found = _member(run, "policy", Policy.from_json)
    for name, told in facts_of(found).items():
        if name != "policy" and run.get(name, told) != told:
            raise ValueError(f"its member {name!r} is not of the policy that stands in it")
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _member(run: Mapping[str, Any], name: str, read: Callable[[Any], T]) -> T:
    """A member as `read` reads it. Raise ValueError in words of the file."""
    if name not in run:
        raise ValueError(f"it has no member {name!r}")
    try:
        return read(run[name])
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"its member {name!r} is not what a gate writes") from error
