"""Writes rows with only the contract's columns, reads them back, and rolls everything back.

Deferred constraints are checked at once, so that what a COMMIT would refuse is refused here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from gates.contract.contract import contract
from gates.deployment.dialect.current import current
from gates.deployment.ids import new_id
from gates.deployment.sql.database import connect
from sql_checks.attempts.flag_answers import DECIDED, STATUS, VERSION, steps
from sql_checks.attempts.lives import BESIDE, LIVES, OLD, OLD_ROW, UNTOUCHED
from sql_checks.attempts.odd_rows import AS_THEY_ARE, GONE, LARGE, LONG, ODD, OF_AN_EVENT, RUN_COLUMNS, SIZES, SPELT
from sql_checks.attempts.row_level_security import SEEDS
from sql_checks.attempts.statements import Attempt, TenantStatement, attempt
from sql_checks.attempts.trail_changes import (
    AGES,
    AUDITED,
    CHAINED,
    EVERYBODYS_ROW,
    OF_EVERYBODY,
    OLD_TRAIL,
    WORDS,
    tampering,
)

STATES = {
    "dead_letter_queue": (
        "status",
        "(company_id, event_type, payload, error_type, status) values (%(id)s, 'drill.rls', '{}', 'drill', %(value)s)",
    ),
    "replay_runs": (
        "status",
        f"{RUN_COLUMNS} values (%(value)s, %(id)s, '', '', %(value)s, case when %(value)s <> 'started' then now() end)",
    ),
    "agent_tasks": ("status", "(company_id, agent_name, status) values (%(id)s, 'drill', %(value)s)"),
    "audit_logs": ("action", "(action, actor, scope) values (%(value)s, 'drill', %(id)s)"),
    "events": ("path", "(company_id, event_type, payload, path) values (%(id)s, 'drill.rls', '{}', %(value)s)"),
}
"""Table -> a column, and a row for each value that it may have by the contract."""
AS_GIVEN = "with kept as ({0} returning {1}) select from kept where {1}::text is distinct from %(value)s"
"""A row, and whether a trigger made another one of it."""
TIMES = {"claimed_until": "now() + interval '1 minute'", "processed_at": "now()", "dead_at": "now()"}
"""Columns of the outbox, by which a row is in flight, processed or dead."""
GIVEN = ("replay_budgets", "agent_controls")
"""Tables of one row a company, in which a deployment may already have the row of a new one."""
NOW = "{0} between now() - interval '1 minute' and now() + interval '1 minute'"
OURS = "txid::text = pg_current_xact_id()::text"
LEFT_OUT = {
    "dead_letter_queue": (
        "status = 'pending' and retry_after <= clock_timestamp() and retry_count < max_retries",
        NOW.format("created_at"),
    ),
    "event_outbox": (
        "event_id is not null",
        "(processed_at, dead_at) is null and claimed_until > now() is not true",
        "coalesce(next_attempt_at, now()) <= clock_timestamp() + interval '2 s'",
        NOW.format("coalesce(inserted_at, now())"),
        OURS,
    ),
    "events": (NOW.format("coalesce(created_at, now())"), OURS),
    "replay_runs": (NOW.format("coalesce(requested_at, now())"), OURS),
    "audit_logs": (NOW.format("coalesce(created_at, now())"), OURS),
    "agent_tasks": (NOW.format("coalesce(created_at, now())"),),
    "edge_rate_limits": ("count = cardinality(hits) and window_start = hits[1]",),
    "replay_budgets": (
        "daily_limit = 500 and monthly_limit = 10000 and daily_used = 0 and monthly_used = 0",
        "day <= (now() at time zone 'UTC')::date",
        "left(to_jsonb(month) #>> '{}', 7) <= to_char(now() at time zone 'UTC', 'YYYY-MM')",
    ),
}
"""Table -> the values of the columns that its seed leaves out. A period that is past is one of which nothing is used;
a time need not be given, but for a letter's, by which letters are taken."""
OF = {"audit_logs": "scope = %(id)s", "edge_rate_limits": "key = 'replay:' || %(id)s || ':192.0.2.1'"}
"""Table -> the rows of a company, where no column names it."""
CHANGES = {
    "event_outbox": (
        "claimed_until = now() + interval '30 s'",
        "claimed_until = null, attempts = attempts + 1, next_attempt_at = now() + interval '1 hour'",
        "claimed_until = null, processed_at = now()",
        "claimed_until = null, dead_at = now()",
    ),
    "dead_letter_queue": (
        "status = 'replaying'",
        "status = 'resolved'",
        "status = 'pending', retry_count = retry_count + 1, retry_after = now() + interval '1 hour'",
    ),
    "agent_tasks": ("status = 'running'", "status = 'completed'"),
    "feature_flags": ("enabled = true, rollout_percentage = 37", "enabled = true, rollout_percentage = 0"),
    "agent_controls": (
        "agents_paused = true, pause_reason = 'drill'",
        "agents_paused = true, pause_reason = null",
        "agents_paused = false, pause_reason = null",
    ),
    "replay_budgets": (
        "daily_used = daily_limit, monthly_used = daily_limit",
        "daily_limit = 0",
        "daily_limit = monthly_limit + 1",
    ),
}
"""Table -> what service, worker or operators do to its rows; the first of them stays."""
STORED = ("agent_tasks", "feature_flags", "agent_controls", "replay_budgets")
"""Tables that must store what the first of these changes says: no trigger may take it back."""
FOLDED = """select from pg_attribute a join pg_type t on t.oid = a.atttypid
left join pg_type b on b.oid = t.typbasetype left join pg_collation c on c.oid = a.attcollation
where a.attrelid = to_regclass('public.dead_letter_queue')
  and a.attname = (parse_ident('public.dead_letter_queue.error_type'))[3]
  and (not c.collisdeterministic or 'citext' in (t.typname, b.typname))"""
