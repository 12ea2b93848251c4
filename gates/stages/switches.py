"""Live switches left set by a killed drill: they are restored before anything is looked at, and the run holds."""

import psycopg

from gates.deployment.sql.failures import in_words
from gates.deployment.tenants.loans import Changed, Ending, Loan, give_back_for_the_dead
from gates.evidence import CheckSpec, Evidence, Outcome, Severity, Where
from gates.stages.context import Context

SPEC = CheckSpec(
    "preflight/switches-given-back",
    "No drill of an earlier run has left a live flag, or the pause of everybody, as it had set it.",
    "What the last hour shows was seen with the switch as a drill had set it, not as the rollout has it.",
    Severity.WARN,
    Where.READ_ONLY,
    after=("preflight/database",),
    phase="first",
)


def switches(context: Context) -> None:
    """Restore what dead runs left set, and write evidence of it."""
    if not context.has(SPEC):
        return
    if not context.target.database_url:
        blocked_by = "preflight/database"
        context.note(Evidence(SPEC.id, Outcome.UNKNOWN, f"blocked by {blocked_by}", samples=1, blocked_by=blocked_by))
        return
    try:
        message = "; ".join(sentence(*one) for one in give_back_for_the_dead(context.target.database_url))
    except (psycopg.Error, Changed) as error:
        message = f"whether an earlier run has left a switch set cannot be told: {in_words(error)}"
    context.note(Evidence(SPEC.id, Outcome.UNKNOWN if message else Outcome.PASS, message, samples=1))


def give_back_after_drills(context: Context) -> None:
    """Restore what a killed drill process left set. If the database refuses, the next run does it, and holds."""
    if not context.target.database_url:
        return
    try:
        give_back_for_the_dead(context.target.database_url)
    except (psycopg.Error, Changed):
        return


def sentence(loan: Loan, ending: Ending) -> str:
    """What became of a switch that a dead run left set."""
    was = ", ".join(f"{name} {value}" for name, value in loan.before.items())
    left = f"run {loan.run} was killed while its drill had set {loan.switch.name}"
    if ending is Ending.GIVEN_BACK:
        return f"{left}; it is back at {was}. Run again: what was seen until now was seen with it set"
    return f"{left}; somebody changed it since, and it stays as they left it (before the drill: {was}). Run again"
