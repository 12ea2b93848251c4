"""What a check promises and what it saw: the vocabulary of all modules. Imports only the reader of foreign values.

All of it is frozen and converts to one JSON object and back without loss. No value that a target sends can prevent an
evidence line from being written.
"""

from __future__ import annotations

import datetime as dt
import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypeVar

from gates.text import foreign

JsonValue = foreign.JsonValue
D = TypeVar("D")

VARIABLES = "preflight/variables"
"""The check that lists the variables that are not set. Checks that need one of them are blocked by it."""
UNREADABLE = "evidence/"
"""Prefix of the id of evidence that could not be read (`gates.evidence_file`); it always holds."""
CHARGED, WAITED = "charged otherwise than moved", "waited in vain"
"""Symptoms of a drill: a replay was charged wrongly; what the drill waited for did not come."""


class Outcome(enum.StrEnum):
    """The outcome of a check. Only an observation makes it `pass`."""

    PASS = "pass"  # noqa: S105  -- an outcome
    FAIL = "fail"
    UNKNOWN = "unknown"


class Severity(enum.StrEnum):
    """How bad a failure is: page rolls back, warn holds, investigate is noted."""

    PAGE = "page"
    WARN = "warn"
    INVESTIGATE = "investigate"


class Where(enum.StrEnum):
    """The least protected target on which a check may run."""

    READ_ONLY = "read-only"
    SELF_CLEANING = "self-cleaning"
    STAGING = "staging"
    DISRUPTIVE = "disruptive"
    """It writes or locks what all requests depend on: the live row of a flag, the pause of the fleet."""
    REFERENCE = "reference"


class TargetKind(enum.StrEnum):
    """What may be done to the target (GATE_TARGET)."""

    PRODUCTION = "production"
    STAGING = "staging"
    REFERENCE = "reference"

    def allows(self, where: Where, *, disruptive: bool = False) -> bool:
        """Whether a check that may run at `where` may run on this target. disruptive: the caller allowed disturbances
        on staging, which others use (--disruptive). Production never allows them; the reference always does.
        """
        gentle = {Where.READ_ONLY, Where.SELF_CLEANING}
        ladder = {
            TargetKind.PRODUCTION: gentle,
            TargetKind.STAGING: {*gentle, Where.STAGING, *([Where.DISRUPTIVE] if disruptive else [])},
            TargetKind.REFERENCE: set(Where),
        }
        return where in ladder[self]


