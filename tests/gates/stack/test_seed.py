"""The seeded history keeps the contract: every effect has its event, and the ledgers agree."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from gates.deployment.requests import bucket
from gates.stack import rundir, seed, service
from gates.stack.account import postgres_account
from gates.stack.plan import CANARY_PERCENT, DEFAULT_COMPANY_ID
from gates.stack.postgres import Postgres, connect
from gates.stack.spawner import Spawner

DEBIAN_SERVER = Path("/usr/lib/postgresql/15/bin")
Seeded = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(scope="module", params=["embedded", "debian-15"])
def seeded(request: pytest.FixtureRequest) -> Iterator[Seeded]:
    """A seeded database that the tests of this module only read."""
    if request.param == "debian-15" and not DEBIAN_SERVER.is_dir():
        pytest.skip("no PostgreSQL 15 on this machine")
    account = postgres_account()
    with ExitStack() as stack:
        run = rundir.create(rundir.places(os.environ, account), account)
        stack.callback(run.remove)
        spawner = Spawner()
        stack.callback(spawner.close)
        programs = DEBIAN_SERVER if request.param == "debian-15" else None
        server = Postgres(run, account, spawner, "5e" * 16, programs)
        stack.callback(server.stop)
        server.create()
        url = server.start().url("postgres")
        service.migrate(run, spawner, {}, url)
        seed.write(url, DEFAULT_COMPANY_ID)
        yield stack.enter_context(connect(url))


CLAIMS = {
    "an effect without its event, or an event without its effect": """
        select count(*) from public.agent_tasks t
        full join public.event_outbox o on o.event_id = t.event_id and o.processed_at is not null
        where (o.id is null and t.status = 'completed') or (t.id is null and o.processed_at is not null)""",
    "a business row without its outbox row in the same transaction": """
        select count(*) from public.events e
        where not exists (select from public.event_outbox o where o.event_id = e.id and o.txid = e.txid)""",
    "an outbox row that is not processed or dead, or is both": """
        select count(*) from public.event_outbox
        where num_nonnulls(processed_at, dead_at) <> 1 or claimed_until is not null""",
    "a dead outbox row without its dead letter": """
        select count(*) from public.event_outbox o where dead_at is not null
        and not exists (select from public.dead_letter_queue d where d.event_id = o.event_id)""",
    "a resolved dead letter without a successful replay, or the other way round": """
        select count(*) from public.dead_letter_queue d
        full join (select * from public.event_outbox where replay_run_id is not null) o using (event_id)
        where (d.status = 'resolved') is distinct from (o.processed_at is not null)""",
    "a replay before its dead letter was there": """
        select count(*) from public.dead_letter_queue d join public.event_outbox o using (event_id)
        where o.replay_run_id is not null and o.inserted_at <= d.created_at""",
    "a run whose counts differ from its outbox rows": """
        select count(*) from public.replay_runs r
        where success_count <> (select count(*) from public.event_outbox o where o.replay_run_id = r.id)
        or target_count <> success_count + failure_count""",
    "a run whose audit rows are not exactly one of each with the same counts": """
        select count(*) from public.replay_runs r
        where (select array_agg(action order by id) from public.audit_logs a
               where a.metadata ->> 'replay_run_id' = r.id::text and a.actor = r.actor
               and (a.action = 'dlq_replay_started'
                    or (a.success_count, a.failure_count) = (r.success_count, r.failure_count)))
              is distinct from array['dlq_replay_started', 'dlq_replay_completed', 'dlq_replay']""",
    "a budget that differs from the items moved in its period": """
        select count(*) from public.replay_budgets b
        where daily_used <> (select coalesce(sum(target_count), 0) from public.replay_runs r
            where r.company_id = b.company_id and (requested_at at time zone 'UTC')::date = b.day)
        or monthly_used <> (select coalesce(sum(target_count), 0) from public.replay_runs r
            where r.company_id = b.company_id
            and date_trunc('month', requested_at at time zone 'UTC')::date = b.month)""",
    "more than three admitted calls of one caller in five minutes": """
        select count(*) from (
            select count(*) over (partition by actor order by created_at
                range between interval '5 minutes' preceding and current row) as calls
            from public.audit_logs where action in ('dlq_replay_started', 'dlq_replay_dry_run')) w
        where calls > 3""",
    "a delivery out of the order of its key": """
        select count(*) from (
            select processed_at < lag(processed_at) over (partition by aggregate_key order by id) as late
            from public.event_outbox where aggregate_key is not null and processed_at is not null) w
        where late""",
    "anything that happens in the future": """
        select (select count(*) from public.event_outbox where greatest(inserted_at, processed_at, dead_at) > now())
             + (select count(*) from public.agent_tasks where greatest(created_at, updated_at) > now())
             + (select count(*) from public.audit_logs where created_at > now())
             + (select count(*) from public.dead_letter_queue where greatest(created_at, retry_after) > now())""",
    "audit rows out of the order of time": """
        select count(*) from (select created_at < lag(created_at) over (order by id) as late from public.audit_logs) w
        where late""",
    "tables without rows": """
        select count(*) from unnest(array[
            (select count(*) from public.events), (select count(*) from public.event_outbox), (select
              count(*) from public.replay_runs),
            (select count(*) from public.audit_logs), (select count(*) from public.agent_tasks),
            (select count(*) from public.replay_budgets), (select count(*) from public.edge_rate_limits),
            (select count(*) from public.dead_letter_queue),
            (select count(*) from public.agent_controls), (select count(*) from public.feature_flags)])
              as n where n = 0""",
}


def test_the_history_keeps_every_ledger(seeded: Seeded) -> None:
    """No row of the seeded history breaks a rule of the contract."""
    found = {claim: seeded.execute(query.encode()).fetchone() for claim, query in CLAIMS.items()}
    assert found == dict.fromkeys(CLAIMS, (0,))


def test_every_alert_has_samples_and_is_quiet(seeded: Seeded) -> None:
    """Each window has enough healthy samples, also four minutes later."""
    row = seeded.execute(
        """
        with late as (select now() + interval '4 minutes' as now)
        select
            (select count(*) from public.event_outbox, late where processed_at > late.now - interval '10 minutes'),
            (select max(processed_at - inserted_at) < interval '1 second' from public.event_outbox),
            (select count(*) from public.agent_tasks, late where updated_at > late.now - interval '10 minutes'),
            (select sum(target_count) from public.replay_runs where requested_at > now() - interval '5 minutes'),
            (select sum(failure_count) from public.replay_runs where requested_at > now() - interval '1 hour'),
            (select count(*) from public.replay_runs where requested_at > now() - interval '1 day'),
            (select count(*) from public.dead_letter_queue where status = 'pending'),
            (select count(*) from public.dead_letter_queue where created_at > now() - interval '10 minutes'),
            (select sum((metadata ->> 'count')::int) from public.audit_logs
             where action = 'dlq_replay_refused' and created_at > now() - interval '5 minutes')
        """
    ).fetchone()
    assert row is not None
    lagged, quick, tasks, moved, failed, runs, pending, fresh, refused = row
    assert isinstance(lagged, int)
    assert isinstance(tasks, int)
    assert isinstance(runs, int)
    assert lagged >= 300
    assert quick is True
    assert tasks >= 300
    assert (moved, failed) == (28, 0)
    assert runs >= 299
    assert (pending, fresh, refused) == (4, 2, 1)


def test_the_flags_are_those_of_the_contract(seeded: Seeded) -> None:
    """outbox.enabled at 10 %, replay and budgets at 100 %, v2 not required; our company is in the canary."""
    rows = seeded.execute(
        "select key, enabled, rollout_percentage, public.is_feature_enabled(key, %s::uuid) from public.feature_flags"
        " where company_id is null order by key",
        (DEFAULT_COMPANY_ID,),
    ).fetchall()
    assert rows == [
        ("dlq.replay.budget_control", True, 100, True),
        ("dlq.replay.enabled", True, 100, True),
        ("outbox.enabled", True, 10, True),
        ("security.signing_v2_required", False, 0, False),
    ]
    assert bucket("outbox.enabled", DEFAULT_COMPANY_ID) < CANARY_PERCENT


def test_the_audit_chain_verifies(seeded: Seeded) -> None:
    """The seeded rows are chained by the schema, from 64 zeros to the head."""
    rows = seeded.execute(
        "select prev_hash, hash, jsonb_build_array(id, action, actor, scope, target_count, success_count,"
        " failure_count, metadata, request_id, (extract(epoch from created_at) * 1000000)::bigint)::text"
        " from public.audit_logs where scope = %s order by id",
        (DEFAULT_COMPANY_ID,),
    ).fetchall()
    before = "0" * 64
    for prev_hash, found, text in rows:
        assert prev_hash == before
        before = hashlib.sha256(f"{before}{text}".encode()).hexdigest()
        assert found == before
    head = seeded.execute("select last_hash, row_count from public.audit_heads where scope = %s", (DEFAULT_COMPANY_ID,))
    assert head.fetchone() == (before, len(rows))


def test_two_seeds_differ_only_by_their_moment(seeded: Seeded) -> None:
    """Ids are the same in every stack, so their digest is a constant."""
    row = seeded.execute("select string_agg(event_id::text, ',' order by id) from public.event_outbox").fetchone()
    assert row is not None
    assert hashlib.sha256(str(row[0]).encode()).hexdigest()[:16] == "453828057d322956"
