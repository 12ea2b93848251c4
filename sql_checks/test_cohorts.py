"""The step of a rollout, judged by its own tenants: those that have the flag on against those that have it off."""

import pytest

from gates.checks.observation import Observer
from gates.evidence import CheckSpec, Severity, Where
from sql_checks.cohorts.run import METRICS, CohortLook, judge_cohorts, judge_share

SIGHT = "preflight/database-role-sees-rows"


def spec(name: str, claim: str, cost: str, severity: Severity = Severity.PAGE) -> CheckSpec:
    """The spec of one check; it reads alone."""
    return CheckSpec(f"cohort/{name}", claim, cost, severity, Where.READ_ONLY, needs=("database",), after=(SIGHT,))


CLAIMS = {
    "success": (
        "Tenants with the release lose or delay hardly more events than those without it.",
        "The release loses what customers wait for, and only theirs who have it.",
    ),
    "dead-letters": (
        "Tenants with the release get hardly more dead letters than those without it.",
        "The release cannot work off what the one before it could.",
    ),
    "duplicates": (
        "Tenants with the release get hardly more double effects than those without it.",
        "Customers who have the release are charged, mailed or shipped to twice.",
    ),
    "lag-p50": (
        "Half of the events of tenants with the release wait hardly longer than those of tenants without it.",
        "Every customer who has the release waits longer.",
    ),
    "lag-p95": (
        "The slowest events of tenants with the release wait hardly longer than those of tenants without it.",
        "Customers who have the release wait longer now and then.",
    ),
    "agent-success": (
        "The agents of tenants with the release fail hardly more often than those of tenants without it.",
        "The release breaks the work of agents, and only theirs who have it.",
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, id=name, marks=pytest.mark.check(spec(name, *said))) for name, said in CLAIMS.items()]
)
def test_no_worse_than_the_others(name: str, cohorts: CohortLook, seen: Observer) -> None:
    """Not inferior by more than the margin of the policy."""
    judge_cohorts(METRICS[name], cohorts, seen)


@pytest.mark.check(
    spec(
        "share",
        "As many tenants have the release on as the flag's percentage says.",
        "The release has other tenants than were drawn, so that comparing them proves nothing.",
        Severity.WARN,
    )
)
def test_share_as_planned(cohorts: CohortLook, seen: Observer) -> None:
    """Counted over tenants with events, by the path that their events took."""
    judge_share(cohorts, seen)
