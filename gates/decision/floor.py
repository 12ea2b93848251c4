"""The floor: what no setting of a policy removes. Pure.

Without these checks nothing else means anything: nobody knows whether the right target was looked at, whether the gate
tells red from green, whether a replay does what the contract says, or whether tenants are kept apart. None may be made
optional, milder, noted or waived; gate.yaml that tries is refused, and a policy made otherwise has no effect.
"""

from collections.abc import Mapping

from gates.contract.scope import QUEUE, SERVICE, Scope
from gates.evidence import CheckSpec
from gates.text.patterns import matches

FLOOR: dict[str, str] = {
    "preflight/target-reachable": "the target was reached",
    "preflight/release": "it runs the release that is judged",
    "preflight/database": "its database was reached",
    "preflight/database-role-sees-rows": "the login sees the rows that SQL checks judge",
    "preflight/pipeline": "the gate tells red from green",
    "preflight/alone": "no other run disturbed this one",
    "preflight/claims": "what was seen to be kept is claimed still",
    "load/run-valid": "the load was a measurement",
    "drill/proof/*": "the proof drill",
    "sql/rls/*": "tenancy, in the database",
    "drill/authentication/swapped-company": "tenancy: a signature is good for its tenant alone",
    "drill/tokens/foreign-company": "tenancy: a token is good for its tenant alone",
    "drill/safety-rails/other-tenants-untouched": "tenancy: a replay touches its tenant alone",
    "drill/audit/tenant-reads-only-its-own": "tenancy of the audit trail",
}
"""Pattern of check ids -> what it stands for. Each must match an applicable check, and all of them must pass."""

WITHIN = {"drill/audit/tenant-reads-only-its-own": "audit"}
"""Pattern of the floor -> the area that it needs: without an audit trail there is nothing to see."""

OPTIONAL = ("cohort/*",)
"""Checks that may be unknown unless the policy requires them: right after a step nobody knows its effect."""

QUEUE_FLOOR: dict[str, str] = {
    **{p: FLOOR[p] for p in ("preflight/database", "preflight/database-role-sees-rows")},
    **{p: FLOOR[p] for p in ("preflight/pipeline", "preflight/alone", "preflight/claims")},
    "queue/proof/*": "the proof of a queue",
}
"""The floor of a deployment that claims a queue and no replay service."""

EVERY_FLOOR = tuple(FLOOR | QUEUE_FLOOR)


def floor_of(scope: Scope) -> Mapping[str, str]:
    """The floor under these claims. Without a service or a queue among them, it is that of a service."""
    if scope.claims and not set(scope.claims) & set(SERVICE) and QUEUE in scope.claims:
        return QUEUE_FLOOR
    service = {p: said for p, said in FLOOR.items() if not scope.claims or WITHIN.get(p, "") in {"", *scope.claims}}
    return service | QUEUE_FLOOR if QUEUE in scope.claims else service


def not_claimed(spec: CheckSpec, scope: Scope) -> str:
    """Why the claims leave the check out; empty if it applies. The floor is never left out."""
    return "" if matches(spec.id, floor_of(scope)) else scope.leaves_out(spec)


def on_floor(check: str) -> bool:
    """Whether no setting may make the check count for less."""
    return matches(check, EVERY_FLOOR)


def is_optional(check: str) -> bool:
    """Whether an unknown result only counts if the policy says so."""
    return matches(check, OPTIONAL)


def parts_of(spec: CheckSpec) -> tuple[str, ...]:
    """The parts of which each needs a pass if any of its checks applies: area, with the group of drills or the stage. A
    whole area could pass by its SQL checks while none of its drills ran.
    """
    if is_optional(spec.id):
        return ()
    stage, *rest = spec.id.split("/")
    seen_by = f"{stage}/{rest[0]}" if stage == "drill" and rest else stage
    return tuple(filter(None, (spec.area, seen_by)))
