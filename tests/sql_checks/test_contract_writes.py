"""Writes that the contract allows are tried: a schema that refuses them, or allows too much, fails."""

import re
from contextlib import closing

import psycopg
import pytest
from psycopg import sql

from faults.trigger.planting import released
from gates.contract.scope import WHOLE
from gates.deployment.sql import database
from gates.stages.preflight.database import sees_all
from sql_checks import test_contract_writes as checks
from sql_checks.attempts.contract_writes import Expected, Write, write
from sql_checks.attempts.row_level_security import probe
from sql_checks.attempts.statements import Attempt
from sql_checks.sqlsession import SqlSession
from tests.postgres_fixture import PASSWORD, PgServer
from tests.sql_checks.conftest import outcome_of

REOPENED = """create function reopened() returns trigger language plpgsql set search_path = '' as $$ begin
if old.status = 'replaying' and new.status = 'pending' then raise exception 'no way back'; end if; return new; end $$;
create trigger reopened before update on dead_letter_queue for each row execute function reopened()"""
FINAL = """create function final() returns trigger language plpgsql set search_path = '' as $$ begin
if old.status = 'resolved' and new.status <> old.status then raise exception 'final'; end if; return new; end $$;
create trigger final before update on dead_letter_queue for each row execute function final()"""
ONE_OF_A_KEY = """create unique index one_of_a_key on dead_letter_queue (company_id, event_type, aggregate_key)
where status = 'pending' and aggregate_key is not null"""
DISCARDED = """create function discarded() returns trigger language plpgsql set search_path = '' as $$ begin
if new.status = 'pending' and {} then new.status := 'discarded'; end if; return new; end $$;
create trigger discarded before update on dead_letter_queue for each row execute function discarded()"""
DROPPED = """create function dropped() returns trigger language plpgsql set search_path = '' as $$ begin
return case when new.created_at < now() - interval '30 days' then null else new end; end $$;
create trigger dropped before insert on dead_letter_queue for each row execute function dropped()"""
RECENT_PARTITIONS = """alter table event_outbox rename to in_one;
create table event_outbox (like in_one including defaults including identity) partition by range (inserted_at);
do $$ begin execute format('create table event_outbox_now partition of event_outbox for values from (%L) to (%L)',
current_date - 7, current_date + 7); end $$"""
LOWERED = """create function lowered() returns trigger language plpgsql set search_path = '' as $$ begin
new.idempotency_key := lower(new.idempotency_key); return new; end $$;
create trigger lowered before insert on replay_runs for each row execute function lowered()"""
DUE_NOW = """alter table dead_letter_queue alter retry_after drop default;
create function due() returns trigger language plpgsql set search_path = '' as $$ begin
new.retry_after := coalesce(new.retry_after, now()); return new; end $$;
create trigger due before insert on dead_letter_queue for each row execute function due()"""
TWO_TRIGGERS = """drop trigger replay_budgets_cap on replay_budgets;
create function above() returns trigger language plpgsql set search_path = '' as $$ begin raise exception 'no'; end $$;
create trigger day before update on replay_budgets for each row
when (new.daily_used > new.daily_limit and new.daily_used > old.daily_used) execute function above();
create trigger month before update on replay_budgets for each row
when (new.monthly_used > new.monthly_limit and new.monthly_used > old.monthly_used) execute function above()"""
SAME_MONTH = released(
    "replay_budgets_cap", ("IF NEW.monthly_used >", "IF NEW.month = OLD.month AND NEW.monthly_used >")
)
TEXT_MONTH = """drop view replay_budgets_status; alter table replay_budgets alter month drop default,
alter month type text using to_char(month, 'YYYY-MM'),
alter month set default to_char(now() at time zone 'UTC', 'YYYY-MM')"""
ANEW = """create function anew() returns trigger language plpgsql set search_path = '' as $$ begin
if new.month > old.month then new.monthly_used := 0; end if; return new; end $$;
create trigger anew before update on replay_budgets for each row execute function anew()"""
GIVEN = """create function given() returns trigger language plpgsql set search_path = public as $$ begin
insert into replay_budgets (company_id) values (new.id); insert into agent_controls (company_id) values (new.id);
return null; end $$;
create trigger given after insert on companies for each row execute function given()"""
GUARD = """create function guard() returns trigger language plpgsql set search_path = '' as $$ begin
if {} then return coalesce(new, old); end if; raise exception 'append-only'; end $$;
drop trigger audit_logs_append_only on audit_logs;
create trigger guard before update or delete on audit_logs for each row execute function guard()"""
"""Refuses but where it returns the row."""
REWRITTEN = """create function rewritten() returns trigger language plpgsql set search_path = '' as $$ begin
if {} then new.{} := {}; end if; return new; end $$;
create trigger z before insert on {} for each row execute function rewritten()"""
"""Where something is so, it writes something else into a column of a table."""
EVERYBODYS = """create function unlike() returns trigger language plpgsql set search_path = '' as $$ begin
update public.{} set {} = {} where company_id is null; return null; end $$;
create trigger unlike after update on {} for each row when (new.company_id is null and pg_trigger_depth() = 0)
execute function unlike()"""
"""What an operator does to everybody's row is undone at once."""
DECIDED = """create or replace function is_feature_enabled(key text, company uuid) returns boolean {1} as $$
select coalesce((select enabled and public.feature_bucket($1, $2) < rollout_percentage from public.feature_flags f
where f.key = $1 and {0}), $1 = 'dlq.replay.budget_control') $$"""
"""Knows the rows of everybody alone, or those that its caller may see."""
DEFINER = "language sql stable security definer"
INVERTED = DECIDED.replace("< rollout_percentage", "* sign(50 - f.rollout_percentage) < rollout_percentage").format(
    "(f.company_id is null or f.company_id = $2) order by f.company_id nulls last limit 1", DEFINER
)
"""Right up to 50 %: above it, everybody has the flag."""
COPIED = """alter table feature_flags add percent int; update feature_flags set percent = rollout_percentage;
create or replace view feature_flags_status with (security_invoker) as select f.key, f.company_id,
c.name as company_name, f.enabled, f.percent as rollout_percentage, f.description, f.updated_at
from feature_flags f left join companies c on c.id = f.company_id"""
UNCHAINED = """alter table audit_logs alter hash set default '', alter prev_hash set default '',
alter created_at set default now(), alter id set default nextval('audit_logs_id_seq');
drop trigger audit_logs_chain on audit_logs;
create trigger audit_logs_chain before insert on audit_logs for each row when (new.scope <> 'all')
execute function audit_logs_chain()"""
BESIDE = """create function beside() returns trigger language plpgsql set search_path = '' as $$
begin {}; return null; end $$;
create trigger beside after {} execute function beside()"""
"""Does something to other rows, too."""
AFRESH = """create function afresh() returns trigger language plpgsql set search_path = '' as $$ begin
if new.retry_count >= new.max_retries then new.retry_count := 0; end if; return new; end $$;
create trigger afresh before update on dead_letter_queue for each row execute function afresh()"""
VERSIONED = """drop trigger feature_flags_touch on feature_flags;
create trigger added before insert on feature_flags for each row execute function feature_flags_touch();
create trigger changed before update on feature_flags for each row when ({})
execute function feature_flags_touch()"""
SILENT = """create function silent() returns trigger language plpgsql set search_path = '' as 'begin return null; end';
drop trigger audit_logs_append_only on audit_logs;
create trigger silent before update or delete on audit_logs for each row execute function silent()"""
UNPAUSED = """create function unpaused() returns trigger language plpgsql set search_path = '' as $$ begin
new.agents_paused := new.agents_paused and new.company_id is null; return new; end $$;
create trigger unpaused before update on agent_controls for each row execute function unpaused()"""
CAUGHT = """create or replace function audit_logs_append_only() returns trigger language plpgsql set search_path = ''
as $$ begin begin raise 'append-only'; exception
when others then raise warning 'tried'; end; return null; end $$"""
AT_THE_COMMIT = """drop trigger replay_budgets_cap on replay_budgets;
create constraint trigger cap after update on replay_budgets deferrable initially deferred
for each row execute function replay_budgets_cap()"""
GIVES_BACK = """create function gives_back() returns trigger language plpgsql set search_path = '' as $$ begin
perform pg_notify('changes', tg_op); return {}; end $$;
create trigger gives_back before {} for each row execute function gives_back()"""
"""Leaves a change or a deletion out."""
TAKEN, BUDGET, KEYS = "contract-rows-are-taken", "budget-is-kept", "keys-are-told-apart"
JUDGES = {
    TAKEN: checks.test_contract_rows_are_taken,
    BUDGET: checks.test_budget_is_kept,
    KEYS: checks.test_keys_are_told_apart,
}


