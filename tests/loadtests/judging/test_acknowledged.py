"""What the service acknowledged is looked up in the database; what the login cannot see is not lost."""

import uuid
from typing import Any

import psycopg
import pytest

from gates.deployment.sql.database import Connection, execute, sql
from loadtests.engine import database
from loadtests.engine.samples import Samples
from loadtests.engine.sinks import CounterSink
from loadtests.engine.written import EVENT, LOST, RUN, Acknowledged, Acknowledgement
from loadtests.judgement.trend import leak_of
from loadtests.thresholds.language import MetricKey
from tests.loadtests.load_database import PLAN, a_company

N = 42

POOLS: dict[str, tuple[list[float], list[float], bool]] = {
    "leak": ([10.0 + i // 2 for i in range(N)], [i / 2 for i in range(N)], True),
    "leak of a few requests": ([10.0 + i // 4 for i in range(N + 20)], [i / 4 for i in range(N + 20)], True),
    "pools of three that shrink late": ([6.0] * 3 + [36.0] * (N - 3), [2.0 + 0.6 * i for i in range(N)], False),
    "one to three instances": (
        [10.0 + 10 * (3 * i // N) for i in range(N)], [5.0 + 10 * (3 * i // N) for i in range(N)], False,
    ),
    "one to four instances": ([10.0 + 10 * (4 * i // N) for i in range(N)], [float(i) for i in range(N)], False),
}  # fmt: skip


@pytest.mark.parametrize("kind", POOLS)
def test_a_pool_that_falls_idle_or_a_new_one_is_no_leak(kind: str) -> None:
    """A leak opens sessions in all parts of a run; a pool opens its own at once, and is unused when the load falls."""
    sessions, unused, is_leak = POOLS[kind]
    assert (leak_of(sessions, unused) >= 10) is is_leak


def looked_for(url: str, *acknowledged: Acknowledgement) -> tuple[database.BacklogPoller, Samples]:
    """A finished load with these acknowledged ids."""
    watch, found = database.BacklogPoller(url, PLAN, samples := Samples()), Acknowledged()
    found.take(list(acknowledged))
    watch.poll()
    watch.finish(found, {})
    return watch, samples


@pytest.mark.parametrize("kind", LOST)
def test_what_was_acknowledged_is_looked_for(kind: str, db: Connection, migrated_url: str) -> None:
    """Missing ids are named; repeated acknowledgements count once."""
    company, kept, lost = a_company(db), str(uuid.uuid4()), str(uuid.uuid4())
    written = {
        EVENT: "insert into public.events (company_id, id, event_type, aggregate_key, payload, path)"
        " values (%s, %s, 'load.canary', 'k', '{}', 'direct')",
        RUN: "insert into public.replay_runs (company_id, idempotency_key) values (%s, %s)",
    }
    execute(db, written[kind], company, kept)
    watch, samples = looked_for(
        migrated_url, Acknowledgement(kind, kept), Acknowledgement(kind, kept), Acknowledgement(kind, lost)
    )
    sink = samples.select(MetricKey(LOST[kind]))
    assert isinstance(sink, CounterSink)
    assert sink.total == 1
    assert watch.notes == [f"{LOST[kind]}: {kind} {lost} was acknowledged and is not in the database"]
    (other,) = {EVENT, RUN} - {kind}
    assert watch.unread[LOST[other]] == f"no {other} was acknowledged for a company of this run"


def test_an_event_that_nothing_will_deliver_is_lost(db: Connection, migrated_url: str) -> None:
    """A business row alone is no event: of the outbox's path it needs a row there, or a trace of its delivery."""
    company, *events = a_company(db), *(str(uuid.uuid4()) for _ in range(3))
    insert = (
        "insert into public.events (company_id, id, event_type, aggregate_key, payload, path)"
        " values (%s, %s, 'load.canary', 'k', '{}', %s)"
    )
    for event, path in zip(events, ("outbox", "outbox", "direct"), strict=True):
        execute(db, insert, company, event, path)
    queued = "insert into public.event_outbox (company_id, event_id, event_type, payload) values (%s, %s, 'x', '{}')"
    execute(db, queued, company, events[0])
    watch, samples = looked_for(migrated_url, *(Acknowledgement(EVENT, one) for one in events))
    assert samples.select(MetricKey("events_lost")) == CounterSink(1.0, 1)
    assert watch.notes == [
        f"events_lost: event {events[1]} was acknowledged and is not in the outbox, nor has a task or a dead letter"
    ]


def test_what_has_not_come_to_a_standby_is_not_lost(
    db: Connection, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that lags may lack rows that exist."""
    monkeypatch.setattr(database, "sql", lambda path: sql(path).replace("pg_is_in_recovery()", "true"))
    execute(db, "insert into public.replay_runs (company_id, idempotency_key) values (%s, 'came')", a_company(db))
    watch, samples = looked_for(migrated_url, Acknowledgement(RUN, "came"), Acknowledgement(RUN, "late"))
    assert watch.unread[LOST[RUN]] == "this is a standby that may be behind: 1 of 2 runs are not there yet"
    assert not samples.select(MetricKey(LOST[RUN])).samples


def test_what_may_not_be_read_is_not_lost(db: Connection, migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused query leaves only its own metric unmeasured."""
    real = execute

    def refused(connection: Connection, text: Any, *values: Any) -> list[dict[str, Any]]:
        if text == sql(database.FOLDER / "events_lost.sql"):
            raise psycopg.errors.InsufficientPrivilege("permission denied for table events")
        return real(connection, text, *values)

    monkeypatch.setattr(database, "execute", refused)
    execute(db, "insert into public.replay_runs (company_id, idempotency_key) values (%s, 'a key')", a_company(db))
    lost = Acknowledgement(EVENT, str(uuid.uuid4()))
    watch, samples = looked_for(migrated_url, lost, Acknowledgement(RUN, "a key"))
    assert watch.error == ""
    assert "permission denied" in watch.unread["events_lost"]
    assert samples.select(MetricKey("runs_lost")) == CounterSink(0.0, 1)


@pytest.mark.parametrize("kind", LOST)
def test_a_login_that_sees_no_row_takes_nothing_for_lost(kind: str, migrated_url: str) -> None:
    """If the login sees no row at all, row security may hide them."""
    watch, samples = looked_for(
        migrated_url, Acknowledgement(kind, str(uuid.uuid4())), Acknowledgement(kind, str(uuid.uuid4()))
    )
    assert watch.unread[LOST[kind]] == f"no row of the 2 {kind}s that were acknowledged is seen by this login"
    assert not samples.select(MetricKey(LOST[kind])).samples


def test_a_database_that_is_gone_leaves_the_metrics_unmeasured(migrated_url: str) -> None:
    """No connection is an error, not an empty dead-letter queue."""
    nowhere = psycopg.conninfo.make_conninfo(migrated_url, port=1)
    watch = database.BacklogPoller(nowhere, PLAN, samples := Samples())
    for _ in range(database.MOST_REFUSED):
        watch.poll()
    watch.finish(Acknowledged(), {})
    assert "refused" in watch.error
    assert not samples.select(MetricKey("dlq_items_count")).samples
