"""Writes spot checks and alert rules as files that plain `psql -v ON_ERROR_STOP=1 -f` runs, and that fail on a breach.

What could not be judged fails too, unless psql is given `-v allow_unknown=1`: silence is not health.
"""

from __future__ import annotations

from collections.abc import Sequence

from gates.evidence import Severity
from sql_checks.rulefile import Rule
from sql_checks.rulejudge import FUTURE_S
from sql_checks.spotfile import SpotCheck
from sql_checks.sqlsession import SEARCH_PATH, STATEMENT_TIMEOUT_MS

FAILING = (Severity.PAGE, Severity.WARN)

HEAD = f"""\\set ON_ERROR_STOP on
\\if :{{?allow_unknown}}
\\else
\\set allow_unknown 0
\\endif
\\set QUIET on
\\pset tuples_only on
\\pset format unaligned
begin transaction isolation level repeatable read read only;
set local statement_timeout = {STATEMENT_TIMEOUT_MS};
set local search_path = {SEARCH_PATH};
set local timezone = 'UTC';
set local client_min_messages = notice;
select 'checked at ' || now() || set_config('replaygate.bad', '', true) || set_config('replaygate.unknown', '', true);
"""

FOOT = """\\o /dev/null
select set_config('replaygate.allow_unknown', :'allow_unknown', true);
\\o
do $gate$
begin
  if current_setting('replaygate.bad') <> '' then
    raise exception 'breach:%', current_setting('replaygate.bad');
  end if;
  if current_setting('replaygate.unknown') <> '' and current_setting('replaygate.allow_unknown') <> '1' then
    raise exception 'unknown:%', current_setting('replaygate.unknown')
      using hint = 'Nothing was seen that could be judged. Give psql -v allow_unknown=1 to let this pass.';
  end if;
end
$gate$;
rollback;
select 'no breach';
"""


def alerts_to_psql(rules: Sequence[Rule]) -> str:
    """All rules as one psql file."""
    return "\n".join(["-- Alert rules. Generated: do not edit.", HEAD, *map(_rule_block, rules), FOOT])


def spots_to_psql(spots: Sequence[SpotCheck]) -> str:
    """All spot checks but the deep ones as one psql file."""
    blocks = [_spot_block(s) for s in spots if not s.spec.deep]
    return "\n".join(["-- Spot checks. Generated: do not edit.", HEAD, *blocks, FOOT])


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _indented(query: str) -> str:
    return "\n".join(f"        {line}" for line in query.splitlines())


def _rule_block(rule: Rule) -> str:
    sign = ">" if rule.above else "<"
    levels = "\n".join(f"             when value {sign} {number:g} then '{level}'" for level, number in rule.limits)
    stale = "" if rule.stale_after_s is None else f" or newest < now() - interval '{rule.stale_after_s} seconds'"
    return f"""
-- {rule.name}: {rule.spec.claim}
do $gate$
#variable_conflict use_column
declare
  gate_row record;
  gate_fleets int := 0;
begin
  for gate_row in
    select j.*, case
             when samples < case subject when 'all' then {rule.min_samples} else {rule.min_samples_tenant} end then 'few'
             when value is null or value = 'NaN' or value not between {rule.low:g} and {rule.high:g}
               or newest > now() + interval '{FUTURE_S} seconds'{stale} then 'unknown'
{levels}
             else 'ok' end as state
    from (
      select q.subject, q.value::float8 as value, coalesce(q.samples, 0) as samples, q.newest, q.witness::text as witness,
             coalesce((to_jsonb(q) ->> 'draining')::boolean, false) as draining
      from (
{_indented(rule.query)}
      ) q
    ) j
  loop
    gate_fleets := gate_fleets + (gate_row.subject = 'all')::int;
    if gate_row.state = 'page' and gate_row.draining then
      gate_row.state := 'warn';
    end if;
    if gate_row.state in ('page', 'warn', 'investigate') then
      raise warning '{rule.name} of %: % {rule.unit} (%, % samples, %)', gate_row.subject, gate_row.value, gate_row.state, gate_row.samples, gate_row.witness;
    end if;
    if gate_row.state in ('page', 'warn') then
      perform set_config('replaygate.bad',
        current_setting('replaygate.bad') || format(' {rule.name}/%s (%s: %s)', gate_row.state, gate_row.subject, gate_row.value), true);
    elsif gate_row.state = 'unknown' or gate_row.state = 'few' and gate_row.subject = 'all' then
      perform set_config('replaygate.unknown', current_setting('replaygate.unknown') || ' {rule.name}', true);
    end if;
  end loop;
  if gate_fleets <> 1 then
    perform set_config('replaygate.unknown', current_setting('replaygate.unknown') || ' {rule.name}', true);
  end if;
end
$gate$;"""


def _spot_block(spot: SpotCheck) -> str:
    name = spot.spec.id
    failing = spot.spec.severity in FAILING
    record = (
        "perform set_config('replaygate.bad', current_setting('replaygate.bad')"
        f" || format(' {name} (%s: %s)', gate_row.subject, gate_row.detail), true);"
        if failing
        else "null;"
    )
    return f"""
-- {name}: {spot.spec.claim}
do $gate$
#variable_conflict use_column
declare
  gate_row record;
  gate_bad int := 0;
  gate_seen bigint;
begin
  for gate_row in
    select * from (
{_indented(spot.violations)}
    ) violations limit 20
  loop
    gate_bad := gate_bad + 1;
    raise warning '{name}: %: %', gate_row.subject, gate_row.detail;
    {record}
  end loop;
  select case when count(*) = 1 and bool_and(row_seen ? 'seen') then max((row_seen ->> 'seen')::bigint) else count(*) end
  into gate_seen
  from (
    select to_jsonb(s) as row_seen from (
{_indented(spot.seen)}
    ) s
  ) counted;
  if gate_bad = 0 and coalesce(gate_seen, 0) < {spot.minimum} then
    raise warning '{name}: % rows seen, {spot.minimum} needed', coalesce(gate_seen, 0);
    perform set_config('replaygate.unknown', current_setting('replaygate.unknown') || ' {name}', true);
  end if;
end
$gate$;"""