def failing(url: str, *, may_be_unknown: bool = False) -> set[str]:
    """The checks that fail; all others pass, or are unknown where that is allowed."""
    came = write(url, may_touch_live=True)
    told = {name: outcome_of(lambda seen, judge=judge: judge(came, seen))[:2] for name, judge in JUDGES.items()}  # type: ignore[misc]
    assert may_be_unknown or all(outcome != "unknown" for outcome, _ in told.values()), told
    return {name for name, (outcome, _) in told.items() if outcome == "fail"}


@pytest.mark.parametrize("role", [None, "replay_gate"])
def test_green_on_the_reference(role: str | None, pg_server: PgServer, clone: str) -> None:
    """All pass for superuser and least role, and nothing is left."""
    assert failing(pg_server.url(clone, role)) == set()
    with psycopg.connect(pg_server.url(clone)) as connection:
        left = connection.execute("select count(*) from public.companies where name like 'drill-rls%'").fetchone()
    assert left == (0,)


@pytest.mark.parametrize(
    ("planted", "due"),
    [
        (
            "alter table agent_controls add r int not null default 0; alter table agent_controls alter r drop default",
            TAKEN,
        ),
        ("alter table dead_letter_queue alter retry_after drop default", TAKEN),
        ("alter table dead_letter_queue alter created_at set default now() at time zone 'Asia/Tokyo'", TAKEN),
        ("alter table event_outbox alter inserted_at set default date_trunc('month', now()) - interval '1 day'", TAKEN),
        ("alter table events alter txid drop default, alter txid drop not null", TAKEN),
        ("alter table event_outbox alter claimed_until set default now() + interval '1 hour'", TAKEN),
        ("alter table event_outbox alter next_attempt_at set default now() + interval '10 minutes'", TAKEN),
        ("alter table replay_budgets alter daily_used set default 5", TAKEN),
        ("alter table edge_rate_limits alter count drop expression", TAKEN),
        ("alter table replay_budgets alter day set default (now() + interval '1 day')::date", TAKEN),
        ("alter table dead_letter_queue alter max_retries drop default, alter max_retries drop not null", TAKEN),
        ("alter table dead_letter_queue add check (error_message is not null) not valid", TAKEN),
        ("create index on events (company_id, payload)", TAKEN),
        ("alter table dead_letter_queue alter error_message type varchar(100)", TAKEN),
        ("alter table feature_flags add check (rollout_percentage in (0, 10, 50, 100))", TAKEN),
        ("alter table replay_budgets add check (daily_used <= daily_limit)", TAKEN),
        ("create publication waiting for table event_outbox where (processed_at is null)", TAKEN),
        ("alter table feature_flags disable trigger feature_flags_touch", TAKEN),
        ("create unique index on feature_flags (key) where company_id is not null", TAKEN),
        ("create unique index on replay_runs (company_id) where status = 'started'", TAKEN),
        ("alter table event_outbox add check (event_type ~ '^[a-z._-]+$') not valid", TAKEN),
        ("alter table dead_letter_queue add check (jsonb_typeof(payload) = 'object') not valid", TAKEN),
        ("alter table replay_budgets add check (daily_limit > 0)", TAKEN),
        ("alter table agent_tasks add foreign key (event_id) references events not valid", TAKEN),
        ("alter table dead_letter_queue add foreign key (event_id) references events not valid", TAKEN),
        ("create unique index on agent_tasks (company_id, agent_name) where status = 'running'", TAKEN),
        ("alter table replay_runs add check (length(idempotency_key) <= 128) not valid", TAKEN),
        ("alter table edge_rate_limits add check (key ~ '^replay:[^:]+:[0-9.]+$') not valid", TAKEN),
        ("alter table dead_letter_queue add check (length(error_message) <= 500) not valid", TAKEN),
        ("alter table audit_logs add check (length(metadata::text) < 500) not valid", TAKEN),
        ("delete from events; create unique index on events (company_id, aggregate_key)", TAKEN),
        (ONE_OF_A_KEY, TAKEN),
        ("delete from event_outbox; create unique index on event_outbox (event_id) where processed_at is null", TAKEN),
        *((REWRITTEN.format("true", "event_id", "null", t), TAKEN) for t in ("dead_letter_queue", "event_outbox")),
        (REWRITTEN.format("new.status = 'completed'", "event_id", "null", "agent_tasks"), TAKEN),
        (REOPENED, TAKEN),
        (DISCARDED.format("old.created_at < now() - interval '30 days'"), TAKEN),
        (DISCARDED.format("new.retry_count >= 5"), TAKEN),
        (DROPPED, TAKEN),
        ("alter table events add check (event_type = lower(event_type)) not valid", TAKEN),
        (UNPAUSED, TAKEN),
        ("alter table agent_controls add check (not agents_paused or pause_reason is not null)", TAKEN),
        (GIVES_BACK.format("new", "delete on edge_rate_limits"), TAKEN),
        (GIVES_BACK.format("new", "delete on event_outbox"), TAKEN),
        (GIVES_BACK.format("old", "update on replay_runs"), TAKEN),
        (GIVES_BACK.format("old", "update on agent_tasks"), TAKEN),
        (REWRITTEN.format("true", "event_type", "lower(new.event_type)", "event_outbox"), TAKEN),
        (REWRITTEN.format("true", "error_type", "left(new.error_type, 50)", "dead_letter_queue"), TAKEN),
        (CAUGHT, TAKEN),
        (GUARD.format("old.created_at < now() - interval '30 days'"), TAKEN),
        (GUARD.format("old.created_at < now() - interval '3 years'"), TAKEN),
        (EVERYBODYS.format("agent_controls", "agents_paused", "false", "agent_controls"), TAKEN),
        (EVERYBODYS.format("feature_flags", "rollout_percentage", "50", "feature_flags"), TAKEN),
        (DECIDED.format("company_id is null", DEFINER), TAKEN),
        (DECIDED.format("company_id = $2", "language sql stable"), TAKEN),
        ("create publication done for table agent_tasks where (status = 'completed')", TAKEN),
        ("create publication ended for table replay_runs (status)", TAKEN),
        (REWRITTEN.format("true", "metadata", """new.metadata || '{"host": "a"}'""", "audit_logs"), TAKEN),
        (
            REWRITTEN.format("new.action = 'dlq_replay_refused'", "target_count", "0", "audit_logs").replace(
                "r z ", "r a "
            ),
            TAKEN,
        ),
        (REWRITTEN.format("new.status = 'failed'", "status", "'completed'", "agent_tasks"), TAKEN),
        (REWRITTEN.format("new.status = 'stopped'", "status", "'completed'", "replay_runs"), TAKEN),
        (VERSIONED.format("old.enabled is distinct from new.enabled"), TAKEN),
        (VERSIONED.format("old.rollout_percentage is distinct from new.rollout_percentage"), TAKEN),
        (VERSIONED.format("(old.enabled, old.rollout_percentage) <> (new.enabled, new.rollout_percentage)"), TAKEN),
        (GUARD.format("tg_op = 'UPDATE' and new.actor = old.actor and new.hash = old.hash"), TAKEN),
        (GUARD.format("tg_op = 'DELETE' and old.action = 'dlq_replay_refused'"), TAKEN),
        (GUARD.format("old.scope = 'all'"), TAKEN),
        (GUARD.format("to_jsonb(new) - 'actor' = to_jsonb(old) - 'actor'"), TAKEN),
        (DECIDED.format("(f.company_id is null or f.company_id = $2) order by enabled desc limit 1", DEFINER), TAKEN),
        (INVERTED, TAKEN),
        (COPIED, TAKEN),
        (UNCHAINED, TAKEN),
        (AFRESH, TAKEN),
        (
            BESIDE.format(
                "update public.dead_letter_queue set status = 'resolved' where event_type = new.event_type",
                "update on dead_letter_queue for each row when (new.status = 'resolved' and pg_trigger_depth() = 0)",
            ),
            TAKEN,
        ),
        (
            BESIDE.format(
                "update public.dead_letter_queue set status = 'discarded' where company_id = new.company_id"
                " and status = 'pending'",
                "update on replay_runs for each row when (new.status = 'completed')",
            ),
            TAKEN,
        ),
        (
            BESIDE.format(
                "update public.event_outbox set dead_at = now() where company_id = new.company_id"
                " and processed_at is null",
                "update on agent_controls for each row when (new.agents_paused)",
            ),
            TAKEN,
        ),
        (
            BESIDE.format(
                "update public.event_outbox set processed_at = now() where company_id = new.company_id"
                " and dead_at is null",
                "update on feature_flags for each row when (not new.enabled)",
            ),
            TAKEN,
        ),
        (
            BESIDE.format(
                "update public.agent_controls set agents_paused = new.agents_paused where company_id is not null",
                "update on agent_controls for each row when (new.company_id is null)",
            ),
            TAKEN,
        ),
        (
            BESIDE.format(
                "delete from public.feature_flags where key = new.key and company_id is not null",
                "update on feature_flags for each row when (new.company_id is null)",
            ),
            TAKEN,
        ),
        ("drop trigger replay_budgets_cap on replay_budgets", BUDGET),
        (SAME_MONTH, BUDGET),
        (f"{TEXT_MONTH}; {SAME_MONTH}", BUDGET),
        (f"{TEXT_MONTH}; alter table replay_budgets alter month set default '2999-01'", TAKEN),
        ("alter table replay_runs alter idempotency_key type char(200)", KEYS),
        ("create extension citext; alter table dead_letter_queue alter error_type type citext", KEYS),
        (LOWERED, KEYS),
    ],
)
def test_red_where_a_promise_is_not_kept(planted: str, due: str, pg_server: PgServer, clone: str) -> None:
    """A refused row, a lost default or a folded key fails its check alone."""
    with psycopg.connect(pg_server.url(clone)) as connection:
        connection.execute(planted.encode())
    assert failing(pg_server.url(clone)) == {due}


