"""What never passed on a deployment may be how it differs from the contract, and no harm of a release. Pure."""

from collections.abc import Sequence

from gates.decision.rules import Policy
from gates.evidence import CheckSpec, Evidence
from gates.verdict import Effect

PASSED_HERE = "watch/passed-here"
"""Evidence that is no check: its details name the checks that passed on this deployment before."""

OF_ITS_OWN_ROWS = ("queue/", "cohort/")
"""Their failures come from the deployment's own rows: no difference looks like one."""

NEVER_PASSED = "it is not known to have passed on this deployment, so it holds (docs/decision.md)"


def may_be_a_difference(spec: CheckSpec, policy: Policy, told: Sequence[Evidence]) -> bool:
    """Whether a failure may say how this deployment differs from the contract, and nothing of the release.

    So it is, where a deployment was not built from the contract, until the check has passed here once, under the same
    names and claims. A check of the user's own, and one that the policy lets roll back by name or pattern, is about
    this deployment from the first run on. told: evidence of PASSED_HERE.
    """
    if not policy.is_of_another_dialect or not spec.area or spec.id.startswith(OF_ITS_OWN_ROWS):
        return False
    if any(rule.decides is Effect.ROLLBACK and rule.matches(spec.id) for rule in policy.rules):
        return False
    known = (e.details.get("checks") for e in told)
    return not any(isinstance(checks, list) and spec.id in checks for checks in known)
