"""Writes spot checks and alert rules as files that plain `psql -v ON_ERROR_STOP=1 -f` runs, and that fail on a breach.

What could not be judged fails too, unless psql is given `-v allow_unknown=1`. The frame of such
a file is in `psql/`, with `{{name}}` where something is put in.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import psycopg

from gates.deployment.dialect.current import named
from gates.deployment.sql.database import sql
from gates.errors import first_line
from gates.evidence import Severity
from sql_checks.rules.file import AlertRule
from sql_checks.rules.judge import FUTURE_S
from sql_checks.spotfile import SpotCheck
from sql_checks.sqlsession import STATEMENT_TIMEOUT_MS

FRAME = Path(__file__).with_name("frame")
FAILING = (Severity.PAGE, Severity.WARN)
RECORD = (
    "perform set_config('replaygate.bad', current_setting('replaygate.bad')"
    " || format(' {{name}} (%s: %s)', gate_row.subject, gate_row.detail), true);"
)


def alerts_to_psql(rules: Sequence[AlertRule]) -> str:
    return _file("Alert rules", [_or_left_out(rule.name, partial(_rule_block, rule)) for rule in rules])


def spots_to_psql(spots: Sequence[SpotCheck]) -> str:
    """All spot checks but the deep ones as one psql file."""
    return _file("Spot checks", [_or_left_out(s.spec.id, partial(_spot_block, s)) for s in spots if not s.spec.deep])


def _or_left_out(name: str, block: Callable[[], str]) -> str:
    """The block of a check; a line that says why there is none, where the deployment lacks what it needs."""
    try:
        return block()
    except psycopg.Error as error:
        return f"-- {name}: left out: {first_line(error)}"


def _file(title: str, blocks: Sequence[str]) -> str:
    head = _framed("head", timeout_ms=str(STATEMENT_TIMEOUT_MS))
    return "\n".join([f"-- {title}. Generated: do not edit.", head, *blocks, _framed("foot")])


def _framed(frame: str, /, **values: str) -> str:
    text = sql(FRAME / f"{frame}.sql")
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", value)
    return text


def _indented(query: str) -> str:
    return "\n".join(f"        {line}" for line in query.splitlines())


def _rule_block(rule: AlertRule) -> str:
    sign = ">" if rule.above else "<"
    stale = "" if rule.stale_after_s is None else f" or newest < now() - interval '{rule.stale_after_s} seconds'"
    return _framed(
        "rule",
        query=_indented(named(rule.query)),
        name=rule.name,
        claim=rule.spec.claim,
        unit=rule.unit.replace("%", "%%"),
        min_samples=str(rule.min_samples),
        min_samples_tenant=str(rule.min_samples_tenant),
        low=f"{rule.low:.15g}",
        high=f"{rule.high:.15g}",
        future_s=str(FUTURE_S),
        stale=stale,
        levels="\n".join(f"             when value {sign} {limit:.15g} then '{level}'" for level, limit in rule.limits),
    )


def _spot_block(spot: SpotCheck) -> str:
    return _framed(
        "spot",
        violations=_indented(named(spot.violations)),
        seen=_indented(named(spot.seen)),
        record=RECORD if spot.spec.severity in FAILING else "null;",
        name=spot.spec.id,
        claim=spot.spec.claim,
        minimum=str(spot.minimum),
    )
