"""The SQL door reads what a server answers, however the server is configured."""

import datetime as dt
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import psycopg
import pytest

from gates.deployment.sql import database
from gates.deployment.sql.cells import with_values
from gates.deployment.sql.connection import Answering
from gates.deployment.sql.database import connect, execute, in_units, session, value
from gates.evidence import Evidence, Outcome, dump_line
from gates.proof.hostile.partitions import through
from gates.proof.hostile.statements import Blow, Strike
from tests.postgres_fixture import PgServer
from tests.waiting import until

SETTINGS = ("datestyle = 'German, DMY'", "intervalstyle = 'iso_8601'", "bytea_output = 'escape'")


def test_values_are_read_under_any_settings(pg_server: PgServer) -> None:
    """Dates, intervals and bytes are read whatever output style the database has, whole numbers whatever type."""
    with pg_server.database() as name:
        with session(pg_server.url("postgres")) as connection:
            for setting in SETTINGS:
                connection.execute(f'alter database "{name}" set {setting}'.encode())
        with session(pg_server.url(name)) as connection:
            assert isinstance(value(connection, "select clock_timestamp()"), dt.datetime)
            assert value(connection, "select interval '90 minutes'") == dt.timedelta(minutes=90)
            assert value(connection, r"select '\x00ff'::bytea") == b"\x00\xff"
            assert str(value(connection, "select 10.00::numeric(5, 2)")) == "10"
            assert str(value(connection, "select 10.50::numeric(5, 2)")) == "10.50"


