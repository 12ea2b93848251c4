"""Ways in which the gate's input may be missing, old, foreign or no number. Pure.

Each turns the evidence and run.json of a green run into the input of `gate decide`; no evidence is None. Changed lines
are chained again, and run.json ends them, so that the decision itself is tested; changed bytes are not.
"""

import copy
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from gates.evidence import JsonValue, stamp
from gates.evidence_file import chained, read_bytes
from gates.proof.trial import NOT_PROMOTED
from gates.verdict import Decision

Line = dict[str, JsonValue]
Run = dict[str, JsonValue]
Change = Callable[[list[Line], Run], "list[Line] | bytes | None"]

HELD = (Decision.HOLD,)


@dataclass(frozen=True, slots=True)
class Tampering:
    """A tampered green run. `change` may alter its arguments; it returns lines, bytes, or None."""

    name: str
    said: str
    change: Change
    allowed: tuple[Decision, ...] = HELD


def _every(member: str, value: Callable[[Line], JsonValue], *, only: str = "") -> Change:
    def change(lines: list[Line], _run: Run) -> list[Line]:
        return [{**one, member: value(one)} if str(one["check"]).startswith(only) else one for one in lines]

    return change


def _moved(delta: dt.timedelta) -> Change:
    return _every("started_at", lambda one: stamp(_time(one["started_at"]) + delta))


def _time(text: JsonValue) -> dt.datetime:
    return dt.datetime.fromisoformat(str(text))


def _half_the_drills(lines: list[Line], _run: Run) -> list[Line]:
    drills = sorted({str(one["check"]) for one in lines if str(one["check"]).startswith("drill/")})
    gone = set(drills[::2])
    return [one for one in lines if one["check"] not in gone]


def _without_one(lines: list[Line], _run: Run) -> list[Line]:
    last = max(str(one["check"]) for one in lines if str(one["check"]).startswith("sql/"))
    return [one for one in lines if one["check"] != last]


def _numbers(value: JsonValue, samples: Callable[[Line], JsonValue]) -> Change:
    """What every check compared becomes `value`, if it was a number."""

    def change(lines: list[Line], _run: Run) -> list[Line]:
        return [
            {**one, "observed": value, "samples": samples(one)} if isinstance(one.get("observed"), int | float) else one
            for one in lines
        ]

    return change


def _decided(hours: int) -> Change:
    """The clock jumps by so much before the decision."""

    def change(lines: list[Line], run: Run) -> list[Line]:
        run["decided_at"] = stamp(_time(run["decided_at"]) + dt.timedelta(hours=hours))
        return lines

    return change


def _unfinished(lines: list[Line], run: Run) -> list[Line]:
    run["finished_at"] = ""
    return lines


def _failed_too(*, first: bool) -> Change:
    """One check also failed, in a line before or after the one that passed."""

    def change(lines: list[Line], _run: Run) -> list[Line]:
        one = next(line for line in lines if str(line["check"]).startswith("drill/proof/"))
        worse = {**one, "outcome": "fail", "message": "planted"}
        return [worse, *lines] if first else [*lines, worse]

    return change


def _failing(change: Callable[[list[bytes]], list[bytes]]) -> Change:
    """One check failed before it passed, and the file was changed later: its lines, the failure as the third."""

    def changed(lines: list[Line], run: Run) -> bytes:
        failed = {**lines[2], "outcome": "fail", "message": "planted"}
        whole = chained([*lines[:2], failed, *lines[2:]])
        run["evidence"] = read_bytes(whole).end.to_json()
        return b"".join(change(whole.splitlines(keepends=True)))

    return changed


def _third(change: Callable[[bytes], bytes]) -> Change:
    return _failing(lambda lines: [*lines[:2], change(lines[2]), *lines[3:]])


DAYS = dt.timedelta(days=3)
TAMPERINGS: tuple[Tampering, ...] = (
    Tampering("evidence-missing", "the evidence file is gone", lambda _lines, _run: None),
    Tampering("evidence-empty", "the evidence file is empty", lambda _lines, _run: []),
    Tampering("evidence-cut", "half of the evidence file is there", lambda lines, _run: lines[: len(lines) // 2]),
    Tampering("evidence-rubbish", "the evidence file is no evidence", lambda _lines, _run: b"PROMOTE\n{}\n[]\nnull\n"),
    Tampering("one-missing", "one check has no evidence", _without_one),
    Tampering("stale", "the evidence is three days old", _moved(-DAYS)),
    Tampering("from-the-future", "the evidence is from in three days", _moved(DAYS)),
    Tampering("clock-jumps-ahead", "the clock jumps three hours ahead before the decision", _decided(3)),
    Tampering("clock-jumps-back", "the clock jumps three hours back before the decision", _decided(-3)),
    Tampering("other-release", "the evidence is of another release", _every("release", lambda _one: "the-one-before")),
    Tampering("half-the-drills", "half of the drills were deselected", _half_the_drills),
    Tampering("all-skipped", "every check was skipped", _every("outcome", lambda _one: "unknown")),
    Tampering("load-of-nothing", "the load saw no request", _every("samples", lambda _one: 0, only="load/")),
    Tampering("nothing-seen", "no check observed anything", _every("samples", lambda _one: 0)),
    Tampering("not-a-number", "every number is NaN", _numbers("nan", lambda one: one.get("samples"))),
    Tampering("null", "every number is NULL, of nothing", _numbers(None, lambda _one: 0)),
    Tampering("unfinished", "the run did not finish", _unfinished),
    Tampering("failed-then-passed", "a check failed before it passed", _failed_too(first=True), NOT_PROMOTED),
    Tampering("line-torn", "the line of a failure is cut", _third(lambda one: one[: len(one) // 2] + b"\n")),
    Tampering("line-rotten", "a failure's line is no UTF-8", _third(lambda one: one[:90] + b"\xff" + one[91:])),
    Tampering("line-turned", "a failure's line says pass", _third(lambda one: one.replace(b'"fail"', b'"pass"'))),
    Tampering("line-of-another-kind", "a failure's outcome is none", _third(lambda one: one.replace(b"fail", b"bad!"))),
    Tampering("line-with-more", "a failure has a member too many", _third(lambda one: one[:-2] + b',"more":1}\n')),
    Tampering("line-removed", "a failure's line is gone", _third(lambda _one: b"")),
    Tampering("line-doubled", "a line stands twice", _failing(lambda lines: [lines[0], *lines]), NOT_PROMOTED),
    Tampering(
        "lines-moved", "two lines are swapped", _failing(lambda lines: [*lines[1::-1], *lines[2:]]), NOT_PROMOTED
    ),
    Tampering("tail-cut", "the evidence ends before the failure", _failing(lambda lines: lines[:2])),
    Tampering("passed-then-failed", "a check failed after it passed", _failed_too(first=False), NOT_PROMOTED),
)


def tamper(one: Tampering, lines: list[Line], run: Run) -> tuple[bytes | None, Run]:
    """The tampered evidence file (None: there is none) and run.json; the arguments stay unchanged."""
    changed = copy.deepcopy(run)
    changed["evidence"] = read_bytes(chained(lines)).end.to_json()
    spoilt = one.change(copy.deepcopy(lines), changed)
    if isinstance(spoilt, list):
        text = chained(spoilt)
        return text, {**changed, "evidence": read_bytes(text).end.to_json()}
    return spoilt, changed