def test_green_on_another_make(pg_server: PgServer, clone: str) -> None:
    """Triggers, other states, domains and more columns break no promise."""
    with psycopg.connect(pg_server.url(clone)) as connection:
        for planted in (
            "alter table dead_letter_queue alter error_message type varchar(300), alter event_type type varchar(64)",
            DUE_NOW,
            FINAL,
            TWO_TRIGGERS,
            TEXT_MONTH,
            ANEW,
            SILENT,
            RECENT_PARTITIONS,
            GIVEN,
            VERSIONED.format("old is distinct from new"),
            REWRITTEN.format("true", "metadata", """new.metadata || '{"host": "a"}'""", "audit_logs").replace(
                "r z ", "r a "
            ),
            "create publication updates for table agent_tasks (id, status), replay_runs where (id is not null)",
            "alter table agent_tasks alter created_at drop default, alter created_at drop not null",
            "alter table replay_runs drop txid, add txid bigint not null default txid_current()",
            "alter table edge_rate_limits drop count, add count int generated always as (array_length(hits, 1)) stored",
            "create domain word as text check (length(value) <= 200)",
            "alter table replay_runs alter idempotency_key type word",
            "alter table event_outbox add region text not null default 'eu'",
            "alter table replay_runs add check (status = 'started' or completed_at is not null)",
        ):
            connection.execute(planted.encode())
    assert failing(pg_server.url(clone)) == set()


