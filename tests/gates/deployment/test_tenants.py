"""Drill tenants are removed completely, whatever the deployment does meanwhile."""

import threading
import time
from collections.abc import Sequence

import psycopg
import pytest

from gates.contract.names import names_of
from gates.deployment.dialect.current import use
from gates.deployment.ids import id_of
from gates.deployment.requests import bucket
from gates.deployment.sql.database import session, value
from gates.deployment.sql.failures import in_words
from gates.deployment.tenants.tenants import OUTBOX_FLAG, REMOVAL_PAUSE_S, Tenants, in_rollouts
from tests.waiting import until

WORKERS = 6
WAITING = "select count(*) from pg_locks where not granted"
RUN = "insert into public.replay_runs (idempotency_key, company_id) values ('k', %s) returning id"
ROW = "insert into public.event_outbox (company_id, event_type, payload, replay_run_id) values (%s, 'x', '{}', %s)"


def test_tables_that_the_contract_does_not_know_are_cleaned_where_they_are_named(migrated_url: str) -> None:
    """Otherwise the tenant stays, and the message names the table and what to write in gate.yaml."""
    with session(migrated_url) as connection:
        connection.execute("create table public.allowance (merchant uuid references public.companies (id), n int)")
        tenants = Tenants(connection, "t")
        company = tenants.create()
        connection.execute("insert into public.allowance values (%s, 1)", (company,))
        with pytest.raises(psycopg.errors.ForeignKeyViolation) as raised:
            tenants.remove([company])
        assert "allowance" in in_words(raised.value)
        assert "names: {own_tables: {SCHEMA.TABLE: COLUMN}}" in in_words(raised.value)
        use(names_of({"own_tables": {"allowance": "merchant"}}))
        tenants.remove([company])
        assert value(connection, "select count(*) from public.companies where id = %s", company) == 0


def test_no_candidate_is_drawn_after_one_that_will_do(migrated_url: str) -> None:
    """The search for a tenant in a rollout ends at the first match: each try costs two digests."""
    names = ((f"drill-{n}", id_of(f"drill-{n}")) for n in range(100_000))
    with session(migrated_url) as connection:
        name, company = in_rollouts(names, {OUTBOX_FLAG: 10}, connection)
    drawn = [id_of(f"drill-{n}") for n in range(int(next(names)[0].removeprefix("drill-")))]
    assert (name, company) == (f"drill-{len(drawn) - 1}", drawn[-1])
    assert [one for one in drawn if bucket(OUTBOX_FLAG, one) < 10] == [company]


def test_letters_of_a_later_call_are_younger_where_times_are_whole_seconds(migrated_url: str) -> None:
    """A deployment that keeps no parts of a second has them in the order in which they were added."""
    with session(migrated_url) as connection:
        connection.execute("alter table public.dead_letter_queue alter created_at type timestamptz(0)")
        tenants = Tenants(connection, "t")
        company = tenants.create()
        added = [one for count in (1, 2, 1) for one in tenants.add_items(company, count)]
        kept = "select array_agg(id::text order by created_at) from public.dead_letter_queue where company_id = %s"
        times = "select count(distinct created_at) from public.dead_letter_queue where company_id = %s"
        assert value(connection, kept, company) == added
        assert value(connection, times, company) == len(added)
        tenants.remove([company])


def _until_waiting(url: str, count: int) -> None:
    with session(url) as connection:
        until(lambda: int(str(value(connection, WAITING))) >= count, what=f"{count} sessions that wait for a lock")


def _settle(url: str, company: str, tables: Sequence[str], done: threading.Event, ends: list[psycopg.Error]) -> None:
    """Locks the tenant's rows of one table and then of the other, again and again, like a worker."""
    with psycopg.connect(url) as connection:
        while not done.is_set():
            try:
                with connection.transaction():
                    for table in tables:
                        locked = f"select 1 from public.{table} where company_id = %s for update"
                        connection.execute(locked.encode(), (company,))
                        connection.execute("select pg_sleep(0.05)")
            except psycopg.errors.DeadlockDetected as error:
                ends.append(error)


@pytest.mark.waits(3)
@pytest.mark.parametrize("tables", [("replay_runs", "event_outbox"), ("event_outbox", "replay_runs")], ids=" ".join)
def test_whatever_a_worker_locks_first_it_meets_no_deadlock(migrated_url: str, tables: tuple[str, str]) -> None:
    """The removal waits for a worker only while it holds nothing itself: else the worker's batch may be the victim."""
    done, ends = threading.Event(), list[psycopg.Error]()
    deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
    with session(migrated_url) as connection:
        tenants = Tenants(connection, "t")
        company = tenants.create()
        connection.execute(ROW, (company, value(connection, RUN, company)))
        told = (migrated_url, company, tables, done, ends)
        threads = [threading.Thread(target=_settle, args=told) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        try:
            _until_waiting(migrated_url, WORKERS - 1)
            tenants.remove([company])
        finally:
            done.set()
            for thread in threads:
                thread.join(20)
        assert value(connection, "select count(*) from public.companies where id = %s", company) == 0
        assert not ends
        with session(migrated_url) as later:
            assert value(later, deadlocks) == 0


def test_a_batch_that_is_delivered_meanwhile_is_waited_for(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that still writes rows does not end the removal: it tries again after longer pauses."""
    with session(migrated_url) as connection:
        tenants = Tenants(connection, "t")
        company = tenants.create()
        remove, refused = tenants._remove, [psycopg.errors.ForeignKeyViolation() for _ in range(4)]

        def late(ids: Sequence[str], *, runs_first: bool) -> None:
            if refused:
                raise refused.pop()
            remove(ids, runs_first=runs_first)

        monkeypatch.setattr(tenants, "_remove", late)
        began = time.monotonic()
        tenants.remove([company])
        assert time.monotonic() - began >= 10 * REMOVAL_PAUSE_S
        assert value(connection, "select count(*) from public.companies where id = %s", company) == 0


def test_a_call_that_is_counted_after_its_tenant_is_gone_is_swept(migrated_url: str) -> None:
    """A request that outlives a proxy's patience leaves a row of the rate limit, which no company owns."""
    with session(migrated_url) as connection:
        tenants = Tenants(connection, "t")
        company = tenants.create()
        tenants.remove()
        late = "insert into public.edge_rate_limits (key, hits) values (%s, array[now()]) returning key"
        assert value(connection, late, f"replay:{company}:127.0.0.1")
        assert tenants.sweep() == 1
        assert value(connection, "select count(*) from public.edge_rate_limits") == 0
        assert tenants.sweep() == 0
