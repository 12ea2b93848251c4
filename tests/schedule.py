"""Which worker runs which tests: neighbours stay together, and loads come first, beside few others."""

from xdist.scheduler import WorkStealingScheduling

LOADS = "tests/loadtests/test_"
"""How the names of loads begin; how what they measured is judged keeps no schedule."""
BESIDE_LOADS = 3
"""Workers while a load is yet to be run: with more, loads are late on two cores."""


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
