"""The order of checks in one pytest run: sentinels, then the main part in parallel, then one at a time the checks that
change global state.

`--at-once N` forks N processes once everything is imported and collected, so that one more costs next to nothing: most
of a drill is waiting. They are given the checks in their order, and send the reports to the process that collected.
`--beside M` forks M more for the main part. They are given what asks the database nothing, and hold no session of it.
A check of the main part that found the workers busy with others runs once more behind it, alone.

With `--beside-load L` the load runs in the middle: a byte to `--calls` asks the gate for it, and one from `--when-told`
says that it is over. Until then L processes run what disturbs no load: checks that ask the database nothing, or whose
module is marked. Those that wait come on top of the L. The others work before the load. The load counts as a check
at work: what is late beside it is asked again.
"""

import itertools
import multiprocessing
import os
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest

from drills.workbench.crowd import DRILLING, IDLE, MOST
from drills.workbench.scene import Scene
from gates.checks.recorder import ASKED_AGAIN, spec_of
from gates.evidence import Severity

SENTINELS, BEHIND, MAIN, LOADED, LAST = 1, 2, 3, 4, 5
"""Ranks: sentinels that depend on no other, those that do, `main`, its part beside the load, `last`."""
WAITS, TOGETHER, BESIDE_LOAD = "waits", "together", "beside_load"
"""Marks a check that waits for half a second or longer: `waits(seconds)`; a module whose checks share what one of them
did, so that one process runs them all; and a module whose checks may run beside the load.
"""
POLL_S, END_S = 1.0, 10.0
_FORK = multiprocessing.get_context("fork")

_PLACES = itertools.count(1)

Unit = tuple[pytest.Item, ...]


