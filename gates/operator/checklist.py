"""The production-ready checklist: each box ticked by evidence, by a dated attestation, or not ticked. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from gates.decision.policy_file import Attestation
from gates.evidence import UNREADABLE
from gates.reports.formats.rows import Row
from gates.text.patterns import matches
from gates.text.quantity import with_unit


@dataclass(frozen=True, slots=True)
class Box:
    """One line of the checklist. `patterns`: the checks that must pass to tick it; without any, people tick it."""

    group: str
    name: str
    patterns: tuple[str, ...] = ()


INFRASTRUCTURE, SECURITY, MONITORING = "Infrastructure setup", "Security hardening", "Monitoring setup"
RELIABLE, OPERATED, COMPLIANT = "Reliability improvements", "Operational excellence", "Security & compliance"
READY = "Production ready"
LOSSES = ("load/outbox_drained/*", "load/events_lost/*", "load/runs_lost/*")

BOXES = (
    Box(INFRASTRUCTURE, "Feature flags system deployed", ("drill/flags/*", "sql/spot/feature-flags-status")),
    Box(INFRASTRUCTURE, "Replay budget controls enabled per tenant", ("drill/budgets/*", "sql/spot/replay-budgets-*")),
    Box(INFRASTRUCTURE, "Rate limiting tables created", ("sql/spot/rate-limit-*", "drill/rate-limit/*")),
    Box(INFRASTRUCTURE, "Audit logging configured", ("sql/spot/audit-*", "drill/audit/*")),
    Box(INFRASTRUCTURE, "Idempotency tables ready", ("sql/spot/replay-runs-unique", "sql/spot/idempotency-*")),
    Box(SECURITY, "HMAC secret configured", ("preflight/credentials/signing-secret", "drill/authentication/*")),
    Box(SECURITY, "JWT authentication working for admin operations", ("drill/tokens/*", "drill/proof/admin-*")),
    Box(SECURITY, "Rate limiting enforced (3/5m/tenant+IP)", ("drill/rate-limit/*", "drill/proof/fourth-*")),
    Box(SECURITY, "RLS policies applied to all tables", ("sql/rls/*", "sql/spot/rls-*", "sql/spot/policies-*")),
    Box(SECURITY, "Input validation implemented", ("drill/safety-rails/*", "drill/http-surface/*")),
    Box(MONITORING, "Alerting thresholds configured (SQL queries ready)", ("alert/*",)),
    Box(MONITORING, "k6 smoke tests with crisp thresholds", ("load/*",)),
    Box(MONITORING, "Observability queries deployed", ("sql/spot/*", "drill/observability/*")),
    Box(MONITORING, "Slack webhooks configured for notifications"),
    Box(RELIABLE, "Zero data loss", ("drill/outbox/*", "drill/dlq/*", "sql/spot/outbox-*", *LOSSES)),
    Box(RELIABLE, "Idempotency: no duplicate processing", ("drill/idempotency/*", "sql/spot/one-effect-per-event")),
    Box(RELIABLE, "Rate limiting: no abuse or overload", ("drill/rate-limit/*", "alert/rate-limit-violations")),
    Box(RELIABLE, "Budget controls: no runaway costs", ("drill/budgets/*", "sql/spot/budget-*")),
    Box(OPERATED, "Real-time monitoring: <2s outbox lag, <10 DLQ items", ("load/outbox_lag_ms/*", "alert/dlq-size")),
    Box(OPERATED, "Automated recovery", ("drill/recovery/*",)),
    Box(OPERATED, "Audit trails: complete operation history", ("sql/spot/audit-*", "sql/spot/*-audited")),
    Box(OPERATED, "Gradual rollout: safe feature enablement", ("drill/flags/*", "sql/spot/flags-*")),
    Box(COMPLIANT, "Authentication: HMAC + JWT validation", ("drill/authentication/*", "drill/tokens/*")),
    Box(COMPLIANT, "Authorization: role-based access control", ("drill/tokens/*", "sql/rls/*")),
    Box(COMPLIANT, "Rate limiting: abuse prevention", ("drill/rate-limit/*",)),
    Box(COMPLIANT, "Audit logging: complete audit trails", ("drill/audit/*", "sql/spot/audit-*")),
    Box(READY, "Proof drill passed", ("drill/*",)),
    Box(READY, "SQL spot checks verified", ("sql/*",)),
    Box(READY, "Alerting thresholds configured", ("alert/*",)),
    Box(READY, "k6 thresholds set and tested", ("load/*",)),
    Box(READY, "Feature flags deployed", ("drill/flags/*",)),
    Box(READY, "Replay budgets configured", ("drill/budgets/*",)),
    Box(READY, "Operational tools ready", ("drill/proof/*",)),
    Box(READY, "Emergency procedures documented"),
    Box(READY, "Success metrics defined"),
    Box(READY, "Team trained on new procedures"),
)
"""All boxes and lines of the checklist, grouped and in its order."""


@dataclass(frozen=True, slots=True)
class Ticked:
    """A box, whether it is ticked, and by what or why not."""

    group: str
    name: str
    ticked: bool
    why: str


def tick(rows: Sequence[Row], attestations: Sequence[Attestation]) -> list[Ticked]:
    """Every box. Evidence ticks a box if at least one of its checks passed, no required one did not, and none of its
    lines was changed or lost.
    """
    broken = [row for row in rows if row.check.startswith(UNREADABLE)]
    return [_by_evidence(box, rows, broken) if box.patterns else _by_people(box, attestations) for box in BOXES]


def _by_evidence(box: Box, rows: Sequence[Row], broken: Sequence[Row]) -> Ticked:
    own = [r for r in rows if matches(r.check, box.patterns) and r.outcome != "not applicable"]
    missing = [r for r in own if r.outcome != "pass"]
    why = f"{with_unit(len(own), 'checks')} passed"
    if broken:
        why = broken[0].message
    elif not own:
        why = "no check of it has been run here; some run with --deep alone, some not in production"
    elif missing:
        first = missing[0]
        why = f"{len(missing)} of {len(own)} did not pass; the first: {first.check} ({first.outcome})"
    return Ticked(box.group, box.name, bool(own) and not missing and not broken, why)


def _by_people(box: Box, attestations: Sequence[Attestation]) -> Ticked:
    said = [a for a in attestations if a.box.strip().lower() == box.name.lower()]
    if not said:
        return Ticked(box.group, box.name, False, "nobody says so: add an attestation (box, by, date) to gate.yaml")
    latest = max(said, key=lambda a: a.date)
    return Ticked(box.group, box.name, True, f"{latest.by}, {latest.date}")
