"""A trial: one run of the gate on a deployment that is not a fault, and the decisions that are right there."""

import enum
from dataclasses import dataclass

from gates.proof.judgement import GateRun
from gates.verdict import Decision

NOT_PROMOTED = (Decision.HOLD, Decision.ROLLBACK)


class ProofPart(enum.StrEnum):
    FAULTS = "faults"
    PAIRS = "pairs"
    HEALTHY = "healthy"
    DEGENERATE = "degenerate"
    SELF = "self"
    HOSTILE = "hostile"
    MUTANTS = "mutants"


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of a trial. allowed: the decisions that are right; unpassed: checks that did not pass."""

    suite: ProofPart
    name: str
    said: str
    allowed: tuple[str, ...]
    decision: str
    ok: bool
    reason: str
    seconds: float = 0.0
    unpassed: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.suite}/{self.name}"

    @property
    def harmful(self) -> bool:
        """A healthy deployment was rolled back, or a degenerate one promoted. A mutant cannot be harmful."""
        if self.suite is ProofPart.MUTANTS:
            return False
        wrong = {ProofPart.HEALTHY: Decision.ROLLBACK}.get(self.suite, Decision.PROMOTE)
        return not self.ok and self.decision == wrong.value


def trial(suite: ProofPart, name: str, said: str, allowed: tuple[Decision, ...], run: GateRun) -> Trial:
    """The trial of one run of the gate. A missing verdict is never right."""
    verdict = run.verdict
    found = [f.check for f in verdict.findings] + [n.check for n in verdict.not_applicable] if verdict else []
    return Trial(
        suite,
        name,
        said,
        tuple(d.value for d in allowed),
        verdict.decision.value if verdict else "",
        verdict is not None and verdict.decision in allowed,
        verdict.reason if verdict else run.error,
        round(run.seconds, 1),
        tuple(found),
    )


def broken(suite: ProofPart, name: str, said: str, allowed: tuple[Decision, ...], error: Exception | str) -> Trial:
    """A trial that the harness could not carry out: it counts as wrong."""
    reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return Trial(suite, name, said, tuple(d.value for d in allowed), "", ok=False, reason=reason)
