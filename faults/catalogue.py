"""What a fault is, and how the modules of this package declare theirs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from faults.probe import Probe

Kind = Literal["service", "worker", "sql", "process", "none"]
Decision = Literal["rollback", "hold", "promote"]
Witness = Callable[[Probe], bool]
Build = TypeVar("Build", bound=Callable[[Any], Any])

MODULES = (
    "noop",
    "authentication",
    "signing",
    "tokens",
    "validation",
    "rate_limit",
    "rate_limit_store",
    "idempotency",
    "idempotency_store",
    "selection",
    "budget",
    "budget_left",
    "lifecycle",
    "run_end",
    "outbox",
    "outbox_failures",
    "effects",
    "events",
    "switches",
    "audit",
    "surface",
    "load",
    "schema",
    "data",
)
"""The modules that declare faults, in the order of the list."""

EVENTS = ("stop-worker", "kill-worker")
"""Process events: stop-worker freezes every worker (SIGSTOP), kill-worker kills each and does not start it again."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One named defect of a deployment.

    `parts` is `module:function` for `--parts` of the service or the worker, `sql` and `undo_sql` are run by a
    superuser, `event` is one of EVENTS. `checks` are ids or globs of the checks that must catch it; one of `names`
    must appear in the finding. `production`: whether it can occur in production, where only production-safe checks run.
    """

    id: str
    breaks: str
    kind: Kind
    witness: Witness = field(compare=False)
    parts: str | None = None
    sql: str | None = None
    undo_sql: str | None = None
    event: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    production: bool = True
    decision: Decision = "rollback"
    checks: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The fault as `python -m faults list` prints it."""
        shown = {name: getattr(self, name) for name in self.__slots__ if name != "witness"}
        return shown | {"env": dict(self.env), "checks": list(self.checks), "names": list(self.names)}


_DECLARED: dict[str, Fault] = {}


def declare(fault: Fault) -> Fault:
    """Add a fault to the catalogue. Raise ValueError where its id is taken."""
    if fault.id in _DECLARED:
        raise ValueError(f"two faults are called {fault.id}; give one of them another name")
    _DECLARED[fault.id] = fault
    return fault


def service(breaks: str, witness: Witness, checks: tuple[str, ...], **more: Any) -> Callable[[Build], Build]:
    """Declare the decorated function (settings -> Parts) as a fault of the service: its name makes the id."""
    return _of_parts("service", breaks, witness, checks, more)


def worker(breaks: str, witness: Witness, checks: tuple[str, ...], **more: Any) -> Callable[[Build], Build]:
    """Declare the decorated function (settings -> WorkerParts) as a fault of the worker: its name makes the id."""
    return _of_parts("worker", breaks, witness, checks, more)


def statement(
    fault_id: str, breaks: str, sql: str, undo_sql: str, witness: Witness, checks: tuple[str, ...], **more: Any
) -> Fault:
    """Declare statements on the database, and those that take them back, as a fault."""
    return declare(Fault(fault_id, breaks, "sql", witness, sql=sql, undo_sql=undo_sql, checks=checks, **more))


def _of_parts(
    kind: Kind, breaks: str, witness: Witness, checks: tuple[str, ...], more: Mapping[str, Any]
) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        area = build.__module__.rpartition(".")[2].replace("_", "-")
        name = f"{area}/{build.__name__.replace('_', '-')}"
        place = f"{build.__module__}:{build.__name__}"
        declare(Fault(name, breaks, kind, witness, parts=place, checks=checks, **more))
        return build

    return add


def catalogue() -> Mapping[str, Fault]:
    """Every fault by its id, in the order of MODULES and of their lines."""
    for name in MODULES:
        importlib.import_module(f"faults.{name}")
    return dict(_DECLARED)