CAPABILITIES = ("drill-agent", "two-sources", "memory-metric", "baseline")
"""What a target may have or lack. Evidence `preflight/capability/<name>` with observed False makes the checks that need
it not applicable. Without that evidence they are required, so lost evidence can only add unknowns.
"""


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """One promise, known before anything runs; the catalogue is a list of these.

    needs: names from CAPABILITIES, and the inputs `database`, `mint` (REPLAY_JWT_SECRET) and `tenants` (may create
    drill tenants). A missing input makes the check unknown, a missing capability not applicable. after: ids of checks
    without which this one proves nothing. covers: lines of the list of checks (A01...). area: its part of the contract,
    empty for a user's own check. also: other areas that it needs.
    """

    id: str
    claim: str
    cost: str
    severity: Severity
    where: Where
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    deep: bool = False
    phase: str = "main"
    area: str = ""
    also: tuple[str, ...] = ()

    def to_json(self) -> dict[str, JsonValue]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in members_of(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, JsonValue]) -> CheckSpec:
        """Raise ValueError or TypeError on a missing or unknown member."""
        values: dict[str, Any] = dict(data)
        for name in ("needs", "after", "covers", "also"):
            if name in values:
                values[name] = tuple(_strings(values[name]))
        values["severity"] = Severity(str(values["severity"]))
        values["where"] = Where(str(values["where"]))
        return typed(cls(**values))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one check saw.

    observed, limit: the compared numbers or short texts, in `unit`. samples: how many things were observed. started_at:
    RFC 3339 UTC. duration_ms: wall time. witness: what shows a failure (a row, a request and its answer, its nearest
    passing twin). reproduce: a shell command without secrets. details: data of the attempts. severity: only if a check
    has several limits (an alert's warning and paging limits); else the check's own counts. round: `before` if it was
    seen before the load and must be seen again after it, else empty.
    """

    check: str
    outcome: Outcome
    message: str = ""
    observed: JsonValue = None
    limit: JsonValue = None
    unit: str = ""
    samples: int = 0
    started_at: str = ""
    duration_ms: float = 0.0
    witness: JsonValue = None
    reproduce: str = ""
    blocked_by: str = ""
    release: str = ""
    severity: str = ""
    round: str = ""
    details: Mapping[str, JsonValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """A pass that observed nothing, or no number, becomes unknown. Values are normalised as they are written."""
        samples = foreign.whole(self.samples) or 0
        odd = samples < 1 or _not_a_number(self.observed) or _not_a_number(self.limit)
        if self.outcome is Outcome.PASS and odd:
            object.__setattr__(self, "outcome", Outcome.UNKNOWN)
            object.__setattr__(self, "message", "; ".join(filter(None, ("nothing was observed", self.message))))
        details = foreign.plain(self.details)
        safe = {
            **{name: foreign.text(getattr(self, name)) for name in _TEXTS},
            **{name: foreign.plain(getattr(self, name)) for name in ("observed", "limit", "witness")},
            "samples": samples,
            "duration_ms": foreign.number(self.duration_ms) or 0.0,
            "details": details if isinstance(details, dict) else {"details": details},
        }
        for name, value in safe.items():
            object.__setattr__(self, name, value)

    def to_json(self) -> dict[str, JsonValue]:
        return {k: v for k, v in members_of(self).items() if v not in ("", None, {})}

    @classmethod
    def from_json(cls, data: Mapping[str, JsonValue]) -> Evidence:
        """Raise ValueError or TypeError for anything that is not one evidence object."""
        for name, kinds in _MEMBERS.items():
            value = data.get(name, "" if kinds is str else 0 if kinds is not Mapping else {})
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise TypeError(f"{name} is {value!r}; see the members of Evidence")
        if not data.get("check"):
            raise ValueError("evidence without the id of its check")
        values: dict[str, Any] = dict(data)
        values["outcome"] = Outcome(str(data["outcome"]))
        if values.get("severity"):
            Severity(str(values["severity"]))
        if values.get("round", "") not in {"", "before"}:
            raise ValueError(f"round is {values['round']!r}; it is empty or `before`")
        return cls(**values)


_TEXTS = (*("check", "message", "unit", "started_at", "reproduce"), *("blocked_by", "release", "severity", "round"))
_MEMBERS: dict[str, Any] = {
    **dict.fromkeys((*_TEXTS, "outcome"), str),
    "samples": int,
    "duration_ms": int | float,
    "details": Mapping,
}

MOST_NUMBER = 1e12
"""The largest setting or percentage."""
_TYPED: dict[str, Any] = {"str": str, "bool": bool, "int": int, "float": int | float, "dict[str, JsonValue]": dict}


def members_of(one: object) -> dict[str, Any]:
    """The fields of a dataclass, in their order."""
    return {name: getattr(one, name) for name in _members(type(one))}  # type: ignore[arg-type]  # a class has a hash


def typed(one: D) -> D:
    """Return the object. Raise TypeError if a text, a number or a tuple of them does not have its field's type."""
    for name, stated in _members(type(one)).items():  # type: ignore[arg-type]  # a class has a hash
        value, kind = getattr(one, name), stated.removesuffix(" | None")
        inner = kind.removeprefix("tuple[").removesuffix(", ...]")
        wanted = _TYPED.get(inner)
        if wanted is None or (value is None and kind != stated):
            continue
        if (inner != kind) is not isinstance(value, tuple):
            raise TypeError(f"{name} is no {stated}")
        for part in value if inner != kind else (value,):
            odd = isinstance(part, bool) is not (wanted is bool) or not isinstance(part, wanted)
            if odd or (isinstance(part, int | float) and not abs(part) <= MOST_NUMBER):
                raise TypeError(f"{name} is {foreign.text(part, 80)}; it is no {inner}")
    return one


@cache
def _members(kind: Any) -> dict[str, str]:
    """The fields of a dataclass, in their order, with their types as written."""
    return {field.name: str(field.type) for field in fields(kind)}


def stamp(at: dt.datetime) -> str:
    """RFC 3339, UTC, milliseconds."""
    return at.astimezone(dt.UTC).isoformat(timespec="milliseconds")


def moment(text: object) -> dt.datetime:
    """A stamp as a time in UTC. Raise ValueError if it is no time, has no zone, or cannot be converted."""
    at = dt.datetime.fromisoformat(str(text))
    if at.tzinfo is None:
        raise ValueError(f"{at} is a time without its zone")
    try:
        return at.astimezone(dt.UTC)
    except OverflowError:
        raise ValueError(f"{at} is no time in UTC") from None


def shown_time(at: str) -> str:
    """A stamp for people, to the second; empty if there is none."""
    return at.replace("T", " ")[:19] + " UTC" if at else ""


def _strings(value: JsonValue) -> Sequence[str]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise TypeError(f"a list of strings was expected, not {value!r}")
    return [str(v) for v in value]


def _not_a_number(value: JsonValue) -> bool:
    if isinstance(value, str):  # as foreign.plain writes them
        return value in {"nan", "inf", "-inf"}
    if isinstance(value, int):
        return foreign.whole(int(value)) is None
    return isinstance(value, float) and foreign.number(value) is None


def dump_line(evidence: Evidence) -> str:
    """The evidence as one line of text; it defines the order of evidence."""
    return json.dumps(evidence.to_json(), ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
