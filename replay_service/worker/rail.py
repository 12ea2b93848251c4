"""The safety rail of a run: how many items are in flight at once, and when the run stops. Pure."""

from dataclasses import dataclass

PLACES = 10  # items of a run in flight at most (contract, section 2)
MIN_SETTLED = 5


@dataclass(frozen=True, slots=True)
class Counts:
    """A run's settled items."""

    success: int
    failure: int


def must_stop(counts: Counts) -> bool:
    """The safety rail: more than 20 % of at least 5 settled items have failed."""
    settled = counts.success + counts.failure
    return settled >= MIN_SETTLED and counts.failure * 5 > settled
