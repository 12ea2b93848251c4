"""Queues by their schemas: healthy rows fail nothing, and broken rows fail exactly the check that names them."""

import dataclasses
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gates.contract.queues import Queue, QueueOptions, presets
from gates.deployment.queue.jobs import DONE, LOST, QueueDoor
from gates.deployment.queue.schema import look_at
from gates.deployment.sql.database import Connection, connect, script
from gates.evidence import Outcome
from gates.text.own_data import data_of
from sql_checks.rules import queues as rules_of_queues
from sql_checks.rules.file import AlertRule
from sql_checks.rules.judge import judge_proved
from sql_checks.rules.queues import QueueSession, read_queue_rules, rules_of
from sql_checks.rules.run import Measurement, measure
from sql_checks.sqlsession import SqlSession
from tests.postgres_fixture import PgServer
from tests.sql_checks.conftest import outcome_of

SCHEMAS = Path(__file__).parent / "schemas"
PREFIXES = {"pgmq": "mail"}
NAMES = re.compile(r"[a-z-]+")


@pytest.fixture(scope="module", params=sorted(p.stem for p in SCHEMAS.glob("*.sql")))
def bare(request: pytest.FixtureRequest, pg_server: PgServer) -> Iterator[tuple[str, Connection]]:
    """A preset, and a connection to a database with its empty tables."""
    with pg_server.database() as name:
        with psycopg.connect(pg_server.url(name)) as connection:
            connection.execute((SCHEMAS / f"{request.param}.sql").read_bytes())
        with connect(pg_server.url(name), autocommit=False) as looking:
            yield request.param, looking


def outcomes(
    preset: str,
    connection: Connection,
    given: str = "",
    options: QueueOptions | None = None,
    only: Collection[str] = (),
) -> dict[str, tuple[Outcome, str]]:
    """The outcomes of all or some checks for the rows, in a transaction that is rolled back."""
    queue = Queue(presets()[preset], options or QueueOptions(prefix=PREFIXES.get(preset, "")))
    with connection.transaction(force_rollback=True):
        connection.execute("set local search_path = public")
        script(connection, given)
        connection.execute("set local search_path = pg_catalog")
        look = look_at(queue, connection)
        assert look.trouble == ""
        found = {}
        for rule in rules_of(queue, look.schema):
            if only and rule.name not in only:
                continue
            measured = measure(rule, connection)
            judged = judge_proved(rule, measured.samples, measured.now)
            found[rule.name] = (judged.outcome, judged.message)
        return found


def test_an_empty_queue_fails_nothing(bare: tuple[str, Connection]) -> None:
    """On empty tables no check fails."""
    found = outcomes(*bare)
    assert {name: said for name, (outcome, said) in found.items() if outcome is Outcome.FAIL} == {}


def test_rows_fail_what_names_them_and_nothing_else(bare: tuple[str, Connection]) -> None:
    """Every case of the preset in cases.yaml, in turn."""
    preset, connection = bare
    cases: list[dict[str, Any]] = data_of(SCHEMAS / "cases.yaml")[preset]
    for number, case in enumerate(cases):
        (wanted, given), *more = case.items()
        said = {"says": "", "options": {}} | dict(more)
        fails, _, passes = wanted.removeprefix("fails ").partition("passes")
        found = outcomes(preset, connection, given, QueueOptions(prefix=PREFIXES.get(preset, ""), **said["options"]))
        failed = {name for name, (outcome, _) in found.items() if outcome is Outcome.FAIL}
        assert (number, failed) == (number, set(NAMES.findall(fails))), found
        assert all(said["says"] in found[name][1] for name in failed), found
        passed = {name for name, (outcome, _) in found.items() if outcome is Outcome.PASS}
        assert (number, set(NAMES.findall(passes)) - passed) == (number, set()), found


SUCCESS = """
insert into pgmq.a_mail (msg_id, vt, message, archived_at) values (1, now(), '{}', now() - interval '9 days')"""