def test_an_error_has_a_size(pg_server: PgServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver copies an error's text eight times, so an endless one is not read to its end."""
    monkeypatch.setattr("gates.deployment.sql.connection.MOST_ANSWER", 16_000_000)
    long = b"do $$ begin raise exception using message = pg_catalog.repeat('x', 32 << 20); end $$"
    with session(pg_server.url("postgres")) as connection, pytest.raises(psycopg.OperationalError, match="at most"):
        connection.execute(long)


def test_notices_are_no_part_of_an_answer(pg_server: PgServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many notices do not count towards the size of an answer."""
    monkeypatch.setattr("gates.deployment.sql.connection.MOST_ANSWER", 1_000_000)
    says = b"do $$ begin for i in 1..2000 loop raise warning '%', pg_catalog.repeat('x', 1000); end loop; end $$"
    with pg_server.database() as name:
        with session(pg_server.url("postgres")) as connection:
            connection.execute(f'alter database "{name}" set client_min_messages = debug5'.encode())
        with session(pg_server.url(name)) as connection:
            connection.execute(says)
            assert value(connection, "select 1") == 1


def test_a_session_that_the_server_ends_says_so(pg_server: PgServer) -> None:
    """The server's reason is reported, not just a lost connection."""
    end = b"select pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())"
    with session(pg_server.url("postgres")) as connection, pytest.raises(psycopg.errors.AdminShutdown):
        connection.execute(end)


def test_every_session_has_limits_on_the_server(pg_server: PgServer) -> None:
    """Statements, locks, idle transactions and lost clients all have a limit."""
    with session(pg_server.url("postgres")) as connection:
        of_sql = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        for limit in (*of_sql, "tcp_user_timeout", "tcp_keepalives_idle"):
            setting = value(connection, "select setting::int from pg_settings where name = %s", limit)
            assert 0 < int(str(setting)) <= 60_000, limit


def test_a_database_that_is_read_only_by_habit_can_be_written_to(pg_server: PgServer) -> None:
    """default_transaction_read_only of a login or database does not prevent a rollback."""
    with pg_server.database() as name:
        with session(pg_server.url("postgres")) as connection:
            connection.execute(f'alter database "{name}" set default_transaction_read_only = on'.encode())
        with session(pg_server.url(name)) as connection:
            connection.execute("create table public.written (a int)")


@pytest.mark.parametrize("read_only", [False, True])
def test_a_url_that_asks_for_the_server_that_is_written_to_is_obeyed(read_only: bool, pg_server: PgServer) -> None:
    """A session of ours that only reads must not make libpq take the writable server for a read-only one."""
    url = f"{pg_server.url('postgres')}?target_session_attrs=read-write"
    with session(url, read_only=read_only) as connection:
        assert value(connection, "show default_transaction_read_only") == ("on" if read_only else "off")


@pytest.mark.parametrize("pooled", [False, True])
def test_no_limit_of_the_database_cuts_a_transaction_of_ours(
    pooled: bool, pg_server: PgServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transaction_timeout is off: a drill that lost its row lock would blame whoever took the row."""
    with pg_server.database() as name, session(pg_server.url("postgres")) as owner:
        if owner.info.server_version < database.SINCE:
            pytest.skip("PostgreSQL 17 has the setting")
        owner.execute(f"alter database \"{name}\" set transaction_timeout = '5s'".encode())
        monkeypatch.setattr(database, "_POOLED", {pg_server.url(name): database.SESSION} if pooled else {})
        with connect(pg_server.url(name)) as connection, connection.transaction():
            assert value(connection, "select current_setting('transaction_timeout')") == "0"


def test_triggers_fire_for_a_login_that_is_set_to_be_a_replicas(pg_server: PgServer) -> None:
    """Otherwise the deployment's triggers would not act on what the gate writes."""
    with pg_server.database() as name, session(pg_server.url("postgres")) as owner:
        owner.execute(f'alter database "{name}" set session_replication_role = replica'.encode())
        with connect(pg_server.url(name), autocommit=False) as connection:
            connection.rollback()
            assert value(connection, "select current_setting('session_replication_role')") == "origin"


def test_a_login_that_may_not_have_triggers_fire_is_let_in(pg_server: PgServer, migrated_db: str) -> None:
    """A setting of the whole database holds for the deployment, too: the gate sees what users see."""
    with session(pg_server.url("postgres")) as owner:
        owner.execute(f'alter database "{migrated_db}" set session_replication_role = replica'.encode())
    with connect(pg_server.url(migrated_db, "replay_gate")) as connection:
        assert value(connection, "select current_setting('session_replication_role')") == "replica"


def test_a_login_for_which_alone_no_trigger_fires_judges_nothing(pg_server: PgServer, migrated_db: str) -> None:
    """The gate would see other behaviour than users, so it refuses to judge; it can still act."""
    url = pg_server.url(migrated_db, "replay_gate")
    with session(pg_server.url("postgres")) as owner:
        owner.execute(
            f'alter role replay_gate in database "{migrated_db}" set session_replication_role = replica'.encode()
        )
    with pytest.raises(psycopg.OperationalError, match="ALTER ROLE replay_gate RESET session_replication_role"):
        connect(url)
    connect(url, primary=True).close()


@pytest.mark.parametrize(
    ("setting", "ours", "theirs"),
    [
        ("timezone", "UTC", "Asia/Kolkata"),
        ("row_security", "on", "off"),
        ("standard_conforming_strings", "on", "off"),
        ("statement_timeout", "10s", "0"),
        ("lock_timeout", "2s", "0"),
        ("idle_in_transaction_session_timeout", "1min", "1ms"),
        ("search_path", "pg_catalog,pg_temp", "public"),
    ],
)
def test_what_a_trigger_at_login_sets_does_not_count(pg_server: PgServer, setting: str, ours: str, theirs: str) -> None:
    """A login trigger runs after our settings, so each transaction sets them again."""
    body = f"begin perform pg_catalog.set_config('{setting}', '{theirs}', false); end"
    with pg_server.database() as name, psycopg.connect(pg_server.url(name), autocommit=True) as owner:
        if owner.info.server_version < 170_000:
            pytest.skip("there is no such trigger before PostgreSQL 17")
        owner.execute(f"create function evil() returns event_trigger language plpgsql as $$ {body} $$".encode())
        owner.execute(b"create event trigger evil on login execute function evil()")
        with session(pg_server.url(name)) as connection:
            assert value(connection, "select current_setting(%s)", setting) == ours


@pytest.mark.parametrize("limit_ms", [0, 1, 250, 1_000, 2_500, 60_000, 90_000, 120_000, 3_600_000, 86_400_000])
def test_a_limit_is_known_as_a_server_shows_it(pg_server: PgServer, limit_ms: int) -> None:
    """The gate writes a limit as the server does: a difference is taken for a pooler."""
    with session(pg_server.url("postgres")) as connection:
        connection.execute("select set_config('lock_timeout', %s, false)", (str(limit_ms),))
        assert value(connection, "select current_setting('lock_timeout')") == in_units(str(limit_ms))


def test_a_server_that_falls_silent_ends_the_statement(pg_server: PgServer) -> None:
    """A proxy may keep TCP alive and forward nothing: the client's own limit ends the wait."""
    lost = Strike(Blow.ANSWER_LOST, at=1)
    with through(pg_server.url("postgres"), lost) as url, session(url) as connection:
        connection.answer_limit_s = 0.5
        started = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match=r"no answer within 0\.5 s"):
            connection.execute("select 1")
        assert time.monotonic() - started < 5
        assert connection.closed


def test_a_session_whose_client_falls_silent_in_a_transaction_is_ended_by_the_server(pg_server: PgServer) -> None:
    """Its locks end with it."""
    lost = connect(pg_server.url("postgres"), autocommit=False, idle_in_transaction_ms=300)
    pid = value(lost, "select pg_backend_pid()")
    with session(pg_server.url("postgres")) as looking:
        until(lambda: value(looking, "select count(*) from pg_stat_activity where pid = %s", pid) == 0, timeout_s=20)
    lost.close()


CELLS = (
    "'infinity'::timestamptz",
    "'-infinity'::date",
    "'20000-01-01'::date",
    "'0044-03-15 BC'::timestamp",
    "'24:00'::time",
    "'NaN'::numeric",
    "'Infinity'::numeric",
    "1e400::numeric",
    "repeat('9', 5000)::numeric",
    "'NaN'::float8",
    "('{\"a\":' || repeat('9', 5000) || '}')::jsonb",
    "'{\"a\":1e400}'::jsonb",
    "'\"\\ud83d\\ude00\"'::jsonb",
    "(repeat('[', 2000) || repeat(']', 2000))::json",
    '\'{"a":1,"a":2}\'::json',
    "'null'::jsonb",
    "interval '200000 years'",
    "array['infinity'::timestamptz, null]",
    "tstzrange('-infinity', 'infinity')",
    "row(1, 'infinity'::date)",
    "'<a/>'::xml",
    "repeat('x', 3000000)",
    "decode(repeat('ff', 1000000), 'hex')",
    "pg_catalog.pg_current_xact_id()",
    "'(1,2)'::point",
    "null::timestamptz",
    "array[[1,2],[3,4]]",
    "'{}'::int[]",
    "'::/0'::inet",
    "'a'::tsvector",
    "B'101'",
    "1::money",
    "'x'::\"char\"",
    "'infinity'::interval",
    "datemultirange(daterange('-infinity','infinity'))",
    "''::name",
    "'24:00+15:59'::timetz",
)


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_is_read_and_written_down(pg_server: PgServer, cell: str) -> None:
    """No value prevents its row from being read, and each can be written to evidence."""
    with session(pg_server.url("postgres")) as connection:
        try:
            (row,) = execute(connection, f"select {cell} as cell, 1 as other")
        except psycopg.DatabaseError as refused:
            pytest.skip(f"this server has no such value: {refused}")
    assert row["other"] == 1
    assert dump_line(Evidence("t/x", Outcome.FAIL, witness=row["cell"], samples=1))  # type: ignore[arg-type]


@contextmanager
def encoded(pg_server: PgServer, encoding: str) -> Iterator[Answering]:
    """A session in a new database of this encoding."""
    name = f"encoded_{uuid.uuid4().hex}"
    with session(pg_server.url("postgres")) as connection:
        connection.execute(f"create database {name} encoding '{encoding}' locale 'C' template template0".encode())
    try:
        with session(pg_server.url(name)) as connection:
            yield connection
    finally:
        pg_server.drop_database(name)


@pytest.mark.parametrize(
    ("encoding", "octets", "cell"), [("SQL_ASCII", "61ff62", "a\ufffdb"), ("MULE_INTERNAL", "6162", "ab")]
)
def test_text_that_is_no_utf8_is_read(encoding: str, octets: str, cell: str, pg_server: PgServer) -> None:
    """Bytes that are no UTF-8 become text, and encodings that Python lacks are read."""
    with encoded(pg_server, encoding) as connection:
        text = f"convert_from('\\x{octets}'::bytea, '{encoding}')"
        assert execute(connection, f"select {text} as cell, 'x'::text as good") == [{"cell": cell, "good": "x"}]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "UTF8"])
