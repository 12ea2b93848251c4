"""Live switches that a killed drill left set: they are given back before anything is looked at, and that run holds."""

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
    """Give back what dead runs left set, and write down whether there was anything."""
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
    """What a drill process that was ended left set. Where the database refuses, the next run does it, and holds."""
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
