"""Errors of the database become plain words: absent, differs, or failed inside a function of the deployment."""

import time
from collections.abc import Iterator

import psycopg
import pytest

from gates.checks.recorder import judge
from gates.deployment.sql.database import Connection, connect, session
from gates.deployment.sql.failures import in_words, told_in_words
from gates.errors import MOST_SAID
from gates.evidence import Outcome

RAW = ("LINE 1", "^", "Error", "Undefined", "SQL statement", "SELECT", "select", "CONTEXT", "HINT", "\n")
BROKEN = """
create function public.stuck(company uuid) returns int language plpgsql as $$
begin return (select no_such_column from public.companies where id = company); end $$;
create function public.refuses() returns trigger language plpgsql as $$
begin raise exception 'not on a Sunday'; end $$;
create function public.sleeps() returns void language plpgsql as 'begin perform pg_sleep(9); end';
create function public.divides(n int) returns int language sql as 'select 1 / n';
create trigger refuses before insert on public.companies for each row execute function public.refuses();
"""
ELSE = "See that it is there, and what `names` in gate.yaml says of it"
CUT_OFF = "the database cut our connection, as in a restart or a failover"
MAPPED = "If it has another name here, say so in gate.yaml: names: "
SAID = {
    "select * from public.failed_jobs": f"absent: there is no table or view public.failed_jobs. {ELSE}",
    "select * from app.dead_letter_queue": "absent: there is no table or view app.dead_letter_queue. "
    f"{MAPPED}{{tables: {{dead_letter_queue: {{is: SCHEMA.NAME}}}}}}",
    "select d.retry_count from public.companies d": "absent: there is no column d.retry_count. "
    f"{MAPPED}{{tables: {{TABLE: {{columns: {{retry_count: NAME}}}}}}}}",
    "select tries from public.dead_letter_queue": f"absent: there is no column tries. {ELSE}",
    "insert into public.companies (id, title) values (gen_random_uuid(), 'x')": "absent: there is no column title of "
    f"companies. {ELSE}",
    "select public.flag_on('x')": f"absent: there is no function public.flag_on(unknown). {ELSE}",
    "select public.is_feature_enabled(1)": "absent: there is no function public.is_feature_enabled(integer). "
    f"{MAPPED}{{functions: {{is_feature_enabled: {{is: SCHEMA.NAME}}}}}}",
    "select ''::jsonb": "the database refused it: invalid input syntax for type json (SQLSTATE 22P02)",
    "create table nowhere.x (a int)": f"absent: there is no schema nowhere. {ELSE}",
    "grant nobody_at_all to postgres": f"absent: there is no object nobody_at_all. {ELSE}",
    "set role nobody_at_all": "the database refused it: role",
    "select id = 'x'::text from public.companies": "differs: operator does not exist: uuid = text. If ids are of",
    "select * from public.companies where id = '17'": 'differs: invalid input syntax for type uuid: "17". If ids are',
    "insert into public.companies (id, name) values (now(), 'x')": "differs: column",
    "insert into public.companies (id, name) values (gen_random_uuid(), 'x')": "failed inside your function "
    "public.refuses(): not on a Sunday",
    "select public.stuck(gen_random_uuid())": "failed inside your function public.stuck(uuid): column",
    "select public.divides(0)": "failed inside your function divides: division by zero",
    "select 1 / 0": "the database refused it: division by zero (SQLSTATE 22012)",
    "do $$ begin raise exception 'ours'; end $$": "the database refused it: ours (SQLSTATE P0001)",
    "select public.sleeps()": "the database did not finish in time: canceling statement due to statement timeout,"
    " inside your function public.sleeps()",
}


@pytest.fixture
def database(migrated_url: str) -> Iterator[Connection]:
    """A deployment with functions and a trigger that fail."""
    with psycopg.connect(migrated_url) as owner:
        owner.execute(BROKEN)
    with session(migrated_url, statement_timeout_ms=2_000) as connection:
        yield connection


@pytest.mark.parametrize(("statement", "words"), SAID.items())
def test_an_error_says_what_is_absent_what_differs_or_which_function_failed(
    database: Connection, statement: str, words: str
) -> None:
    """The message names the object and how to map it, holds no raw error text, and makes the check unknown."""
    with pytest.raises(psycopg.Error) as error:
        database.execute(statement.encode())
    outcome, message = judge(error.value, None)
    assert outcome is Outcome.UNKNOWN
    assert message == in_words(error.value)
    assert message.startswith(words)
    assert not [raw for raw in RAW if raw in message.replace("SQLSTATE", "")]


