"""A fault as `python -m faults list` declares it."""

from __future__ import annotations

import enum
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from gates.errors import CannotWork
from gates.evidence import CheckSpec, Severity
from gates.text.patterns import matches
from gates.verdict import Decision


class Kind(enum.StrEnum):
    """How a fault is put into a deployment."""

    SERVICE = "service"
    WORKER = "worker"
    SQL = "sql"
    PROCESS = "process"
    PROXY = "proxy"
    TRIGGER = "trigger"
    SEVERAL = "several"
    NONE = "none"


EVENTS = ("stop-worker", "kill-worker")
"""Process events: stop-worker freezes every worker, kill-worker kills each; neither is restarted until the end."""


@dataclass(frozen=True, slots=True)
class ListedFault:
    """One named defect.

    `checks` are ids, prefixes that end in `/`, or globs. One of `names`, if there are any, must be in the finding.
    `decision`: what the gate must decide (None: see `decided`; of several: anything but promote). `env` is set for the
    deployment. `members`: the faults that are in at the same time.
    """

    id: str
    breaks: str
    kind: Kind
    decision: Decision | None
    parts: str = ""
    sql: str = ""
    undo_sql: str = ""
    event: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    production: bool = False
    checks: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    members: tuple[ListedFault, ...] = ()

    @property
    def each(self) -> tuple[ListedFault, ...]:
        """The members; a fault without members itself."""
        return self.members or (self,)

    @property
    def is_noop(self) -> bool:
        """Nothing is wrong with the deployment: the gate must promote it."""
        return self.kind is Kind.NONE

    def declares(self, check: str) -> bool:
        """Whether this check is one of those that must catch the fault."""
        return matches(check, _patterns(self.checks))


def together(*members: ListedFault) -> ListedFault:
    """Several faults at the same time, as one: with the checks and names of all."""
    return ListedFault(
        " + ".join(one.id for one in members),
        " ".join(one.breaks for one in members),
        Kind.SEVERAL,
        None,
        checks=tuple(check for one in members for check in one.checks),
        names=tuple(name for one in members for name in one.names) if all(one.names for one in members) else (),
        members=members,
    )


@lru_cache(maxsize=4096)
def _patterns(checks: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{p}*" if p.endswith("/") else p for p in checks)


def decided(fault: ListedFault, specs: Iterable[CheckSpec]) -> ListedFault:
    """The fault with the decision that is due: rollback if one of its checks pages, else hold."""
    if fault.decision:
        return fault
    pages = any(s.severity is Severity.PAGE and fault.declares(s.id) for s in specs)
    return replace(fault, decision=Decision.ROLLBACK if pages else Decision.HOLD)


NEEDED = {Kind.SERVICE: "parts", Kind.WORKER: "parts", Kind.SQL: "sql", Kind.TRIGGER: "sql", Kind.PROCESS: "event"}
SELF_EVIDENT = {Kind.PROXY, Kind.TRIGGER, Kind.NONE}
"""Kinds of faults that alone turn their declared checks red: a failed check is enough, without a name."""
TEXTS = ("parts", "sql", "undo_sql", "event")


def read_list(text: str) -> tuple[ListedFault, ...]:
    """The faults in the JSON array that the package prints. Raise CannotWork for anything that is not one."""
    try:
        faults = tuple(_fault(**row) for row in json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise CannotWork(
            f"the list of faults cannot be read: {type(error).__name__}: {error}; allowed: a JSON array of faults; "
            "from `python -m faults list`. Correct the catalogue"
        ) from error
    doubled = sorted(i for i, times in Counter(f.id for f in faults).items() if times > 1)
    if doubled:
        raise CannotWork(f"the list of faults has {', '.join(doubled)} twice; allowed: once. Rename one")
    return faults


def _fault(**row: Any) -> ListedFault:
    read = {
        "kind": Kind(row["kind"]),
        "decision": Decision(row["decision"]) if row["decision"] else None,
        "checks": _patterns(tuple(row["checks"])),
        "names": tuple(row["names"]),
        **{name: row[name] or "" for name in TEXTS},
    }
    fault = ListedFault(**{**row, **read})
    if fault.kind in NEEDED and not getattr(fault, NEEDED[fault.kind]):
        raise ValueError(f"{fault.id}: a fault of kind {fault.kind} without {NEEDED[fault.kind]}")
    if fault.event and fault.event not in EVENTS:
        raise ValueError(f"{fault.id}: unknown event {fault.event!r}; known are {', '.join(EVENTS)}")
    if fault.is_noop != (fault.decision is Decision.PROMOTE):
        raise ValueError(f"{fault.id}: only a fault of kind none is to be promoted, and it must be")
    if not fault.is_noop and not fault.checks:
        raise ValueError(f"{fault.id}: without checks that must catch it")
    if fault.kind not in SELF_EVIDENT and not fault.names:
        raise ValueError(f"{fault.id}: without names that must be in the finding")
    return fault