def test_where_success_deletes_the_rows_the_failures_are_no_share_of_the_jobs(pg_server: PgServer) -> None:
    """There a deleted job is done, and standstill and due times are not judged, until a success is kept."""
    queue = Queue(presets()["pgmq"], QueueOptions(prefix="mail"))
    with pg_server.database() as name, connect(pg_server.url(name), autocommit=True) as connection:
        script(connection, (SCHEMAS / "pgmq.sql").read_text(encoding="utf-8"))
        script(connection, "insert into pgmq.q_mail (vt, message) select now(), '{}' from generate_series(1, 20)")
        script(connection, "select pg_stat_force_next_flush()")
        assert not look_at(queue, connection).schema.forgets, "nothing was deleted"
        with QueueDoor(queue, pg_server.url(name)) as before:
            assert before.look(["99"])[0].state == LOST
        script(connection, "delete from pgmq.q_mail where msg_id <= 10; select pg_stat_force_next_flush()")
        schema = look_at(queue, connection).schema
        assert schema.forgets
        assert {"standstill", "due-times"}.isdisjoint(rule.name for rule in rules_of(queue, schema))
        with QueueDoor(queue, pg_server.url(name)) as door:
            script(connection, "delete from pgmq.q_mail where msg_id = 11; select pg_stat_force_next_flush()")
            assert door.ended() == 1
            assert {job.id: job.state for job in door.look(["11", "12"])} == {"11": DONE, "12": "waiting"}
            script(connection, SUCCESS)
            states = {job.id: job.state for job in door.look(["1", "11"])}
            assert states == {"1": DONE, "11": LOST}, "a success of the gate's own job is kept"
        assert not look_at(queue, connection).schema.forgets, "an old success is there"


