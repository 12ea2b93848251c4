"""The SQL side of a run on a migrated database: its companies, the backlog, dead letters, what became of events."""

import itertools
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gates.deployment.sql.database import Connection, execute, sql
from loadtests.engine import database
from loadtests.engine.samples import Samples
from loadtests.engine.sinks import CounterSink, RateSink
from loadtests.engine.written import Acknowledged
from loadtests.judgement.trend import LEAST_VALUES
from loadtests.plan import LoadPlan, Tenant
from loadtests.thresholds.language import MetricKey
from tests.loadtests.load_database import PLAN, a_company, set_flag
from tests.sources import ROOT


def add_event(db: Connection, company: str, key: str | None = None, **columns: object) -> str:
    """An outbox row, 5 s old; extra columns are SQL expressions."""
    event = str(uuid.uuid4())
    values = {"inserted_at": "now() - interval '5 s'", **columns}
    execute(
        db,
        "insert into public.event_outbox (event_id, company_id, event_type, aggregate_key,"
        f" payload, {', '.join(values)})"
        f" values (%s, %s, 'load.canary', %s, '{{}}', {', '.join(str(v) for v in values.values())})",
        event,
        company,
        key,
    )
    return event


def look(db: Connection) -> tuple[int, float]:
    """Backlog and the age in seconds of the most overdue event."""
    row = execute(db, sql(Path(database.__file__).parent / "sql" / "backlog.sql"))[0]
    return int(str(row["backlog"])), float(str(row["oldest_ms"])) / 1000.0


def test_companies_are_made_with_dead_letters_and_removed(db: Connection, migrated_url: str) -> None:
    """As many as wanted, with flags on and items to replay; nothing of them stays."""
    prepared = database.prepare(migrated_url, PLAN)
    assert len(prepared.tenants) == len(prepared.created) == 3
    assert prepared.absent == {}
    assert all(len(tenant.items) == database.ITEMS_EACH and tenant.replays for tenant in prepared.tenants)
    names = execute(db, "select name from public.companies where id = any(%s::uuid[])", list(prepared.created))
    assert all(str(row["name"]).startswith("drill-load-t1-") for row in names)
    database.clean_up(migrated_url, prepared.created)
    left = execute(db, "select from public.companies where id = any(%s::uuid[])", list(prepared.created))
    items = execute(
        db, "select from public.dead_letter_queue where company_id = any(%s::uuid[])", list(prepared.created)
    )
    assert left == items == []


def test_a_company_is_noted_before_it_exists(db: Connection, migrated_url: str) -> None:
    """A run that is killed while it makes its companies has left the names of what to remove."""
    there: list[bool] = []
    noted: list[str] = []

    def note(company: str) -> None:
        there.append(bool(execute(db, "select from public.companies where id = %s", company)))
        noted.append(company)

    prepared = database.prepare(migrated_url, PLAN, note)
    assert there == [False, False, False]
    assert noted == list(prepared.created)


def test_companies_that_stay_keep_only_what_the_target_did(db: Connection, migrated_url: str) -> None:
    """What nobody replayed is gone; what came back from a replay, and what the target made dead itself, stays."""
    prepared = database.prepare(migrated_url, PLAN)
    returned, company = prepared.tenants[0].items[0], prepared.tenants[1].id
    execute(db, "update public.dead_letter_queue set retry_count = 1 where id = %s", returned)
    execute(
        db,
        "insert into public.dead_letter_queue (company_id, event_type, payload, error_type)"
        " values (%s, 'load.canary', '{}', 'agent')",
        company,
    )
    database.settle(migrated_url, prepared.created)
    left = execute(
        db, "select company_id::text as c, event_type as t from public.dead_letter_queue order by event_type"
    )
    assert [(r["c"], r["t"]) for r in left] == [(company, "load.canary"), (prepared.tenants[0].id, database.ITEM_TYPE)]