def test_values_in_a_statement_keep_their_letters(encoding: str, pg_server: PgServer) -> None:
    """A statement that the server runs later has its values whole, whatever the database's encoding."""
    given: tuple[tuple[str, Sequence[object] | Mapping[str, object]], ...] = (
        ("select %s || '%%' as cell", ["\u00e9'"]),
        ("select %(x)s || '%%' as cell", {"x": "\u00e9'"}),
    )
    with encoded(pg_server, encoding) as connection:
        for statement, values in given:
            written = with_values(connection, statement, values)
            assert written.replace(" ", "") == "select'\u00e9'''||'%'ascell"


def test_text_that_the_encoding_has_not_is_an_error_of_sql(pg_server: PgServer) -> None:
    """A bad column name or parameter raises DataError, and the session goes on."""
    given: tuple[tuple[bytes, tuple[str, ...]], ...] = ((b'select 1 as "\xff"', ()), (b"select %s::text", ("\ud800",)))
    with encoded(pg_server, "SQL_ASCII") as connection:
        for statement, params in given:
            with pytest.raises(psycopg.DataError):
                connection.execute(statement, params or None)
            assert value(connection, "select 1") == 1


def test_a_setting_ends_with_the_transaction_that_made_it(pg_server: PgServer) -> None:
    """A user's check may change settings of its session; later checks do not see the change."""
    sets = "select set_config('search_path', 'evil', false), set_config('replaygate.excluded', '{x}', false)"
    look = "select current_setting('search_path') as path, current_setting('replaygate.excluded') as excluded"
    with session(pg_server.url("postgres"), read_only=True) as connection:
        connection.give({"replaygate.excluded": "{}"})
        _, (beside,) = connection.glances([[sets], [look]])
        (after,) = connection.glance(look)
        due = {"path": "pg_catalog,pg_temp", "excluded": "{}"}
        assert [beside.fetchone(), after.fetchone()] == [due, due]
