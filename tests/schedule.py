"""Which worker runs which tests: neighbours stay together, loads come first, beside few others, and what takes minutes
is begun at once, too.
"""

from collections.abc import Callable
from typing import TypeVar

from xdist.scheduler import WorkStealingScheduling

LOADS = "tests/loadtests/test_"
"""How the names of loads begin; how what they measured is judged keeps no schedule."""
LONG = "tests/drills/test_other_healthy.py"
"""Waits for minutes: begun late, it is what everybody waits for."""
BESIDE_LOADS = 6
"""Workers while a load is yet to be run. With six, every load kept its schedule on two cores."""
Test = TypeVar("Test")


def ordered(tests: list[Test], name: Callable[[Test], str]) -> list[Test]:
    """Loads in one row, as one worker runs them: a load keeps a schedule and mostly waits, so that the other workers
    compute; two at once would be late. What is long stands where the share of the second worker begins.
    """
    loads = [one for one in tests if name(one).startswith(LOADS)]
    long = [one for one in tests if name(one).startswith(LONG)]
    others = [one for one in tests if not name(one).startswith((LOADS, LONG))]
    before = max(0, len(tests) // BESIDE_LOADS - len(loads))
    return [*loads, *others[:before], *long, *others[before:]]


class LoadsBesideFew(WorkStealingScheduling):  # type: ignore[misc]  # xdist has no types
    """Work stealing, where further workers begin once no load is left."""

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