def test_a_refusal_at_the_commit_is_one(pg_server: PgServer, clone: str) -> None:
    """A limit that a deferred trigger enforces counts as enforced."""
    with psycopg.connect(pg_server.url(clone)) as connection:
        connection.execute(AT_THE_COMMIT.encode())
    assert failing(pg_server.url(clone)) == set()


@pytest.mark.parametrize("rights", ["select", "select, insert"])
def test_what_a_login_may_not_write_is_unknown(rights: str, pg_server: PgServer, clone: str) -> None:
    """A login without the right to write blames no release."""
    with psycopg.connect(pg_server.url(clone)) as connection:
        connection.execute(sql.SQL("create role reader login bypassrls password {}").format(sql.Literal(PASSWORD)))
        connection.execute(f"grant {rights} on all tables in schema public to reader".encode())
    try:
        assert failing(pg_server.url(clone, "reader"), may_be_unknown=True) == set()
    finally:
        with psycopg.connect(pg_server.url(clone)) as connection:
            connection.execute("drop owned by reader; drop role reader")


@pytest.mark.parametrize("state", ["55P03", "57014"])
def test_a_lock_of_another_session_proves_nothing(state: str) -> None:
    """A row that a lock kept out is no row that the schema spoilt; nor are the other tables enough for a pass."""
    kinds = (Expected.TAKEN, Expected.TAKEN, Expected.FILLED)
    results = (Attempt(rows=1), Attempt(state=state, error="another session held a lock"), Attempt(rows=1))
    written = [(Write(kind, "feature_flags", "a row", ""), came) for kind, came in zip(kinds, results, strict=True)]
    told = outcome_of(lambda seen: checks.test_contract_rows_are_taken(written, seen))
    assert told[:2] == ("unknown", "feature_flags: a row: another session held a lock")


