"""What a fault is, and how the modules of this package declare theirs. Every module of the package is read."""

import datetime as dt
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import faults
from faults.probe import Probe, runs
from faults.proxy.rewriting import Make, World
from faults.proxy.server import proxy as serving
from faults.proxy.server import stands_before

Kind = Literal["service", "worker", "sql", "process", "proxy", "trigger", "none"]
Decision = Literal["rollback", "hold", "promote"]
Witness = Callable[[Probe], bool]
Texts = str | tuple[str, ...]
Build = TypeVar("Build", bound=Callable[[Any], Any])

EVENTS = ("stop-worker", "kill-worker")
"""Process events: stop-worker freezes every worker (SIGSTOP), kill-worker kills each and does not start it again."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One named defect of a deployment.

    `parts` is `module:function` for `--parts` of the service or the worker, `sql` and `undo_sql` are run by a
    superuser, `event` is one of EVENTS, `rewrite` makes what a proxy does, and `told` what the gate is told
    beside the URL of the proxy. `env` is set for the service and the worker.

    `checks` are ids or globs of the checks that catch it, each of them; those of `green` stay green. One of `names`, if
    there are any, must appear in the finding. `decision` is what the gate must decide; None: what the severities of
    the checks say, a rollback for one that pages, else a hold. `production`: whether it can occur in production, where
    only production-safe checks run. `from_day`: the day of a month (UTC) from which it has an effect.
    """

    id: str
    breaks: str
    kind: Kind
    witness: Witness = field(compare=False)
    parts: str | None = None
    sql: str | None = None
    undo_sql: str | None = None
    event: str | None = None
    rewrite: Make | None = field(default=None, compare=False)
    told: Callable[[World], Mapping[str, str]] = field(default=lambda _world: {}, compare=False)
    env: Mapping[str, str] = field(default_factory=dict)
    production: bool = True
    decision: Decision | None = None
    checks: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    green: tuple[str, ...] = ()
    from_day: int = 1

    def as_json(self) -> dict[str, Any]:
        """The fault as `python -m faults list` prints it."""
        shown = {name: getattr(self, name) for name in self.__slots__ if name not in UNTOLD}
        return shown | {"env": dict(self.env), "checks": list(self.checks), "names": list(self.names)}


UNTOLD = {"witness", "rewrite", "told", "green", "from_day"}
"""Members that the harness does not need."""

_DECLARED: dict[str, Fault] = {}


def declare(fault: Fault) -> Fault:
    """Add a fault to the catalogue. Raise ValueError where its id is taken."""
    if fault.id in _DECLARED:
        raise ValueError(f"two faults are called {fault.id}; give one of them another name")
    _DECLARED[fault.id] = fault
    return fault


def service(witness: Witness | None, checks: Texts, names: Texts, **more: Any) -> Callable[[Build], Build]:
    """Declare the decorated function (settings -> Parts) as a fault of the service: its name makes the id, and its
    docstring says what breaks. Without a witness, that a process was started with it is one.
    """
    return _of_parts("service", witness, checks, names, more)


def worker(witness: Witness | None, checks: Texts, names: Texts, **more: Any) -> Callable[[Build], Build]:
    """As `service`, of the worker (settings -> WorkerParts)."""
    return _of_parts("worker", witness, checks, names, more)


def statement(
    fault_id: str, breaks: str, sql: str, undo_sql: str, witness: Witness, checks: tuple[str, ...], **more: Any
) -> Fault:
    """Declare statements on the database, and those that take them back, as a fault."""
    return declare(Fault(fault_id, breaks, "sql", witness, sql=sql, undo_sql=undo_sql, checks=checks, **more))


def proxy(fault_id: str, rewrite: Make, checks: tuple[str, ...], breaks: str = "", **more: Any) -> Fault:
    """Declare what a proxy before the service does as a fault. Without `breaks` its id says what breaks."""
    said = breaks or sentence(fault_id)
    return declare(Fault(fault_id, said, "proxy", stands_before(fault_id), rewrite=rewrite, checks=checks, **more))


def sentence(fault_id: str) -> str:
    """What an id says: `tokens/there-is-no-leeway` is "There is no leeway."."""
    words = fault_id.rpartition("/")[2].replace("-", " ")
    return f"{words[0].upper()}{words[1:]}."


def _of_parts(
    kind: Kind, witness: Witness | None, checks: Texts, names: Texts, more: Mapping[str, Any]
) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        area = build.__module__.rpartition(".")[2].replace("_", "-")
        fault_id = f"{area}/{build.__name__.replace('_', '-')}"
        place = f"{build.__module__}:{build.__name__}"
        breaks = " ".join((build.__doc__ or "").split())
        seen = witness or runs(place)
        declare(Fault(fault_id, breaks, kind, seen, parts=place, checks=_each(checks), names=_each(names), **more))
        return build

    return add


def _each(texts: Texts) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else texts


def catalogue(day: int | None = None) -> Mapping[str, Fault]:
    """Every fault that has an effect on a day of a month (None: today, UTC) by its id, in the order of the modules and
    of their lines.
    """
    for found in pkgutil.walk_packages(faults.__path__, "faults."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    day = day or dt.datetime.now(dt.UTC).day
    return {name: fault for name, fault in _DECLARED.items() if day >= fault.from_day}


@contextmanager
def behind_proxy(environ: Mapping[str, str], *several: Fault) -> Iterator[Mapping[str, str]]:
    """What a gate is told of the deployment that `environ` names, with faults of kind proxy in it for a while."""
    names = [one.id for one in several]
    with World(environ) as world:
        defects = [one.rewrite(world) for one in several if one.rewrite]
        told = {name: value for one in several for name, value in one.told(world).items()}
        with serving(world.base_url, *defects, names=names) as url:
            yield {**told, "BASE_URL": url}
