"""The order of checks in one pytest run, and how many run at once: sentinels, the main part side by side, and last,
one at a time, the checks that change global state.

`--at-once N` forks N processes for a phase once everything is imported and collected, so that one more costs next to
nothing: most of a drill is waiting. They take the checks in their order, and hand the reports to the process that
collected.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import pytest

from gates.checks.recorder import spec_of

PHASES = ("first", "main", "last")
MAIN = 1 + PHASES.index("main")
WAITS, TOGETHER = "waits", "together"
"""Marks a check that waits for half a second or longer: `waits(seconds)`; and a module whose checks share what one of
them did, so that one process runs them all.
"""
LONG_CHECK_S = 2.0
APART = 20
"""How many other checks stand between two long waits. Closer together, one process would get both."""
POLL_S, END_S = 1.0, 10.0
_FORK = multiprocessing.get_context("fork")

Unit = tuple[pytest.Item, ...]


def rank(item: pytest.Item) -> int:
    """0 for what is no drill, then the drills by phase."""
    spec = spec_of(item)
    if spec is None or not spec.id.startswith("drill/"):
        return 0
    return 1 + PHASES.index(spec.phase)


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The items by phase. In each phase, checks that wait come first, so that other checks run beside them."""
    phases: dict[int, list[pytest.Item]] = {}
    for item in items:
        phases.setdefault(rank(item), []).append(item)
    return [item for number in sorted(phases) for item in _spread(phases[number])]


def _spread(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Checks with short waits, then each one with a long wait and other checks after it, then the rest."""
    working = [item for item in items if not wait_s(item)]
    spread = [item for item in items if 0 < wait_s(item) < LONG_CHECK_S]
    for item in items:
        if wait_s(item) >= LONG_CHECK_S:
            spread += [item, *working[:APART]]
            del working[:APART]
    return spread + working


def in_units(items: Sequence[pytest.Item]) -> list[Unit]:
    """What one process takes at a time: a check, or all that share something."""
    units: dict[object, list[pytest.Item]] = {}
    for item in items:
        shares = item.get_closest_marker(TOGETHER) is not None
        units.setdefault(item.path if shares else item, []).append(item)
    return [tuple(unit) for unit in units.values()]


def wait_s(item: pytest.Item) -> float:
    """For how many seconds the check waits, as its marker says; 0 without one."""
    marker = item.get_closest_marker(WAITS)
    return float(marker.args[0]) if marker else 0.0


class Crew:
    """Runs the checks of a session in processes of its own; `size`: how many at once in the main part."""

    def __init__(self, config: pytest.Config, size: int) -> None:
        self._size = size
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
        for number, items in itertools.groupby(session.items, rank):
            units = in_units(list(items))
            _run(session, units, min(self._size if number == MAIN else 1, len(units)))
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
        return True


def _run(session: pytest.Session, units: Sequence[Unit], size: int) -> None:
    """Run these checks in so many processes, and report what they report."""
    config, hook = session.config, session.config.hook
    queue, end = os.pipe()  # of numbers of four bytes each, which the kernel hands out whole
    os.write(end, b"".join(number.to_bytes(4) for number in range(len(units))))
    os.close(end)
    crew: dict[object, tuple[Connection, BaseProcess]] = {}
    for _ in range(size):
        ours, theirs = _FORK.Pipe(duplex=False)
        process: BaseProcess = _FORK.Process(target=_work, args=(session, units, queue, theirs), daemon=True)
        process.start()
        theirs.close()
        crew[ours] = ours, process
    while crew:
        for ready in wait([ours for ours, _ in crew.values()], POLL_S):
            ours, process = crew[ready]
            try:
                data = ours.recv()
            except EOFError:
                process.join(END_S)
                session.testsfailed += process.exitcode != 0  # what it held has no evidence: it is unknown
                del crew[ready]
                continue
            hook.pytest_runtest_logreport(report=hook.pytest_report_from_serializable(config=config, data=data))
            if session.shouldfail:
                os.read(queue, 4 * len(units))  # nobody takes another one
    os.close(queue)


class _Messenger:
    """Hands every report of this process to the one that forked it."""

    def __init__(self, config: pytest.Config, there: Connection) -> None:
        self._config, self._there = config, there

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        hook = self._config.hook
        self._there.send(hook.pytest_report_to_serializable(config=self._config, report=report))


def _work(session: pytest.Session, units: Sequence[Unit], queue: int, there: Connection) -> None:
    """What one process does: take checks until there are none, and report each."""
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    config, plugins = session.config, session.config.pluginmanager
    silent = SimpleNamespace(_tw=config.get_terminal_writer())  # a failed comparison asks for it
    plugins.unregister(name="terminalreporter")
    plugins.register(silent, "terminalreporter")
    capture = plugins.getplugin("capturemanager")
    capture.stop_global_capturing()  # its files are those of the process that forked us
    capture.start_global_capturing()
    plugins.register(_Messenger(config, there))

    def take() -> Unit:
        number = os.read(queue, 4)
        return units[int.from_bytes(number)] if number else ()

    try:
        unit = take()
        while unit:
            following = take()  # what a module shares is torn down when its last check is known to be that
            ends = (*unit[1:], following[0] if following else None)
            for item, after in zip(unit, ends, strict=True):
                config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            unit = following
    finally:
        session._setupstate.teardown_exact(None)  # noqa: SLF001  -- as pytest does at the end of a session


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
