"""The order of checks in one pytest run: SQL checks, sentinels, the main part, and last, one at a time, the checks that
change global state.

Without xdist the order of the items is enough. Under xdist each phase waits until all workers have ended the one
before. Other modes of distribution than xdist's default shuffle the items, and this wait would never end. Then only
the checks of the last phase still run alone.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gates.checks.recorder import spec_of

PHASES = ("first", "main", "last")
SQL, LAST = 0, len(PHASES)
WAITS = "waits"
"""Marks a check that waits for half a second or longer: `waits(seconds)`."""
LONG_CHECK_S = 2.0
APART = 20
"""How many other checks stand between two long waits. Closer together, one worker would get both."""
POLL_S = 0.01
IDLE_S = 2.0
"""Where no check has run on any worker for so long, the wait ends. Between two checks a worker pauses for less."""
LONGEST_WAIT_S = 900.0


def rank(item: pytest.Item) -> int:
    """0 for what is no drill, then the drills by phase."""
    spec = spec_of(item)
    if spec is None or not spec.id.startswith("drill/"):
        return SQL
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


def wait_s(item: pytest.Item) -> float:
    """For how many seconds the check waits, as its marker says; 0 without one."""
    marker = item.get_closest_marker(WAITS)
    return float(marker.args[0]) if marker else 0.0


@dataclass
class Turns:
    """The turns of one xdist run, kept in a folder that its workers share: `done-<rank>` grows by a byte a check."""

    folder: Path
    due: Counter[int] = field(default_factory=Counter)
    """How many checks of each rank the whole run has."""

    @contextmanager
    def turn(self, number: int) -> Iterator[None]:
        """Wait for the turn of a check of this rank and hold it."""
        self._wait(number)
        with (self.folder / "running").open("ab") as running:
            fcntl.flock(running, fcntl.LOCK_EX if self._alone(number) else fcntl.LOCK_SH)
            try:
                yield
            finally:
                with (self.folder / f"done-{number}").open("ab", buffering=0) as done:
                    done.write(b".")

    def _alone(self, number: int) -> bool:
        return number == LAST or (number == SQL and len(self.due) > 1)

    def _wait(self, number: int) -> None:
        started = seen_running = time.monotonic()
        while any(self._done(r) < count for r, count in self.due.items() if r < number):
            now = time.monotonic()
            if self._somebody_runs():
                seen_running = now
            if now - seen_running > IDLE_S or now - started > LONGEST_WAIT_S:
                return
            time.sleep(POLL_S)

    def _done(self, number: int) -> int:
        path = self.folder / f"done-{number}"
        return path.stat().st_size if path.exists() else 0

    def _somebody_runs(self) -> bool:
        with (self.folder / "running").open("ab") as running:
            try:
                fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
            return False


class Conductor:
    """The hooks: the controller makes the folder, the workers take turns."""

    def __init__(self, shared: str | None) -> None:
        self._turns = Turns(Path(shared)) if shared else None
        self._made: Path | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: object) -> None:
        """Tell each worker the folder (a hook of xdist's, in its controller)."""
        if self._made is None:
            self._made = Path(tempfile.mkdtemp(prefix="replaygate-turns-"))
        node.workerinput["turns"] = str(self._made)  # type: ignore[attr-defined]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = in_order(items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if self._turns:
            self._turns.due = Counter(map(rank, session.items))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        if self._turns is None:
            return (yield)
        with self._turns.turn(rank(item)):
            return (yield)

    def pytest_unconfigure(self) -> None:
        if self._made:
            shutil.rmtree(self._made, ignore_errors=True)
