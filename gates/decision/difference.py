"""A check that never passed on a deployment may show how it differs from the contract, not harm of a release. Pure."""

from collections.abc import Sequence

from gates.decision.rules import Policy
from gates.evidence import CheckSpec, Evidence
from gates.verdict import Effect

PASSED_HERE = "watch/passed-here"
"""Evidence that is no check: its details list the checks that passed on this deployment before."""

OF_ITS_OWN_ROWS = ("queue/", "cohort/")
"""Their failures come from the deployment's own rows, so they never show a mere difference."""

NEVER_PASSED = "it is not known to have passed on this deployment, so it holds (docs/decision.md)"


def may_be_a_difference(spec: CheckSpec, policy: Policy, told: Sequence[Evidence]) -> bool:
    """Whether a failure may show how this deployment differs from the contract, and nothing about the release.

    That is so if the deployment was not built from the contract and the check has not yet passed here under the same
    names and claims. Never so for a user's own check, or one that the policy lets roll back by name or pattern. told:
    evidence of PASSED_HERE.
    """
    if not policy.is_of_another_dialect or not spec.area or spec.id.startswith(OF_ITS_OWN_ROWS):
        return False
    if any(rule.decides is Effect.ROLLBACK and rule.matches(spec.id) for rule in policy.rules):
        return False
    known = (e.details.get("checks") for e in told)
    return not any(isinstance(checks, list) and spec.id in checks for checks in known)