def rank(item: pytest.Item) -> int:
    """0 for other tests, then the drills by phase. Items of one rank may run in parallel, except in the last."""
    spec = spec_of(item)
    if spec is None or not spec.id.startswith("drill/"):
        return 0
    return {"first": BEHIND if spec.after else SENTINELS, "main": MAIN, "last": LAST}[spec.phase]


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The items by rank; in each, those that wait first, the longest before all."""
    return sorted(items, key=lambda item: (rank(item), -wait_s(item)))


def in_units(items: Sequence[pytest.Item]) -> list[Unit]:
    """The units of work of a process: one check, or all checks of a module that share something."""
    units: dict[object, list[pytest.Item]] = {}
    for item in items:
        shares = item.get_closest_marker(TOGETHER) is not None
        units.setdefault(item.path if shares else item, []).append(item)
    return [tuple(unit) for unit in units.values()]


def asks_database(unit: Unit) -> bool:
    """Whether running the unit opens a database session."""
    needs = {need for item in unit if (spec := spec_of(item)) for need in spec.needs}
    return bool(needs & {"database", "tenants"}) or any("sql_door" in item.fixturenames for item in unit)  # type: ignore[attr-defined]


def may_run_beside_load(unit: Unit) -> bool:
    """Whether the unit asks the database nothing, or its module is marked."""
    return not asks_database(unit) or any(item.get_closest_marker(BESIDE_LOAD) for item in unit)


def pages(item: pytest.Item) -> bool:
    """Whether a failure of the item pages. That of a test without a check does, too."""
    spec = spec_of(item)
    return spec is None or spec.severity is Severity.PAGE


def wait_s(item: pytest.Item) -> float:
    """For how many seconds the check waits, as its marker says; 0 without one."""
    marker = item.get_closest_marker(WAITS)
    return float(marker.args[0]) if marker else 0.0


class Crew:
    """Runs the checks of a session in processes of its own. size: how many at once; beside: how many more in the main
    part, for what asks the database nothing; load: how many while the load runs (0: there is none).
    """

    def __init__(self, config: pytest.Config, size: int, beside: int = 0, load: int = 0) -> None:
        self._size, self._beside, self._load = size, beside, load
        if size > 1 and not config.getoption("--companies"):
            self._listed = tempfile.TemporaryDirectory(prefix="replaygate-drills-")
            config.option.companies = str(Path(self._listed.name) / "companies")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = in_order(items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """None leaves the checks to pytest, one after the other."""
        if self._size < 2 or session.testsfailed or session.config.option.collectonly:
            return None
        children: list[_Child] = []
        for number, units in self._turns(session.items):
            size = min(self._size, len(session.items)) if number < LAST else 1
            is_main = number in {MAIN, LOADED}
            children = _resized(children, session, size, self._beside if is_main else 0)
            with _Load.asked_for(session.config, self._load) if number == LOADED else nullcontext() as load:
                seen = _run(session, units, children, load, again=is_main)
            if seen.busy:
                children = _resized(children, session, 1, 0)
                _ask_again(session, seen, children)
            if session.shouldfail:
                break
        _resized(children, session, 0, 0)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        return True

    def _turns(self, items: Sequence[pytest.Item]) -> Iterator[tuple[int, list[Unit]]]:
        """The ranks with their units, in turn."""
        for number, ranked in itertools.groupby(items, rank):
            units = in_units([*ranked])
            beside = [unit for unit in units if may_run_beside_load(unit)] if number == MAIN and self._load else []
            yield number, [unit for unit in units if unit not in beside]
            if beside:
                yield LOADED, beside


@dataclass(slots=True)
class _Load:
    """The load that runs beside checks until the gate says by `told`, a file descriptor, that it is over. most: how
    many processes may work meanwhile, without those that wait.
    """

    told: int
    most: int
    is_over: bool = False

    @classmethod
    @contextmanager
    def asked_for(cls, config: pytest.Config, most: int) -> Iterator[Self]:
        """A load that begins now; at the end of the block it is over."""
        load = cls(config.getoption("--when-told"), most)
        Scene.crowd.go_on()
        os.write(config.getoption("--calls"), b"1")
        yield load
        load.look(None)

    def look(self, wait_s: float | None = 0.0) -> bool:
        """Whether the load is over by now, or within so many seconds (None: however long it takes)."""
        if not self.is_over and wait([self.told], wait_s):
            os.read(self.told, 1)
            self.is_over = True
            Scene.crowd.note(Scene.crowd.own, IDLE)
        return self.is_over


@dataclass(slots=True)
class _Seen:
    """The results of a rank. busy: checks to run again, with their first reports; is_grave: whether a check that pages
    failed.
    """

    busy: dict[pytest.Item, pytest.TestReport] = field(default_factory=dict)
    is_grave: bool = False


@dataclass(eq=False, slots=True)
class _Child:
    """A process that runs checks, also of later ranks, so that its connections are reused. asks: it may be given units
    that ask the database; waits: it was given one that waits.
    """

    pipe: Connection
    process: BaseProcess
    asks: bool
    place: int
    waits: bool = False


def _resized(children: Sequence[_Child], session: pytest.Session, asking: int, others: int) -> list[_Child]:
    """So many children of each kind: keeps living ones, forks missing ones, ends those that are too many."""
    kept: list[_Child] = []
    for asks, number in ((True, asking), (False, others)):
        alive = [child for child in children if child.asks is asks and child.process.is_alive()]
        kept += alive[:number] + [_forked(session, asks=asks) for _ in range(number - len(alive))]
    leaving = [child for child in children if child not in kept and child.process.is_alive()]
    for child in leaving:
        child.pipe.send(())
    for child in leaving:
        child.process.join(END_S)
        session.testsfailed += child.process.exitcode != 0
    return kept


def _forked(session: pytest.Session, *, asks: bool) -> _Child:
    ours, theirs = _FORK.Pipe()
    place = next(_PLACES) % MOST
    process: BaseProcess = _FORK.Process(target=_work, args=(session, theirs, place), daemon=True)
    process.start()
    theirs.close()
    return _Child(ours, process, asks, place)


def _run(
    session: pytest.Session,
    units: Sequence[Unit],
    children: Sequence[_Child],
    load: _Load | None = None,
    *,
    again: bool = False,
) -> _Seen:
    """Run these units on these children, few of them beside a load, and pass their reports on. Those that wait come
    first, but on half of the children, so that the others work meanwhile. With `again`, checks that found the workers
    busy are returned, and not reported yet.
    """
    config, hook = session.config, session.config.hook
    places = {item: place for place, item in enumerate(session.items)}
    items = {item.nodeid: item for item in session.items}
    waits, work, others = deque[Unit](), deque[Unit](), deque[Unit]()
    for unit in units:
        (others if not asks_database(unit) else waits if wait_s(unit[0]) else work).append(unit)
    idle, at_work, seen = [*children], dict[object, _Child](), _Seen()

    def working() -> int:
        return sum(not one.waits for one in at_work.values())

    while True:
        for child in [*idle]:
            is_room = 2 * (len(at_work) - working()) < len(children)
            own = waits if waits and (is_room or not work) else work
            due = own if child.asks and own else others
            is_free = due is waits or load is None or load.look() or working() < load.most
            if due and is_free and not session.shouldfail:
                child.waits = due is waits
                Scene.crowd.note(child.place, DRILLING)
                with suppress(BrokenPipeError):  # it has died: its answer is an end, and the check unknown
                    child.pipe.send((again, [places[item] for item in due.popleft()]))
                idle.remove(child)
                at_work[child.pipe] = child
        if not at_work:
            return seen
        for ready in wait([child.pipe for child in at_work.values()], POLL_S):
            child = at_work[ready]
            try:
                data = child.pipe.recv()
            except EOFError:
                child.process.join(END_S)
                session.testsfailed += 1  # its checks have no evidence: they are unknown
                Scene.crowd.note(at_work.pop(ready).place, IDLE)
                continue
            if data is None:
                idle.append(at_work.pop(ready))
                Scene.crowd.note(child.place, IDLE)
                continue
            report = hook.pytest_report_from_serializable(config=config, data=data)
            item = items[report.nodeid]
            if getattr(report, "is_asked_again", False):
                seen.busy[item] = report
            else:
                seen.is_grave |= report.failed and pages(item)
                hook.pytest_runtest_logreport(report=report)


def _ask_again(session: pytest.Session, seen: _Seen, children: Sequence[_Child]) -> None:
    """Run the checks that found the workers busy again, alone, until a check that pages has failed; then report the
    first look of the rest.
    """
    is_grave = seen.is_grave
    for item in filter(seen.busy.__contains__, session.items):
        if is_grave:
            session.config.hook.pytest_runtest_logreport(report=seen.busy[item])
        else:
            is_grave = _run(session, [(item,)], children).is_grave


class _Messenger:
    """Sends every report of this process to its parent."""

    def __init__(self, config: pytest.Config, pipe: Connection) -> None:
        self._config, self._pipe = config, pipe

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        hook = self._config.hook
        self._pipe.send(hook.pytest_report_to_serializable(config=self._config, report=report))


class _NextItem(pytest.Item):
    """Stands for the item after a unit, so that pytest tears down all fixtures but the session's."""

    def runtest(self) -> None:
        raise NotImplementedError


def _work(session: pytest.Session, pipe: Connection, place: int) -> None:
    """The work of a child process: run the given units and report each, until it is given nothing."""
    Scene.crowd.own = place
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    config, plugins = session.config, session.config.pluginmanager
    silent = SimpleNamespace(_tw=config.get_terminal_writer())  # a failed comparison asks for it
    plugins.unregister(name="terminalreporter")
    plugins.register(silent, "terminalreporter")
    capture = plugins.getplugin("capturemanager")
    capture.stop_global_capturing()  # its files are the parent's
    capture.start_global_capturing()
    plugins.register(_Messenger(config, pipe))
    next_item = _NextItem.from_parent(session, name="next_item")
    try:
        while given := pipe.recv():
            config.stash[ASKED_AGAIN], places = given
            unit = [session.items[place] for place in places]
            for item, after in zip(unit, (*unit[1:], next_item), strict=True):
                Scene.crowd.go_on()
                config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            pipe.send(None)
    finally:
        session._setupstate.teardown_exact(None)  # noqa: SLF001  -- as pytest does at the end of a session


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