KEY, LIKE_IT = "drill-rls", ("DRILL-RLS", "Drill-rls", "drill-rls ")
"""The key of the seed, and others."""
DUPLICATE, TOO_LONG = "23505", "22001"
"""unique_violation, string_data_right_truncation"""
RUN = f"insert into public.replay_runs {RUN_COLUMNS} values (%(value)s, %(id)s, 'drill', '', 'completed', now())"
HITS = """with kept as (insert into public.edge_rate_limits (key, hits)
values ('replay:' || %(id)s || ':192.0.2.3', array[now() - interval '{} s', now()]) returning hits)
select from kept where cardinality(hits) <> 2"""
EVERYBODYS = {
    "agent_controls": ("company_id is null", "agents_paused = true", "agents_paused"),
    "feature_flags": (
        "company_id is null and key = 'outbox.enabled'",
        "enabled = false, rollout_percentage = 7",
        "enabled = false and rollout_percentage = 7",
    ),
}
"""Table -> rows on which everybody depends, what an operator does to them, and what they must hold then. Last, so that
they are locked for a moment.
"""
OWN_FLAG = """insert into public.feature_flags (key, company_id, enabled, rollout_percentage)
values ('outbox.enabled', %(id)s, true, 41)"""
OF_ITS_OWN = {
    "agent_controls": "select from public.agent_controls where company_id = %(id)s and agents_paused",
    "feature_flags": f"with gone as ({OWN_FLAG} on conflict do nothing returning 1) select from gone union all"
    " select from public.feature_flags where key = 'outbox.enabled' and company_id = %(id)s"
    " and rollout_percentage <> 41",
}
"""Table -> finds a tenant's row that the change of everybody's has changed or taken along."""
ASKERS = ("authenticated", "anon", "replay_service", "replay_worker")
STARTED = f"insert into public.replay_runs {RUN_COLUMNS} values ('drill-ends', %(id)s, 'drill', '', 'started', null)"
ENDED = """update public.replay_runs
set status = 'completed', completed_at = now(), target_count = 3, success_count = 2, failure_count = 1
where company_id = %(id)s and idempotency_key = 'drill-ends'"""
END = """select from public.replay_runs where company_id = %(id)s and idempotency_key = 'drill-ends'
and (status, target_count, success_count, failure_count) is distinct from ('completed', 3, 2, 1)"""
NEXT_PERIODS = (
    "day = day + 1, daily_used = daily_limit + 1",
    "month = (month + interval '1 month')::date, monthly_used = monthly_limit + 1",
    "month = '2999-12', monthly_used = monthly_limit + 1",
)
"""The last is for a month that is a text; a date refuses that form."""
BUDGET = "update public.replay_budgets set {} where company_id = %(id)s"
ABOVE = f"""with raised as ({BUDGET} returning daily_used > daily_limit or monthly_used > monthly_limit as is_above)
select from raised where is_above"""
"""A trigger may start the new period at zero."""


