"""The results of the mutants, in numbers. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from gates.proof.mutants.campaign import DEAD, EQUIVALENT, MANIFEST
from gates.proof.trial import Trial
from gates.verdict import Decision


@dataclass(frozen=True, slots=True)
class MutantTally:
    """Mutants by result; the last three are among the killed."""

    shown: int
    killed: int
    equivalent: int
    holes: tuple[str, ...]
    undecided: int
    by_the_manifest_alone: int
    held: int
    dead: int

    @property
    def sentence(self) -> str:
        """All of it, for people."""
        due = self.shown - self.equivalent - self.undecided
        said = (
            f"mutants: {self.killed} of {due} killed ({self.killed / due:.1%})" if due else "mutants: none was judged"
        )
        parts = {
            "by the schema's manifest alone": self.by_the_manifest_alone,
            "held without a failed check": self.held,
            "did not start": self.dead,
        }
        among = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
        more = f"; {self.equivalent} more are equivalent; {len(self.holes)} are holes"
        lost = f"; {self.undecided} could not be judged" if self.undecided else ""
        return said + (f", of them {among}" if among else "") + more + lost


def tally(trials: Sequence[Trial]) -> MutantTally:
    killed = [t for t in trials if t.decision and t.decision != Decision.PROMOTE.value]
    promoted = [t for t in trials if t.decision == Decision.PROMOTE.value]
    holes = tuple(t.name for t in promoted if not t.reason.startswith(EQUIVALENT))
    return MutantTally(
        shown=len(trials),
        killed=len(killed),
        equivalent=len(promoted) - len(holes),
        holes=holes,
        undecided=sum(not t.decision for t in trials),
        by_the_manifest_alone=sum(bool(t.unpassed) and all(c.startswith(MANIFEST) for c in t.unpassed) for t in killed),
        held=sum(not t.unpassed for t in killed),
        dead=sum(t.reason.startswith(DEAD) for t in killed),
    )