def test_of_an_error_of_any_size_the_beginning_is_told(database: Connection) -> None:
    """A long error is cut, since a rollback waits until it was searched for secrets."""
    with pytest.raises(psycopg.Error) as error:
        database.execute("do $$ begin raise exception '%', repeat('x', 5000000); end $$")
    for said in (in_words(error.value), in_words(ValueError("x" * 5_000_000)), told_in_words("x" * 5_000_000, "", "")):
        assert "xxx" in said
        assert len(said) < 2 * MOST_SAID


@pytest.mark.parametrize(
    "context",
    [
        'PL/pgSQL expression "1/n"\nPL/pgSQL function f(int) line 1 at RETURN',
        'SQL関数"1/n"\nPL/pgSQL関数f(int)の1行目 - RETURN',
        "PL/pgSQL-Funktion f(int) Zeile 1 bei RETURN",
        "fonction PL/pgSQL f(int), ligne 1, à RETURN",
        'PL/pgSQL 함수 "f(int)" 의 1번째 RETURN',
        'PL/pgSQL assignment "x := g(1)"\nPL/pgSQL function f(int) line 1 at assignment',
    ],
)
def test_a_function_is_named_in_the_languages_of_servers(context: str) -> None:
    """Which function failed is known whatever lc_messages is; what it was running is no function."""
    assert told_in_words("x", "22012", context) == "failed inside your function f(int): x"
    assert told_in_words("Spalte »a« existiert nicht", "42703", "").startswith("absent: there is no column a.")
    assert told_in_words("関数public.g(integer)は存在しません", "42883", "").startswith(
        "absent: there is no function public.g(integer)."
    )


@pytest.mark.parametrize("unit", ["a", "a$", "PL/a", "PL/a ", "a.", "a(", '"'])
def test_no_error_takes_long_to_be_told(unit: str) -> None:
    """Reading an error takes little time whatever its text: no signal is handled meanwhile."""
    began, text = time.process_time(), "PL/" + unit * (40_000 // len(unit))
    for state in ("42883", "42P01", "22012"):
        said = told_in_words(text, state, f'SQL statement "{text}"\nPL/pgSQL function public.f() line 1 at EXECUTE')
        assert said.startswith("failed inside your function public.f()")
        assert told_in_words(text, state, "")
    assert time.process_time() - began < 2.0


def test_an_error_without_a_diagnosis_is_its_first_line() -> None:
    """Connection errors have words of their own; others show their first line or their class."""
    with pytest.raises(psycopg.OperationalError) as error:
        connect("postgresql://127.0.0.1:1/x")
    assert in_words(error.value).startswith("connection ")
    assert "\n" not in in_words(error.value)
    assert in_words(ValueError("a\nb")) == "a"
    assert in_words(psycopg.OperationalError()) == "OperationalError"


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ("server is in hot standby mode", "standbys, which only read: 2"),
        ("Connection refused", "standbys, which only read: 1, and no other of the 2 hosts can be reached"),
    ],
)
def test_hosts_without_a_primary_are_told(second: str, told: str) -> None:
    """Of several hosts, each failure counts, and not the last one alone."""
    failed = ["connection failed: server is in hot standby mode", f"connection failed: {second}"]
    each = "".join(f"\n- host: 'db', port: '{port}', hostaddr: '': {one}" for port, one in enumerate(failed))
    error = psycopg.OperationalError(f"{failed[1]}\nMultiple connection attempts failed. All failures were:{each}")
    assert in_words(error) == f"DATABASE_URL leads to no primary: {told}. Name the primary"


def test_a_session_that_is_cut() -> None:
    """A restart during a statement has one message, however the driver puts it; a refused login has another."""
    for said in ("consuming input failed: server closed the connection unexpectedly", "Connection reset by peer"):
        assert in_words(psycopg.OperationalError(said)) == CUT_OFF
    assert told_in_words("terminating connection due to administrator command", "57P01", "") == CUT_OFF
    asked = 'connection failed: connection to server at "db", port 1 failed: server closed the connection unexpectedly'
    assert in_words(psycopg.OperationalError(asked)) == asked
    lent = "a pooler is between the gate and this database, [...] server closed the connection unexpectedly observed"
    assert in_words(psycopg.OperationalError(lent)) == lent, "a pooler that lends by statement says so by that"


@pytest.mark.parametrize(
    "why",
    ['too many connections for role "gate"', "sorry, too many clients already", "no more connections allowed (pool)"],
)
def test_a_login_without_room_is_told_how_much_is_enough(why: str) -> None:
    """If one more session is refused, the message says how many a run needs."""
    refused = f'connection failed: connection to server at "db", port 1 failed: FATAL:  {why}'
    assert in_words(psycopg.OperationalError(refused)) == f"{refused}: a login with 20 connections of its own is enough"