class Expected(StrEnum):
    """The expected result of a statement."""

    TAKEN = "taken"
    TYPED = "taken, or too long for its type"
    FILLED = "finds no row that was not filled in"
    REFUSED = "refused"
    FIXED = "changes no row of the trail"
    TRIED = "taken or not"
    APART = "taken beside another key"
    UNLIKE = "finds no column that folds case"


@dataclass(frozen=True, slots=True)
class Write:
    """A statement, its description and its expected result. stays: its row is kept for the statements that follow.
    other: for a second tenant, beside the first one's rows. role: who runs it, if not the login. live: on a row on
    which everybody depends.
    """

    expected: Expected
    table: str
    what: str
    statement: str
    value: str = ""
    stays: bool = False
    other: bool = False
    role: str | None = None
    live: bool = False


Written = list[tuple[Write, Attempt]]


def write(url: str, *, may_touch_live: bool) -> Written:
    """The result of each statement. may_touch_live: whether rows on which everybody depends are changed for a moment,
    too. Raise psycopg.Error where there is no database.
    """
    asked = [one for one in _writes() if current().real(one.table) and current().claims(_area(one.table))]
    asked = [one for one in asked if may_touch_live or not one.live]
    company = {False: new_id("company"), True: new_id("company")}
    at_once = TenantStatement("set constraints all immediate", keep=True)
    statements = [
        TenantStatement(one.statement, {"id": company[one.other], "value": one.value}, one.role, keep=one.stays)
        for one in asked
    ]
    connection = connect(url, autocommit=False)
    try:
        _, *done = attempt(connection, [at_once, *statements])
    finally:
        if not connection.closed:
            connection.rollback()
        connection.close()
    return list(_shown(zip(asked, done, strict=True)))


def _shown(written: Iterable[tuple[Write, Attempt]]) -> Iterator[tuple[Write, Attempt]]:
    """Leave out each look that follows a write which this login may not make: it would find the row unchanged."""
    is_denied = False
    for one, came in written:
        if one.expected is not Expected.FILLED:
            is_denied = bool(came.error) and not came.raised
        if one.expected is not Expected.FILLED or not is_denied:
            yield one, came


def _area(table: str) -> str:
    return contract().relations[table].area


