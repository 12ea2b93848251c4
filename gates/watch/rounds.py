"""One round of the watch, as one line of its history. Pure; standard library only. A round holds a reading of every
check that was due, the open incidents after it, and what changed.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from gates.decision.assessment import number
from gates.evidence import Evidence, JsonValue, Outcome, members_of, moment, typed
from gates.text.characters import log, one_line
from gates.verdict import NOT_ROLLED_BACK, SETTLED, Effect, Finding

FORMAT = 1
MOST_MESSAGE = 300
"""The most characters of a message: a history of thousands of rounds keeps the sentence, not the witness."""

PARSE_ERRORS = (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError)
"""What reading a line that no gate wrote can raise."""
STATES = ("good", "doubtful", "failing")
LEVELS_OF = {"failing": ("note", "warn", "page"), "blind": ("blind",)}
"""The kinds of incidents, with the levels of each."""
EXIT_CODES = {"good": 0, "doubtful": 10, "failing": 20}


@dataclass(frozen=True, slots=True)
class Reading:
    """The outcome of one check in one round.

    effect: by the policy (a word of Effect, empty for a pass). value, limits: the number in `unit` and its limits, by
    severity. for_s: how long it must be broken before a notification. lacking: unknown only because of too few samples.
    blocked_by: the check that it needs.
    """

    check: str
    outcome: Outcome
    effect: str = ""
    value: float | None = None
    limits: tuple[tuple[str, float], ...] = ()
    unit: str = ""
    message: str = ""
    for_s: float = 0.0
    lacking: bool = False
    blocked_by: str = ""

    @property
    def harmful(self) -> bool:
        """Seen failing, gravely enough to roll back."""
        return self.outcome is Outcome.FAIL and self.effect == Effect.ROLLBACK

    @property
    def level(self) -> str:
        """`page`, `warn` or `note` for a failure; `blind` for what could not be seen; empty for a pass."""
        if self.outcome is Outcome.PASS:
            return ""
        if self.effect in {Effect.NOTE, Effect.WAIVED}:
            return "note"
        if self.outcome is Outcome.UNKNOWN:
            return "blind"
        return "page" if self.effect == Effect.ROLLBACK else "warn"

    def to_json(self) -> JsonValue:
        """Only the word for a pass without a number, which most of a history is."""
        members = {**members_of(self), "limits": dict(self.limits)}
        own = {k: v for k, v in members.items() if k not in {"check", "outcome"}}
        kept = {k: v for k, v in own.items() if v or (k == "value" and v is not None)}
        return {"outcome": self.outcome.value, **kept} if kept else self.outcome.value

    @classmethod
    def from_json(cls, check: str, data: Any) -> Reading:
        """Raise one of PARSE_ERRORS for anything that to_json did not write."""
        if isinstance(data, str):
            return _plain(check, data)
        values = dict(data)
        outcome = Outcome(values.pop("outcome"))
        limits = tuple((str(k), _finite(v)) for k, v in values.pop("limits", {}).items())
        value = values.pop("value", None)
        made = cls(check, outcome, limits=limits, value=None if value is None else _finite(value), **values)
        texts = (made.effect, made.unit, made.message, made.blocked_by)
        if not all(isinstance(text, str) for text in texts) or _finite(made.for_s) < 0:
            raise TypeError(f"{check} has a member of another type")
        return made


@lru_cache(maxsize=10_000)
def _plain(check: str, outcome: str) -> Reading:
    """Most readings of a history are alike; they share one object."""
    return Reading(check, Outcome(outcome))


@dataclass(frozen=True, slots=True)
class Incident:
    """A failure, or a check that cannot be seen, that is not yet known to be over.

    kind: `failing` (seen failing) or `blind` (could not be seen). since, seen_at: when it was first and last seen so.
    rounds: how many rounds saw it so. harm: how many rounds in a row saw it grave enough to roll back. firing: whether
    it lasted longer than its `for`, and is notified. told_at: the last notification. unseen_since: since when the
    failing check cannot be seen. acted: whether it caused a rollback.
    """

    check: str
    kind: str
    level: str
    since: str
    seen_at: str
    rounds: int = 1
    harm: int = 0
    firing: bool = False
    told_at: str = ""
    unseen_since: str = ""
    acted: bool = False
    message: str = ""

    @property
    def times(self) -> tuple[str, ...]:
        return self.since, self.seen_at, *filter(None, (self.told_at, self.unseen_since))


@dataclass(frozen=True, slots=True)
class Change:
    """A difference from the round before.

    kind: `failing`, `worse`, `recovered`, `blind`, `seen again`, `still failing` (a reminder), `watcher down`, `rolled
    back`, `not rolled back`; or, never notified: `pending` (failing, its `for` not over), `newly unknown`.
    """

    kind: str
    check: str
    level: str
    message: str
    at: str

    @property
    def told(self) -> bool:
        """Whether it is notified, and not only in the report."""
        return self.kind not in {"pending", "newly unknown"} and self.level != "note"


@dataclass(frozen=True, slots=True)
class Round:
    """One round: its time and target, the readings, the open incidents, the changes, the action.

    A line of the history holds each message once, in `texts`; everything else refers to it by its index there.
    interval_s: when the next one is due. down_s: how long before it nothing was seen, beyond what was due, else 0.
    clock: what is odd about the clock, else empty. not_due: checks left out of this round on purpose.
    """

    number: int
    at: str
    finished_at: str
    target: str
    state: str
    reason: str = ""
    release: str = ""
    interval_s: float = 0.0
    down_s: float = 0.0
    clock: str = ""
    drills: str = ""
    readings: Mapping[str, Reading] = field(default_factory=dict)
    not_due: tuple[str, ...] = ()
    incidents: tuple[Incident, ...] = ()
    changes: tuple[Change, ...] = ()
    action: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def started(self) -> dt.datetime:
        return dt.datetime.fromisoformat(self.at)

    @property
    def exit_code(self) -> int:
        """That of the state, or 21 for a rollback that could not be carried out."""
        failed = self.action and self.action.get("result") not in SETTLED
        return NOT_ROLLED_BACK if failed else EXIT_CODES[self.state]

    @property
    def saw_something(self) -> bool:
        """Whether anything was observed; a round without is a sign of life, but did not watch the target."""
        return any(r.outcome is not Outcome.UNKNOWN for r in self.readings.values())

    @property
    def counts(self) -> dict[str, int]:
        outcomes = [r.outcome for r in self.readings.values()]
        return {o.value: outcomes.count(o) for o in Outcome}

    def line(self) -> str:
        """One line of the history, with its newline."""
        texts: dict[str, int] = {}
        data: dict[str, JsonValue] = {
            "v": FORMAT,
            "kind": "round",
            **members_of(self),
            "readings": {name: _pointing(r.to_json(), texts) for name, r in self.readings.items()},
            "not_due": list(self.not_due),
            "incidents": [_pointing(_members(i), texts) for i in self.incidents],
            "changes": [_pointing(_members(c), texts) for c in self.changes],
            "action": dict(self.action),
        }
        data["texts"] = list(texts)
        return log(json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)) + "\n"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Round:
        """Raise one of PARSE_ERRORS for anything that `line` did not write."""
        values = {k: v for k, v in data.items() if k not in {"v", "kind", "texts"}}
        texts = data["texts"]
        values["readings"] = {k: Reading.from_json(k, _resolved(v, texts)) for k, v in values["readings"].items()}
        values["incidents"] = tuple(typed(Incident(**_resolved(i, texts))) for i in values["incidents"])
        values["changes"] = tuple(typed(Change(**_resolved(c, texts))) for c in values["changes"])
        values["not_due"] = tuple(values["not_due"])
        made = typed(cls(**values))
        if made.state not in STATES or not isinstance(made.action, dict):
            raise ValueError(f"state {made.state!r}, action {made.action!r}")
        if any(i.level not in LEVELS_OF.get(i.kind, ()) for i in made.incidents):
            raise ValueError("an incident of another kind or level")
        for at in (made.at, made.finished_at, *(at for i in made.incidents for at in i.times)):
            moment(at)
        return made


def _pointing(data: Any, texts: dict[str, int]) -> Any:
    """The members with an index instead of the message: a hundred checks may share one."""
    if not isinstance(data, dict) or not data.get("message"):
        return data
    return {**data, "message": texts.setdefault(data["message"], len(texts))}


def _resolved(data: Any, texts: Sequence[str]) -> Any:
    """The members with their message restored. Raise IndexError for an invalid index."""
    if not isinstance(data, dict) or not isinstance(data.get("message"), int):
        return data
    return {**data, "message": texts[data["message"]]}


def _finite(value: Any) -> float:
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{found} is no number")
    return found


def _members(value: Incident | Change) -> dict[str, JsonValue]:
    return {
        k: v
        for k, v in members_of(value).items()
        if v not in ("", False) or k in {"check", "level", "message", "since"}
    }


def readings_of(checks: Sequence[str], findings: Sequence[Finding], evidence: Sequence[Evidence]) -> dict[str, Reading]:
    """A reading of every check that was due: the verdict's finding, with the number of its last evidence."""
    found = {f.check: f for f in findings}
    last = {e.check: e for e in evidence}
    return {check: _reading(check, found.get(check), last.get(check)) for check in sorted({*checks, *found})}


