"""Runs a rule's query in one read-only snapshot and leaves its judgement with the observer."""

import datetime as dt
from dataclasses import dataclass

import psycopg

from gates.checks.observation import Observer
from gates.deployment.sql.connection import Connection
from gates.evidence import Outcome
from gates.text.foreign import count, number, text
from sql_checks.rules.file import AlertRule, within
from sql_checks.rules.judge import RuleResult, RuleSample, judge_proved
from sql_checks.sqlsession import SqlSession

COLUMNS = ("subject", "value", "samples", "newest", "witness")
GROUPS = ("groups", "bad_groups")
CROWDED = "{} companies of the load are left out: the machine was too busy for them. Run the gate when it is idle"
MAX_ROWS = 100_000
Found = psycopg.Cursor[dict[str, object]]


class RowContractError(ValueError):
    """A rule's query gave other columns than its row contract."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a rule's query saw, and the database clock at that moment."""

    samples: tuple[RuleSample, ...]
    now: dt.datetime


def measure(rule: AlertRule, connection: Connection) -> Measurement:
    """Run the query. Raise psycopg.Error or RowContractError."""
    return measured_by(rule, *(connection.execute(statement.encode()) for statement in asked_by(rule)))


def asked_by(rule: AlertRule) -> tuple[str, str]:
    """The statements of a rule: what time it is, and its query."""
    return "select now() as now", rule.query


def measured_by(rule: AlertRule, clock: Found, cursor: Found) -> Measurement:
    """What the answers to its statements say. Raise RowContractError."""
    now = (clock.fetchone() or {}).get("now")
    columns = tuple(d.name for d in cursor.description or ())
    extra = [*["draining"] * ("draining" in columns), *["bad"] * (rule.allowed_bad is not None)]
    extra += [*GROUPS] * ("bad" in extra and "groups" in columns)
    if columns != (*COLUMNS, *extra):
        raise RowContractError(
            f"rule {rule.name} gives columns {columns}; allowed: {COLUMNS}, then draining, then bad with allowed_bad,"
            f" then {GROUPS}"
        )
    rows = cursor.fetchmany(MAX_ROWS)
    if not isinstance(now, dt.datetime):
        raise RowContractError("the database gave no time")
    return Measurement(tuple(_sample(row, now.tzinfo) for row in rows), now)


def _sample(row: dict[str, object], zone: dt.tzinfo | None) -> RuleSample:
    """One row; zone: the session's, which a time of a column without a zone is of."""
    newest = row["newest"]
    is_read = newest is None or isinstance(newest, dt.datetime)  # a value that is not a time must not look fresh
    return RuleSample(
        subject=text(row["subject"]),
        value=number(row["value"]) if is_read else None,
        samples=count(row["samples"]),
        newest=newest.replace(tzinfo=newest.tzinfo or zone) if isinstance(newest, dt.datetime) else None,
        witness=text(row["witness"] or ""),
        draining=bool(row.get("draining")),
        bad=None if row.get("bad") is None else int(str(row["bad"])),
        groups=count(row.get("groups", 0)),
        bad_groups=count(row.get("bad_groups", 0)),
    )


def judge_rule(rule: AlertRule, session: SqlSession, observer: Observer) -> None:
    """Raise AssertionError where a limit is broken; end as unknown where the rule saw too little."""
    if session.blindness:
        observer.unmet(session.blindness)
    left_out = CROWDED.format(len(session.crowded)) if session.crowded and "replaygate.crowded" in rule.query else ""
    conclude(rule, measured_by(rule, *session.ask(*asked_by(rule))), observer, left_out)


def conclude(rule: AlertRule, measured: Measurement, observer: Observer, left_out: str = "") -> None:
    """Record what the samples prove. Raise AssertionError where a limit is broken; end as unknown where there are too
    few. left_out: why some are missing; then those that are there prove no pass.
    """
    judgement = judge_proved(rule, measured.samples, measured.now)
    _record(rule, judgement, observer)
    if judgement.outcome is Outcome.UNKNOWN or (left_out and judgement.outcome is Outcome.PASS):
        observer.unmet("; ".join(filter(None, (judgement.message, left_out))))
    if judgement.outcome is Outcome.FAIL:
        observer.severity = judgement.severity
        raise AssertionError(judgement.message)
    seen = f"{observer.samples} samples {within('within', rule.window)}"
    observer.control("; ".join(filter(None, (seen, judgement.message))))


def _record(rule: AlertRule, judgement: RuleResult, observer: Observer) -> None:
    """Record the rule's result with the observer."""
    sample = judgement.sample
    limit = rule.limits[0][1] if judgement.limit is None else judgement.limit
    observer.value(None if sample is None else sample.value, limit, rule.unit)
    if sample is not None:
        observer.count(sample.samples)
        observer.witness = {"subject": sample.subject, "seen": sample.witness, "over_limit": judgement.broken}
        observer.details["draining"] = sample.draining
    observer.details["limits"] = {severity.value: number for severity, number in rule.limits}
    observer.details["runbook"] = rule.runbook
    observer.details["for_s"] = rule.for_s
    if judgement.samples_needed is not None:
        observer.details["samples_needed"] = judgement.samples_needed
    if judgement.outcome is Outcome.UNKNOWN and sample is not None and sample.samples < rule.min_samples:
        observer.details["samples_needed"] = rule.min_samples - sample.samples