def _writes() -> Iterator[Write]:
    for what, other in (("a row of the contract's columns", False), ("the same row of another tenant", True)):
        for table, seed in SEEDS.items():
            if table in GIVEN:
                away = f"delete from public.{table} where company_id = %(id)s"
                yield Write(Expected.TAKEN, table, "the end of a row", away, stays=True, other=other)
            yield Write(Expected.TAKEN, table, what, seed, stays=True, other=other)
    for table, odd in ODD.items():
        for row in odd:
            yield Write(Expected.TAKEN, table, f"a row {row}", f"insert into public.{table} {row}")
    for table, (column, row) in AS_THEY_ARE.items():
        given = AS_GIVEN.format(f"insert into public.{table} {row}", column)
        yield Write(Expected.FILLED, table, f"{column} as it was written", given, SPELT)
    for table, row in OF_AN_EVENT.items():
        made = f"with kept as (insert into public.{table} {row} returning event_id)"
        look = f"{made} select from kept where event_id is distinct from %(id)s"
        yield Write(Expected.FILLED, table, "event_id as it was written", look)
    for table, row in LONG.items():
        yield Write(Expected.TYPED, table, f"a row {row}", f"insert into public.{table} {row}")
    for table, (column, row) in STATES.items():
        for value in contract().relations[table].values[column]:
            what, insert = f"a row with {column} {value}", f"insert into public.{table} {row}"
            yield Write(Expected.TAKEN, table, what, insert, value, stays=table == "audit_logs")
            given = AS_GIVEN.format(insert, column)
            yield Write(Expected.FILLED, table, f"{column} {value}, as it was written", given, value)
            if table == "audit_logs":
                yield Write(Expected.FILLED, table, f"the counts and metadata of {value}", AUDITED, value)
    for column, time in TIMES.items():
        row = f"(company_id, event_type, payload, {column}) values (%(id)s, 'drill.rls', '{{}}', {time})"
        yield Write(Expected.TAKEN, "event_outbox", f"a row with {column}", f"insert into public.event_outbox {row}")
    for table, row in SIZES.items():
        insert = f"insert into public.{table} {row}"
        yield Write(Expected.TAKEN, table, "a row with a payload of 55 KB", insert.format(LARGE))
    for table, filled in LEFT_OUT.items():
        of = OF.get(table, "company_id = %(id)s")
        for held in filled:
            yield Write(Expected.FILLED, table, held, f"select from public.{table} where {of} and ({held}) is not true")
    for table, changes in CHANGES.items():
        for change in changes:
            statement = f"update public.{table} set {change} where company_id = %(id)s"
            yield Write(Expected.TAKEN, table, change, statement, stays=change is changes[0])
            if table in STORED and change is changes[0]:
                held = change.replace(", ", " and ")
                look = f"select from public.{table} where company_id = %(id)s and ({held}) is not true"
                yield Write(Expected.FILLED, table, f"{held} (after that change)", look)
    yield from _trail()
    yield from _lives()
    for change in ("enabled = not enabled", "rollout_percentage = rollout_percentage + 1", "description = key"):
        yield Write(Expected.FILLED, "feature_flags", f"a greater version after {change}", VERSION.format(change))
    for used in ("daily_used = daily_limit + 1", "monthly_used = monthly_limit + 1"):
        yield Write(Expected.REFUSED, "replay_budgets", used, BUDGET.format(used))
    for used in NEXT_PERIODS:
        yield Write(Expected.REFUSED, "replay_budgets", used, ABOVE.format(used))
    hits = HITS.format(current().limit("window_s") * 4 // 5)
    yield Write(Expected.FILLED, "edge_rate_limits", "both hits of one window", hits)
    yield from _decisions()
    for below in ("daily_used = 3, monthly_used = 3", "daily_limit = 1", "monthly_limit = 1"):
        yield Write(Expected.TAKEN, "replay_budgets", below, BUDGET.format(below), stays=True)
    for used in ("daily", "monthly"):
        more = f"{used}_used = greatest({used}_used, {used}_limit) + 1"
        yield Write(Expected.REFUSED, "replay_budgets", f"{more}, above its limit before", BUDGET.format(more))
    for key in LIKE_IT:
        yield Write(Expected.APART, "replay_runs", f"a run under {key!r} beside {KEY!r}", RUN, key)
    yield Write(Expected.UNLIKE, "dead_letter_queue", "error_type", FOLDED)
    yield from _everybodys_rows()
    yield from _everybodys_trail()


def _lives() -> Iterator[Write]:
    """Of old rows and of a run, and what none of it changes."""
    of_them, words, others = BESIDE
    for table, (columns, values, _, _) in LIVES.items():
        row = OLD_ROW.format(table, columns, values).replace(words, others)
        yield Write(Expected.TAKEN, table, "a row beside the old ones", row, stays=True)
    for table, (columns, values, held, life) in LIVES.items():
        for rows, what in enumerate(("an old row", "another one like it"), 1):
            yield from _life(table, what, OLD_ROW.format(table, columns, values), held, rows)
        for change, then in life:
            statement = f"update public.{table} set {change} where {OLD}"
            yield from _life(table, f"{change}, of an old row", statement, then, rows)
    yield from _ends()
    for table, change in (("agent_controls", CHANGES["agent_controls"][0]), ("feature_flags", "enabled = false")):
        statement = f"update public.{table} set {change} where company_id = %(id)s"
        yield Write(Expected.TAKEN, table, f"{change}, while events wait", statement, stays=True)
    for table, held in UNTOUCHED.items():
        look = f"select from public.{table} where {of_them} and ({held}) is not true"
        yield Write(Expected.FILLED, table, f"{held} (beside what has ended, a pause and a flag that is off)", look)


def _everybodys_rows() -> Iterator[Write]:
    """What an operator does to them, which changes no tenant's."""
    yield Write(Expected.TRIED, "feature_flags", "a tenant's own outbox.enabled", OWN_FLAG, stays=True, live=True)
    for table, (whose, change, held) in EVERYBODYS.items():
        what = f"{change}, of everybody's row"
        statement = f"update public.{table} set {change} where {whose}"
        look = f"select from public.{table} where {whose} and ({held}) is not true"
        yield Write(Expected.TAKEN, table, what, statement, stays=True, live=True)
        yield Write(Expected.FILLED, table, f"{held} (after {what})", look, live=True)
        kept = f"the tenant's row as it was (after {what})"
        yield Write(Expected.FILLED, table, kept, OF_ITS_OWN[table], other=table == "agent_controls", live=True)


def _trail() -> Iterator[Write]:
    """A tenant's rows: each hashes to its hash, and nothing changes one."""
    yield Write(Expected.FILLED, "audit_logs", "the hash of what it says", CHAINED)
    for age in AGES:
        yield Write(Expected.TRIED, "audit_logs", "a row of long ago", OLD_TRAIL.format(age), stays=True)
    for change in tampering(contract().relations["audit_logs"].values["action"]):
        yield Write(Expected.FIXED, "audit_logs", change.replace("scope = %(id)s", "it is a tenant's"), change)


def _everybodys_trail() -> Iterator[Write]:
    yield Write(Expected.TRIED, "audit_logs", "a row of everybody", EVERYBODYS_ROW, stays=True, live=True)
    look = CHAINED.replace("scope = %(id)s", OF_EVERYBODY)
    yield Write(Expected.FILLED, "audit_logs", "the hash of what it says, of everybody's", look, live=True)
    for change in ("delete from public.audit_logs", f"update public.audit_logs set {WORDS[0]}"):
        what = f"{change}, of everybody's,"
        yield Write(Expected.FIXED, "audit_logs", what, f"{change} where {OF_EVERYBODY}", live=True)


def _ends() -> Iterator[Write]:
    """A run's, and of rows that are deleted."""
    yield Write(Expected.TAKEN, "replay_runs", "a run that starts", STARTED, stays=True)
    yield Write(Expected.TAKEN, "replay_runs", "its end", ENDED, stays=True)
    yield Write(Expected.FILLED, "replay_runs", "the end that was written", END)
    for table, (row, whose) in GONE.items():
        yield Write(Expected.TAKEN, table, "a row to be deleted", f"insert into public.{table} {row}", stays=True)
        yield Write(Expected.TAKEN, table, "its deletion", f"delete from public.{table} where {whose}", stays=True)
        still = f"select from public.{table} where {whose} and not row_security_active('public.{table}')"
        yield Write(Expected.FILLED, table, "gone when it is deleted (by a login that no policy binds)", still)


def _decisions() -> Iterator[Write]:
    """What is_feature_enabled says of a tenant's row: alike for every caller, and off where there is none."""
    for change, answer in (("enabled = true, rollout_percentage = 100", "true"), ("enabled = false", "false")):
        statement = f"update public.feature_flags set {change} where company_id = %(id)s"
        yield Write(Expected.TAKEN, "feature_flags", change, statement, stays=True)
        yield Write(Expected.FILLED, "feature_flags_status", f"the tenant's flag as it is (after {change})", STATUS)
        for role in (None, *(one for one in ASKERS if current().roles.get(one, one))):
            asked = DECIDED.format("drill.rls", answer)
            what = f"the answer {answer} for {role or 'the gate'} (after {change})"
            yield Write(Expected.FILLED, "feature_flags", what, asked, role=role)
    for what, change, look in steps(own_buckets=current().own_buckets):
        yield Write(Expected.TRIED, "feature_flags", what, change, stays=True)
        if look:
            yield Write(Expected.FILLED, "feature_flags", what, look)
    without = DECIDED.format("drill.none", "false")
    yield Write(Expected.FILLED, "feature_flags", "the answer false for a flag without a row", without)


def _life(table: str, what: str, statement: str, held: str, rows: int) -> Iterator[Write]:
    yield Write(Expected.TAKEN, table, what, statement, stays=True)
    look = f"select where (select count(*) from public.{table} where {OLD} and ({held})) <> {rows}"
    yield Write(Expected.FILLED, table, f"{held} (after {what})", look)


def wrong(one: Write, came: Attempt) -> str:
    """What is wrong with the result; empty where it is as expected, or where not the schema refused it."""
    if one.expected in {Expected.TAKEN, Expected.TYPED, Expected.APART}:
        refused = came.state == DUPLICATE if one.expected is Expected.APART else came.raised
        refused = refused and (one.expected is not Expected.TYPED or came.state != TOO_LONG)
        return f"{one.what} was refused: {came.error.splitlines()[0]}" if refused else ""
    told = {
        Expected.REFUSED: f"{one.what} was taken",
        Expected.FIXED: f"{one.what} changed a row of the trail",
        Expected.FILLED: f"a row has not {one.what}",
        Expected.UNLIKE: f"{one.what} is of a type that folds case: 'Timeout' finds 'timeout'",
    }
    return told.get(one.expected, "") if came.rows else ""
