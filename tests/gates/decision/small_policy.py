"""Short builders of checks, evidence and policies."""

import datetime as dt

from gates.decision.rules import Policy
from gates.evidence import CheckSpec, Evidence, Outcome, Severity, Where
from gates.verdict import Decision

NOW = dt.datetime(2026, 1, 2, 12, 0, tzinfo=dt.UTC)

AT = (NOW - dt.timedelta(minutes=1)).isoformat()

RANK = {Decision.PROMOTE: 0, Decision.HOLD: 1, Decision.ROLLBACK: 2}


def spec(check: str, severity: Severity = Severity.PAGE, where: Where = Where.READ_ONLY, **more: object) -> CheckSpec:
    return CheckSpec(check, "claim", "cost", severity, where, **more)  # type: ignore[arg-type]


def saw(check: str, outcome: Outcome = Outcome.PASS, **more: object) -> Evidence:
    return Evidence(check, outcome, **{"samples": 1, "started_at": AT, **more})  # type: ignore[arg-type]


def policy(*specs: CheckSpec, **more: object) -> Policy:
    return Policy(catalogue=specs, **more)  # type: ignore[arg-type]


A, B, C = spec("a"), spec("b", Severity.WARN), spec("c", Severity.INVESTIGATE)

LAG = spec("load/outbox_lag_ms/avg")