def test_companies_are_chosen_inside_a_canary_of_ten_percent(db: Connection, migrated_url: str) -> None:
    """A drill examines the canary: every company of the run has the outbox on."""
    set_flag(db, "outbox.enabled", 10)
    assert len(database.prepare(migrated_url, PLAN).tenants) == 3


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("update public.feature_flags set enabled = false where key = 'outbox.enabled'", "on for no new company"),
        ("update public.agent_controls set agents_paused = true where company_id is null", "paused for everybody"),
    ],
)
def test_what_an_operator_switched_off_is_absent_and_not_late(
    spoil: str, words: str, db: Connection, migrated_url: str
) -> None:
    """Held events are not late ones: the lag cannot be measured, and nobody is rolled back."""
    execute(db, spoil)
    prepared = database.prepare(migrated_url, PLAN)
    assert prepared.tenants == ()
    assert words in prepared.absent["outbox_lag_ms"]


def test_replays_are_left_out_where_their_flag_is_off(db: Connection, migrated_url: str) -> None:
    """Events can be measured without replays; calls that must be refused are not made."""
    execute(db, "update public.feature_flags set enabled = false where key = 'dlq.replay.enabled'")
    prepared = database.prepare(migrated_url, PLAN)
    assert [tenant.replays for tenant in prepared.tenants] == [False] * 3


def test_an_event_that_is_due_and_waits_is_backlog_and_overdue(db: Connection) -> None:
    """Neither done nor dead nor held: it counts, with the time since it was due."""
    company = a_company(db)
    add_event(db, company, next_attempt_at="now() - interval '5 s'")
    add_event(db, company, processed_at="now()")
    add_event(db, company, dead_at="now()")
    backlog, age_s = look(db)
    assert backlog == 1
    assert 5 <= age_s < 10


def test_a_claimed_or_backing_off_event_waits_without_being_overdue(db: Connection) -> None:
    """A worker has it, or it is not due yet: backlog, but no sign of a worker that does not come."""
    company = a_company(db)
    add_event(db, company, claimed_until="now() + interval '1 minute'")
    add_event(db, company, next_attempt_at="now() + interval '1 minute'")
    assert look(db) == (2, 0.0)


def test_an_event_behind_another_of_its_key_is_not_overdue_itself(db: Connection) -> None:
    """Order within a key is kept: what waits behind a backing-off event waits rightly."""
    company = a_company(db)
    add_event(db, company, "k", next_attempt_at="now() + interval '1 minute'")
    add_event(db, company, "k")
    assert look(db) == (2, 0.0)


def test_held_events_are_no_backlog(db: Connection) -> None:
    """Switched off or paused, for one company or for all."""
    off, paused = a_company(db), a_company(db)
    set_flag(db, "outbox.enabled", 0, off)
    execute(db, "insert into public.agent_controls (company_id, agents_paused) values (%s, true)", paused)
    add_event(db, off)
    add_event(db, paused)
    assert look(db) == (0, 0.0)


def test_the_change_of_dead_letters_leaves_out_what_the_gate_made(
    db: Connection, migrated_url: str, tmp_path: Path
) -> None:
    """Two new dead letters in the run are two, whatever lay there before, whatever the run seeded and whatever drills
    beside it make.
    """
    company, drilled = a_company(db), a_company(db)
    insert = (
        "insert into public.dead_letter_queue (company_id, event_type, payload, error_type) values (%s, 'x', '{}', 'x')"
        " returning id::text"
    )
    seeded = str(execute(db, insert, company)[0]["id"])
    execute(db, insert, company)
    listing = tmp_path / "companies.txt"
    plan = LoadPlan("http://127.0.0.1:1", tenants=(Tenant(company, (seeded,)),), drilled=str(listing))
    watch = database.BacklogPoller(migrated_url, plan, samples := Samples())
    watch.start()
    execute(db, insert, company)
    execute(db, insert, company)
    listing.write_text(f"{drilled}\n", encoding="utf-8")
    execute(db, insert, drilled)
    watch.finish(Acknowledged(), {})
    assert watch.error == ""
    count = samples.select(MetricKey("dlq_items_count"))
    assert getattr(count, "total", None) == 2
    assert getattr(samples.select(MetricKey("dlq_items")), "value", None) == 3