ALIKE = {
    "create rule copied as on insert to {table} do also notify copied": "as-written",
    "create rule swallowed as on insert to {table} do instead nothing": "as-written",
    "create trigger t before update on {table} for each row execute function suppress_redundant_updates_trigger();"
    "alter table {table} disable trigger t": "as-written",
    "create trigger t before update on {table} for each row execute function suppress_redundant_updates_trigger();"
    "alter table {table} enable replica trigger t": "",
    "create function f() returns trigger language plpgsql"
    " as 'begin if new is null then return null; end if; return new; end';"
    "create trigger t before insert on {table} for each row execute function f()": "as-written",
    "create function f() returns trigger language plpgsql as 'begin -- pg_notify(new)\nreturn null; end';"
    "create trigger t after insert on {table} for each row execute function f()": "as-written",
    "create function f() returns trigger language plpgsql as 'begin perform pg_notify(''q'', ''''); return null; end';"
    "create trigger t after insert on {table} for each row execute function f()": "",
    "create role its_owner; alter table {table} owner to its_owner; alter table {table} enable row level security": "",
    "create role its_owner; alter table {table} owner to its_owner; alter table {table} enable row level security;"
    "alter table {table} force row level security": "as-written",
    "create role working; grant select, update on {table} to working; alter table {table} enable row level security;"
    "create policy p on {table} for select to working using (true)": "as-written",
    "create role working; grant select, update on {table} to working; alter table {table} enable row level security;"
    "create policy p on {table} to working using (true)": "",
    "alter table {table} add column if not exists status text; create function f() returns trigger language plpgsql"
    " as 'begin if tg_op = ''INSERT'' then new.status := ''done''; end if; return new; end';"
    "create trigger t before insert on {table} for each row execute function f()": "as-written",
    "alter table {table} add column if not exists status text; create function f() returns trigger language plpgsql"
    " as 'begin new.status := ''new''; return new; end';"
    "create trigger t before insert on {table} for each row execute function f()": "",
    "alter table {table} add constraint c check ({column} is not null) not valid": "unfinished-builds",
    "alter table {table} add constraint c check ({column} is not null)": "",
    "grant usage on schema {schema} to public; grant select on {table} to public": "private",
    "grant usage on schema {schema} to public; grant insert ({column}) on {table} to public": "private",
    "grant usage on schema {schema} to public; grant truncate on {table} to public;"
    "alter table {table} enable row level security": "private",
    "grant usage on schema {schema} to authenticated; grant delete on {table} to authenticated": "private",
    "grant usage on schema {schema} to anon; grant all on {table} to anon;"
    "alter table {table} enable row level security; create policy p on {table} using (false)": "",
    "grant usage on schema {schema} to public; grant select on {table} to public;"
    "alter table {table} enable row level security; create policy p on {table} using (true)": "private",
    "grant usage on schema {schema} to public; grant select on {table} to public;"
    "alter table {table} enable row level security; create policy p on {table} using (true);"
    "create policy q on {table} as restrictive using (false)": "",
    "create role staff; grant usage on schema {schema} to anon; grant select on {table} to anon;"
    "alter table {table} enable row level security; create policy p on {table} to staff using (true)": "",
    "create schema api; grant usage on schema api to anon; create view api.jobs as select * from {carrying};"
    "grant select on api.jobs to anon": "private",
    "create schema api; grant usage on schema api to public;"
    "create materialized view api.jobs as select * from {carrying}; grant select on api.jobs to public": "private",
    "create schema api; grant usage on schema api to anon; create view api.depth as select count(*) from {table};"
    "grant select on api.depth to anon": "",
    "create schema api; grant usage on schema api to anon; create view api.jobs with (security_invoker) as"
    " select * from {table}; grant select on api.jobs to anon": "",
    "alter table {table} replica identity nothing; create publication p for table {table}": "as-written",
    "create publication p for table {table}": "",
    "alter table {table} replica identity nothing; "
    "create publication p for table {table} with (publish = 'insert')": "",
    "alter table {table} set (autovacuum_enabled = off)": "bloat",
    "alter table {table} set (toast.autovacuum_enabled = off)": "bloat",
    "alter table {table} set (autovacuum_vacuum_threshold = 2000000000)": "bloat",
    "alter table {table} set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)": "",
    "create table others (n int) with (autovacuum_enabled = off)": "",
    "create role reporting; grant usage on schema {schema} to reporting; grant select on {table} to reporting": "",
    "alter table {table} add n int generated always as identity;"
    "select setval(pg_get_serial_sequence('{table}', 'n'), 2000000000)": "headroom",
    "alter table {table} add n bigint generated always as identity;"
    "select setval(pg_get_serial_sequence('{table}', 'n'), 2000000000)": "",
    "create sequence s maxvalue 1000 cycle; alter table {table} add n bigint default nextval('s')": "headroom",
    "create sequence s; alter table {table} add n smallint default nextval('s'); select setval('s', 30000)": "headroom",
}
"""What can be wrong with the tables of any queue -> the check that names it, or none where nothing is."""
BY_THE_CATALOGUE = {*ALIKE.values()} - {""}


def test_the_catalogue_is_judged_alike_for_every_queue(bare: tuple[str, Connection]) -> None:
    """Rules, triggers, rights and sequences are read from the catalogue, not from presets."""
    preset, connection = bare
    queue = Queue(presets()[preset], QueueOptions(prefix=PREFIXES.get(preset, "")))
    table, columns = next(iter(queue.tables().items()))
    words = {"table": f'{queue.schema}."{table}"', "schema": queue.schema, "column": f'"{columns[0]}"'}
    words["carrying"] = {"masstransit": 'public."OutboxMessage"'}.get(preset, words["table"])
    for given, named in ALIKE.items():
        found = outcomes(preset, connection, given.format(**words), only=BY_THE_CATALOGUE)
        assert [n for n, (outcome, _) in found.items() if outcome is Outcome.FAIL] == [named] * bool(named), given


ELSEWHERE = """
create table public.events (id bigserial primary key, created_at timestamp not null);
insert into "OutboxState" ("Created") select timezone('UTC', now()) from generate_series(1, 30);
"""


def test_times_without_a_zone_are_utc_wherever_the_database_is(pg_server: PgServer) -> None:
    """.NET libraries write them so; a table `events` in local time does not change that."""
    with pg_server.database() as name:
        url = pg_server.url(name)
        bare = (SCHEMAS / "masstransit.sql").read_text().replace("timestamptz", "timestamp")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"alter database {name} set timezone to 'Asia/Kolkata'".encode())
            connection.execute((bare + ELSEWHERE).encode())
        session, queue = SqlSession(url), QueueSession(Queue(presets()["masstransit"]))
        rule = next(r for r in read_queue_rules() if r.name == "oldest-age")
        assert outcome_of(lambda seen: queue.judge(rule, session, seen))[:2] == ("pass", "")
        session.close()