def _reading(check: str, finding: Finding | None, line: Evidence | None) -> Reading:
    details = line.details if line is not None else {}
    observed = finding.observed if finding is not None else line.observed if line is not None else None
    limit = finding.limit if finding is not None else line.limit if line is not None else None
    value = number(observed)
    value = None if value is None else float(f"{value:.6g}")
    if finding is None and value == number(limit) and "limits" not in details:
        value = None  # an expected value was met: no number that moves
    return Reading(
        check,
        Outcome(finding.outcome) if finding is not None else Outcome.PASS,
        finding.effect.value if finding is not None else "",
        value,
        _limits(details.get("limits"), limit) if value is not None else (),
        line.unit if line is not None else "",
        one_line(finding.message, MOST_MESSAGE) if finding is not None else "",
        (number(details.get("for_s")) or 0.0) if finding is not None else 0.0,
        finding is not None
        and finding.outcome == Outcome.UNKNOWN
        and number(details.get("samples_needed")) is not None,
        finding.blocked_by if finding is not None else "",
    )


def _limits(told: JsonValue, limit: JsonValue) -> tuple[tuple[str, float], ...]:
    if isinstance(told, Mapping):
        return tuple((k, n) for k, v in told.items() if (n := number(v)) is not None)
    one = number(limit)
    return () if one is None else (("limit", one),)