def test_an_event_called_processed_without_a_completed_task_is_a_failure(
    db: Connection, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Succeeded, failed, lost and still open events are told apart."""
    company = a_company(db)
    task = "insert into public.agent_tasks (company_id, agent_name, event_id, status) values (%s, 'a', %s, %s)"
    execute(db, task, company, add_event(db, company, processed_at="now()"), "completed")
    execute(db, task, company, add_event(db, company), "failed")
    add_event(db, company, processed_at="now()")
    add_event(db, company, dead_at="now()")
    add_event(db, company)
    monkeypatch.setattr(database, "DRAIN_S", 0.3)
    samples = Samples()
    watch = database.BacklogPoller(migrated_url, LoadPlan("http://127.0.0.1:1", tenants=(Tenant(company),)), samples)
    watch.start()
    assert watch.finish(Acknowledged(), {}) == {"succeeded": 1, "failed": 3, "open": 1}
    assert samples.select(MetricKey("outbox_drained")) == RateSink(4, 5)


def test_events_that_come_to_an_end_after_the_load_are_waited_for(
    db: Connection, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow worker has its time; the wait ends with the last event."""
    company = a_company(db)
    add_event(db, company)
    watch = database.BacklogPoller(
        migrated_url, LoadPlan("http://127.0.0.1:1", tenants=(Tenant(company),)), samples := Samples()
    )
    watch.start()
    real = watch._fate
    monkeypatch.setattr(
        watch, "_fate", lambda: [real(), execute(db, "update public.event_outbox set dead_at = now()")][0]
    )
    assert watch.finish(Acknowledged(), {}) == {"succeeded": 0, "failed": 1, "open": 0}
    assert samples.select(MetricKey("outbox_drained")) == RateSink(1, 1)


@pytest.mark.parametrize(
    ("at_once", "each", "is_used", "is_leak"), [(0, 1, False, True), (12, 0, False, False), (0, 1, True, False)]
)
def test_connections_that_grow_through_the_run_are_counted(
    at_once: int, each: int, is_used: bool, is_leak: bool, db: Connection, migrated_url: str
) -> None:
    """A leak of one connection a look grows in every part of the run; a pool that is filled at once does not, nor is
    one that grows with the load and is used from then on a leak.
    """
    watch = database.BacklogPoller(migrated_url, PLAN, samples := Samples())
    held = [connect_as_service(migrated_url) for _ in range(at_once)]
    for _ in range(18):
        watch.poll()
        held += [connect_as_service(migrated_url) for _ in range(each)]
        for one in held if is_used else ():
            one.execute("select 1")
    watch.finish(Acknowledged(), {})
    for one in held:
        one.close()
    growth = samples.select(MetricKey("db_connections_growth"))
    assert isinstance(growth, CounterSink)
    assert (growth.total >= 10) is is_leak


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("update public.feature_flags set rollout_percentage = 5 where key = 'outbox.enabled'", "from 10 % to 5 %"),
        ("update public.feature_flags set enabled = false where key = 'dlq.replay.enabled'", "from 100 % to 0 %"),
        ("update public.agent_controls set agents_paused = true where company_id is null", "agents were paused"),
        ("update public.feature_flags set rollout_percentage = 50 where key = 'outbox.enabled'", ""),
    ],
)
def test_what_an_operator_switches_off_is_noted(change: str, said: str, db: Connection, migrated_url: str) -> None:
    """What is refused from then on is no failure of the release; more of a flag refuses nobody."""
    for key, percent in (("outbox.enabled", 10), ("dlq.replay.enabled", 100)):
        execute(db, "delete from public.feature_flags where key = %s", key)
        execute(
            db,
            "insert into public.feature_flags (key, enabled, rollout_percentage) values (%s, true, %s)",
            key,
            percent,
        )
    watch = database.BacklogPoller(migrated_url, PLAN, Samples())
    watch.poll()
    execute(db, change)
    watch.finish(Acknowledged(), {})
    assert said in watch.switched
    assert bool(watch.switched) is bool(said)


