"""How the samples of a threshold were looked at, and what that allows to conclude. Pure."""

from dataclasses import dataclass, field

from gates.decision.dependence import Counts, Dependence


@dataclass(frozen=True, slots=True)
class Looks:
    """The default: independent samples, looked at once.

    dependence: how many independent samples they are worth.
    reached: whether the planned time is over, so that the test for one look may be used.
    first: bad samples (or the sum of values) and all samples of the planned time, where the run went on after it; the
        test for one look is about these alone.
    seconds: how long samples were taken, for the stalls that a pass excludes.
    blocks, most: means of blocks of time for the bets on a mean, and the value that none can exceed.
    """

    dependence: Dependence = field(default_factory=Dependence)
    reached: bool = True
    first: Counts | None = None
    seconds: float = 0.0
    blocks: tuple[float, ...] = ()
    most: float = 0.0

    @property
    def is_one(self) -> bool:
        """Whether the samples are those of the one look that was planned."""
        return self.reached and self.first is None
