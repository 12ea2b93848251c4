"""The floor: what no setting of a policy removes. Pure; a table and two questions about the id of a check.

Without these checks nothing else means anything: nobody knows whether the right target was looked at, whether the gate
can tell red from green, whether a replay does what the contract says, or whether tenants are kept apart. None of them
may be spared, noted, made milder or waived, in gate.yaml (refused where it stands) or in a policy made otherwise.
"""

from __future__ import annotations

import functools
from fnmatch import fnmatchcase

FLOOR: dict[str, str] = {
    "preflight/target-reachable": "the target was reached",
    "preflight/release": "it runs the release that is judged",
    "preflight/database": "its database was reached",
    "preflight/database-role-sees-rows": "the login sees the rows that SQL checks judge",
    "preflight/pipeline": "the gate tells red from green",
    "preflight/alone": "no other run disturbed this one",
    "load/run-valid": "the load was a measurement",
    "drill/proof/*": "the proof drill",
    "sql/rls/*": "tenancy, in the database",
    "drill/authentication/swapped-company": "tenancy: a signature is good for its tenant alone",
    "drill/tokens/foreign-company": "tenancy: a token is good for its tenant alone",
    "drill/safety-rails/other-tenants-untouched": "tenancy: a replay touches its tenant alone",
    "drill/audit/tenant-reads-only-its-own": "tenancy of the audit trail",
}
"""Pattern of check ids -> what it stands for. Each must match a check that applies, and every one of them must pass."""


@functools.lru_cache(maxsize=4096)  # asked of every check, several times a decision
def on_floor(check: str) -> bool:
    """Whether no setting may make the check count for less."""
    return any(fnmatchcase(check, pattern) for pattern in FLOOR)


def area_of(check: str) -> str:
    """The area of a check: a group of drills, else its stage. A pass is due in every area that applies."""
    stage, *rest = check.split("/")
    return f"{stage}/{rest[0]}" if stage == "drill" and rest else stage