def test_a_company_whose_replays_all_fail_is_named(db: Connection, migrated_url: str) -> None:
    """Three of three, while others' succeed, and though it may replay; without a success there is no control. Where
    others' replays fail at random, such a company may be chance, which rolls nothing back.
    """
    for key in ("outbox.enabled", "dlq.replay.enabled"):
        execute(db, "delete from public.feature_flags where key = %s", key)
        execute(db, "insert into public.feature_flags (key, enabled, rollout_percentage) values (%s, true, 100)", key)
    failing, off, once, fine, other = (a_company(db) for _ in range(5))
    execute(
        db, "insert into public.feature_flags (key, company_id, enabled) values ('dlq.replay.enabled', %s, false)", off
    )
    fared = {failing: (0, 3), off: (0, 3), once: (0, 1), fine: (3, 0), other: (3, 0)}
    many = {failing: (0, 3)} | {f"company {n}": (3, 0) for n in range(900)}
    random = many | {f"unlucky {n}": (1, 2) for n in range(60)}
    told = [(fared | {"x": (1, 0)}, 1.0), ({failing: (0, 3)}, None), (fared | {other: (1, 2)}, None)]
    for replays, count in (*told, (many, 1.0), (random, None)):
        watch = database.BacklogPoller(migrated_url, PLAN, samples := Samples())
        watch.poll()
        watch.finish(Acknowledged(), replays)
        sink = samples.select(MetricKey("companies_failing"))
        assert isinstance(sink, CounterSink)
        assert (sink.total if sink.samples else None) == count
        assert [failing in note for note in watch.notes] == [True] * (count is not None)


def connect_as_service(url: str) -> psycopg.Connection:
    return psycopg.connect(url, application_name="service", autocommit=True)


@pytest.mark.parametrize("refused", [{1}, {1, 2}, {3, 4}, {2}, set()], ids=str)
def test_dead_letters_are_counted_from_before_the_load_to_after_it(
    refused: set[int], migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four polls the first and the last must answer: a later baseline, or an earlier count, hides some."""
    watch = database.BacklogPoller(migrated_url, PLAN, samples := Samples())
    polls, real = itertools.count(1), execute

    def at_times(connection: Connection, text: Any, *values: Any) -> list[dict[str, Any]]:
        if text == sql(database.FOLDER / "backlog.sql") and next(polls) in refused:
            raise psycopg.errors.QueryCanceled("too slow")
        return real(connection, text, *values)

    monkeypatch.setattr(database, "execute", at_times)
    for _ in range(3):
        watch.poll()
    watch.finish(Acknowledged(), {})
    assert watch.error == ""
    assert (not samples.select(MetricKey("dlq_items_count")).samples) is bool({1, 4} & refused)


@pytest.mark.parametrize("polls", [1, LEAST_VALUES])
def test_too_few_polls_are_no_growth_of_zero(polls: int, migrated_url: str) -> None:
    """A database that answers seldom leaves the growth of connections unmeasured, and it is said why."""
    watch = database.BacklogPoller(migrated_url, PLAN, samples := Samples())
    for _ in range(polls - 1):  # one more at the end
        watch.poll()
    watch.finish(Acknowledged(), {})
    assert bool(watch.too_few) is (polls < LEAST_VALUES)
    assert (not samples.select(MetricKey("db_connections_growth")).samples) is (polls < LEAST_VALUES)


def test_the_load_goes_on_while_the_database_is_asked() -> None:
    """In the load process psycopg waits with the event loop: a far database would hold the schedule up."""
    asks = "import loadtests.__main__; from psycopg import waiting; assert waiting.wait is not waiting.wait_c"
    subprocess.run([sys.executable, "-c", asks], cwd=ROOT, check=True, timeout=60)
