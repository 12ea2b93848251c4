"""Distributes tests to workers: neighbours stay together; loads and the longest tests start first."""

from collections.abc import Callable
from typing import TypeVar

from xdist.scheduler import WorkStealingScheduling

LOADS = "tests/loadtests/test_"
"""How the names of loads begin; how what they measured is judged keeps no schedule."""
LONG = "tests/drills/test_other_healthy.py"
"""Waits for minutes: begun late, it is what everybody waits for."""
BESIDE_LOADS = 8
"""Workers while a load is yet to be run. With eight, every load kept its schedule on two cores."""
Test = TypeVar("Test")


def ordered(tests: list[Test], name: Callable[[Test], str]) -> list[Test]:
    """Loads come first, in one row, so that one worker runs them one after the other: they mostly wait, but two at once
    would miss their schedules. The longest tests come where the share of the second worker begins.
    """
    loads = [one for one in tests if name(one).startswith(LOADS)]
    long = [one for one in tests if name(one).startswith(LONG)]
    others = [one for one in tests if not name(one).startswith((LOADS, LONG))]
    before = max(0, len(tests) // BESIDE_LOADS - len(loads))
    return [*loads, *others[:before], *long, *others[before:]]


class LoadsBesideFew(WorkStealingScheduling):  # type: ignore[misc]  # xdist has no types
    """Work stealing; all but a few workers start when no load is left."""

    def check_schedule(self) -> None:
        """Share out what is to be run; the further workers are out of sight while loads are left."""
        given = self.node2pending
        left = (self.collection[n] for pending in (self.pending, *given.values()) for n in pending)
        further = self.nodes[BESIDE_LOADS:] if any(name.startswith(LOADS) for name in left) else []
        hidden = {node: given.pop(node) for node in further}
        try:
            super().check_schedule()
        finally:
            given |= hidden