def test_a_lock_costs_one_wait_and_has_a_name(pg_server: PgServer, clone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was tried before a row was found locked is judged. After the first wait in vain the others are short, and
    who holds the lock is told, also of queries, and where tenants are imitated.
    """
    monkeypatch.setattr(database, "LOCK_TIMEOUT_MS", 200)
    url = pg_server.url(clone)
    with psycopg.connect(url, application_name="nightly job") as holder:
        holder.execute("select from agent_controls where company_id is null for update")
        came = write(url, may_touch_live=True)
        told = {name: outcome_of(lambda seen, judge=judge: judge(came, seen))[:2] for name, judge in JUDGES.items()}  # type: ignore[misc]
        assert [told[BUDGET][0], told[KEYS][0]] == ["pass", "pass"]
        assert told[TAKEN][0] == "unknown"
        assert re.search("agent_controls: .* of postgres .application 'nightly job', idle in tr", told[TAKEN][1])
        holder.execute("lock table event_outbox in access exclusive mode")
        asked = [(f"select {n} from public.event_outbox",) for n in range(20)]
        session = SqlSession(url)
        session.ask_ahead(asked)
        for one in asked:
            with pytest.raises(psycopg.errors.LockNotAvailable, match="nightly job"):
                session.ask(*one)
        with pytest.raises(psycopg.errors.LockNotAvailable, match="nightly job"), session.snapshot() as connection:
            connection.execute(b"select from public.event_outbox")
        with pytest.raises(psycopg.errors.LockNotAvailable, match="nightly job"):
            probe(url)
        with (
            closing(database.connect(pg_server.url(clone, "replay_gate"))) as looking,
            pytest.raises(psycopg.errors.LockNotAvailable, match="nightly job"),
        ):
            sees_all(looking, WHOLE)
        session.close()
        assert "holds locks on agent_controls, event_outbox, in a transaction since" in session.holders


def test_a_prepared_transaction_that_holds_a_lock_is_named(
    pg_server: PgServer, clone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no session, and it stays until somebody ends it by its identifier, which is told."""
    monkeypatch.setattr(database, "LOCK_TIMEOUT_MS", 200)
    url = pg_server.url(clone)
    with psycopg.connect(url, autocommit=True) as holder:
        holder.execute("begin; lock table event_outbox in access exclusive mode; prepare transaction 'left over'")
        try:
            with pytest.raises(psycopg.errors.LockNotAvailable, match="prepared transaction 'left over' holds locks"):
                probe(url)
        finally:
            holder.execute("rollback prepared 'left over'")