@pytest.mark.parametrize(("taken", "outcome"), [(True, "pass"), (False, "fail")])
def test_what_waits_is_there_at_each_look(
    taken: bool, outcome: str, pg_server: PgServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is taken after a look is no harm, on a slow machine too; one that stays is."""
    with pg_server.database() as name:
        url = pg_server.url(name)
        session, queue = SqlSession(url), QueueSession(Queue(presets()["pgmq"], QueueOptions(prefix="mail")))
        with psycopg.connect(url, autocommit=True) as worker:
            worker.execute((SCHEMAS / "pgmq.sql").read_bytes())
            worker.execute(
                "insert into pgmq.q_mail (enqueued_at, vt) select t, t from (select now() - interval '400 s' as t) x"
            )

            def look(rule: AlertRule, connection: Connection) -> Measurement:
                measured = measure(rule, connection)
                if taken:
                    worker.execute("update pgmq.q_mail set read_ct = 1, vt = now() + interval '30 s'")
                return measured

            monkeypatch.setattr(rules_of_queues, "measure", look)
            monkeypatch.setattr(rules_of_queues, "LOOKS_S", 0.0)
            rule = next(r for r in read_queue_rules() if r.name == "oldest-age")
            assert outcome_of(lambda seen: queue.judge(rule, session, seen))[0] == outcome
        session.close()


PUBLISHED = {
    "create publication p for table public.outboxevent": "pass",
    "create publication p for all tables with (publish = 'insert')": "pass",
    "create table other (n int); create publication p for table other": "fail",
    "create publication p for table public.outboxevent with (publish = 'update, delete')": "fail",
    "create publication p for table public.outboxevent (id, aggregatetype, aggregateid, type)": "fail",
    "create publication p for table public.outboxevent (id, aggregatetype, aggregateid, payload)": "pass",
}
SLOT = "(values ('dbz', 'logical', 'pgoutput', current_database(), true, 'reserved'))"
"""An active slot; the tests' server logs too little to have one."""


@pytest.mark.parametrize("given", PUBLISHED)
def test_a_slot_sends_what_is_published(given: str, pg_server: PgServer) -> None:
    """An active slot without the outbox in its publication delivers nothing."""
    with pg_server.database() as name:
        queue = Queue(presets()["debezium"])
        rule = next(r for r in rules_of(queue) if r.name == "workers")
        slots = "pg_replication_slots s"
        assert slots in rule.query
        own = rule.query.replace(slots, f"{SLOT} s (slot_name, slot_type, plugin, database, active, wal_status)")
        with psycopg.connect(pg_server.url(name), autocommit=True) as connection:
            connection.execute((SCHEMAS / "debezium.sql").read_bytes())
            connection.execute(given.encode())
        with connect(pg_server.url(name), autocommit=False) as looking:
            measured = measure(dataclasses.replace(rule, query=own), looking)
            judged = judge_proved(rule, measured.samples, measured.now)
            assert judged.outcome.value == PUBLISHED[given], judged.message
            looking.rollback()


def test_rows_that_their_producer_deletes_prove_no_delivery(pg_server: PgServer) -> None:
    """For Debezium's outbox, deleted rows prove nothing without a consumer of the slot."""
    whole = presets()["debezium"]
    with pg_server.database() as name:
        url = pg_server.url(name)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute((SCHEMAS / "debezium.sql").read_bytes())
            doors = [QueueDoor(Queue(one), url) for one in (whole, dataclasses.replace(whole, passed=""))]
            with doors[0] as told, doors[1] as counted:
                connection.execute("insert into public.outboxevent default values")
                connection.execute("delete from public.outboxevent")
                connection.execute("select pg_stat_force_next_flush()")
                connection.execute("select 1")
                assert (told.ended(), counted.ended()) == (0, 1)
