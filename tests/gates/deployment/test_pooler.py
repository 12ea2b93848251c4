"""Behind a pooler the gate needs no session state, and no statement runs without its settings."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from gates.deployment.sql.connection import Answering
from gates.deployment.sql.database import SHOWN, connect, execute, session, value
from gates.deployment.target import Target
from gates.deployment.tenants.leftovers import TIMED, is_over, take_lease
from gates.deployment.tenants.tenants import Tenants
from gates.evidence import Outcome, TargetKind
from gates.proof.workbench.pooler import lacking, pgbouncer
from gates.stages.preflight.database import POOLED, database_lines, with_room
from sql_checks.attempts.contract_writes import write
from sql_checks.rules.file import read_all_rules
from sql_checks.spotfile import read_folder
from sql_checks.sqlsession import SqlSession
from tests.postgres_fixture import PgServer
from tests.sources import below, nodes_of, relative

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())

MODES = ("transaction", "session")
POOLERS = [(mode, ignored) for mode in MODES for ignored in ("", "options")]
"""How it lends, and whether it drops our settings at the start silently or refuses them."""
ASKED = ["pg_catalog,pg_temp", "postgres", "hex", "1"]
UNHELPFUL = (
    "search_path = public, pg_catalog",
    "bytea_output = escape",
    "intervalstyle = iso_8601",
    "extra_float_digits = 0",
    "default_transaction_read_only = on",
)
SHOW = "select array[" + ", ".join(f"current_setting('{name}')" for name in SHOWN) + "]"

OF_A_SESSION = re.compile(
    r"\bpg_(?:try_)?advisory_(?:un)?lock|^\s*(?:listen|prepare|discard)\s|\bset_config\([^()]*,\s*false\)"
    r"|^\s*set\s+(?:session\s+)?(?!local\b)[\w.]+\s*(?:=|to\b)|\bwith\s+hold\b"
)
"""What lasts longer than a transaction: the next borrower of a session would have it, and we would not."""
KNOWN = {"sql_checks/rules/cases.py": "works on a database of its own"}


@pytest.fixture
def unhelpful(pg_server: PgServer, migrated_db: str) -> str:
    """A database whose own settings differ from the gate's."""
    with session(pg_server.url("postgres")) as connection:
        for setting in UNHELPFUL:
            connection.execute(f'alter database "{migrated_db}" set {setting}'.encode())
    return pg_server.url(migrated_db)


@pytest.fixture
def pooled(unhelpful: str, tmp_path: Path) -> Iterator[str]:
    """The same database behind a pooler that lends by transaction, with two sessions to lend."""
    with pgbouncer(tmp_path, unhelpful, "transaction", size=2) as url:
        yield url


def in_force(connection: Answering) -> object:
    return value(connection, SHOW)


@pytest.mark.parametrize(("mode", "ignored"), POOLERS)
def test_every_statement_has_its_settings(unhelpful: str, tmp_path: Path, mode: str, ignored: str) -> None:
    """Single statements and transactions have them, with and without autocommit."""
    with pgbouncer(tmp_path, unhelpful, mode, ignore=ignored) as url:
        for autocommit in (True, False):
            with connect(url, autocommit=autocommit, read_only=True) as connection:
                assert connection.is_pooled
                assert in_force(connection) == ASKED
                assert value(connection, "show statement_timeout") == "10s"
                connection.rollback()
                with connection.transaction(), connection.transaction():
                    assert in_force(connection) == ASKED
                with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                    connection.execute("create table public.written (a int)")
                connection.rollback()
                assert in_force(connection) == ASKED
        with session(url) as connection:
            connection.execute("create table public.written (a int)")
            with connection.transaction():
                connection.execute("insert into public.written values (1)")


def test_no_statement_leaves_anything_in_a_session() -> None:
    """No SQL for a target's database takes a session lock or changes a session setting."""
    own = ("gates/stack/", "gates/proof/", "gates/rehearsal/")
    files = [p for p in below("gates", "drills", "sql_checks", "loadtests") if not relative(p).startswith(own)]
    texts = [(relative(p), n.value) for p in files for n in nodes_of(p) if isinstance(n, ast.Constant)]
    found = {name for name, text in texts if isinstance(text, str) and OF_A_SESSION.search(text)}
    assert found == KNOWN.keys()
    assert OF_A_SESSION.search("set timezone = 'UTC'")
    assert not OF_A_SESSION.search("set local timezone = 'UTC'")


def test_a_session_of_our_own_is_known_as_one(unhelpful: str) -> None:
    """Without a pooler the settings are given once, at the start of the session."""
    with session(unhelpful) as connection:
        assert not connection.is_pooled
        assert in_force(connection) == ASKED


def test_nothing_of_ours_is_left_in_what_a_pooler_lends(pooled: str, unhelpful: str) -> None:
    """The next client of a lent session finds no setting, lock or prepared statement."""
    with session(pooled) as connection:
        connection.give({"timezone": "Asia/Kolkata"})
        for _ in range(10):
            execute(connection, "select %s::int", 1)
        lease, mark = take_lease(pooled, "a1")
        assert (lease, mark) == (None, TIMED)
        assert is_over(connection, "a1")
    with psycopg.connect(unhelpful, autocommit=True) as other:
        assert other.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchone() == (0,)
    with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as lent:
        assert lent.execute("show search_path").fetchone() == ("public, pg_catalog",)
        assert lent.execute("show timezone").fetchone() != ("Asia/Kolkata",)
        assert lent.execute("select count(*) from pg_prepared_statements").fetchone() == (0,)


@pytest.mark.parametrize("through", ["unhelpful", "pooled"])
def test_what_is_asked_ahead_is_answered_each_by_itself(through: str, request: pytest.FixtureRequest) -> None:
    """Of queries sent in one round trip, each has its own answer or error."""
    asks = {f"select {n} as n": n for n in range(20)}
    broken, cut = "select 1 / 0", "select pg_terminate_backend(pg_backend_pid())"
    asked = [(one,) for one in (*list(asks)[:9], broken, *list(asks)[9:], cut)]
    session = SqlSession(request.getfixturevalue(through))
    session.ask_ahead(asked)
    with pytest.raises(psycopg.errors.DivisionByZero):
        session.ask(broken)
    with pytest.raises(psycopg.OperationalError):
        session.ask(cut)
    assert [session.ask(one)[0].fetchone() for one in asks] == [{"n": n} for n in asks.values()]
    session.close()


def test_checks_and_rules_are_run_through_a_pooler(pooled: str, pg_server: PgServer) -> None:
    """Every query has its settings, and other clients of the pooler do not see them."""
    checks = SqlSession(pooled, excluded=["6b3e0b7e-0000-4000-8000-000000000000"], settings={"steps": "10,50"})
    with session(pooled) as other:
        for query in [q for s in read_folder() for q in (s.violations, s.seen)] + [r.query for r in read_all_rules()]:
            with checks.snapshot() as connection:
                assert value(connection, "show replaygate.steps") == "10,50"
                assert value(connection, "show transaction_isolation") == "repeatable read"
                connection.execute(query.encode())
                assert value(other, "select current_setting('replaygate.steps', true)") in {None, ""}
    checks.close()


def test_tenants_are_made_and_removed_through_a_pooler(pooled: str) -> None:
    """Pipelines in a transaction work behind a pooler."""
    with session(pooled) as connection:
        tenants = Tenants(connection, "a1")
        tenants.add_items(tenants.create(), 3)
        tenants.remove()
        assert value(connection, "select count(*) from public.companies where id = %s", tenants.created[0]) == 0


def test_an_error_leaves_no_transaction_behind(pooled: str) -> None:
    """A failed statement or commit is raised and undone, and the next statement works."""
    with session(pooled) as connection:
        connection.execute("create table public.p (a int primary key)")
        connection.execute("create table public.c (a int references public.p deferrable initially deferred)")
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute("insert into public.c values (1)")
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("select * from public.nothing_here")
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert value(connection, "select count(*) from public.c") == 0


def test_no_pipeline_begins_outside_a_transaction(pooled: str) -> None:
    """It would run without the settings, so it is refused; a transaction that it begins has them."""
    with session(pooled) as connection, pytest.raises(psycopg.InterfaceError), connection.pipeline():
        connection.execute("select 1")
    with connect(pooled, autocommit=False) as connection:
        with connection.pipeline():
            connection.execute("savepoint here")
            found = connection.execute(SHOW + " as found")
            connection.execute("release savepoint here")
        assert found.fetchone() == {"found": ASKED}


def test_what_the_contract_lets_anybody_write_is_tried_through_a_pooler(pooled: str, unhelpful: str) -> None:
    """The results are the same as without a pooler."""
    one, other = ([(w.what, a.state) for w, a in write(url, may_touch_live=True)] for url in (pooled, unhelpful))
    assert one == other


def test_the_preflight_says_what_cannot_be_had(pooled: str, unhelpful: str) -> None:
    """The preflight passes behind a pooler, and its evidence names it."""
    for url, said in ((pooled, POOLED), (unhelpful, None)):
        lines = database_lines(Target(TargetKind.STAGING, database_url=url))
        assert lines[0].outcome is Outcome.PASS
        assert lines[0].details.get("pooler") == said


def test_a_pooler_that_lends_by_statement_is_no_database(unhelpful: str, tmp_path: Path) -> None:
    """Settings cannot last for a transaction there, so the gate refuses it and says what to change."""
    with (
        pgbouncer(tmp_path, unhelpful, "statement") as url,
        pytest.raises(psycopg.OperationalError, match="lend by transaction or by session"),
    ):
        connect(url)


def test_several_transactions_go_in_one_round_trip(pooled: str, unhelpful: str) -> None:
    """Each commits by itself with its settings; an error leaves the earlier ones committed."""
    insert = "insert into public.companies (id, name) values (%s, current_setting('search_path'))"
    names = [f"6b3e0b7e-0000-4000-8000-00000000000{n}" for n in range(3)]
    for url in (pooled, unhelpful):
        with session(url) as connection:
            with connection.at_once() as commit:
                for name in names:
                    connection.execute(insert, (name,))
                    commit()
            rows = execute(connection, "select xmin::text as by, name from public.companies where id = any(%s)", names)
            assert len({row["by"] for row in rows}) == 3
            assert {row["name"] for row in rows} == {ASKED[0]}
            with pytest.raises(psycopg.errors.UniqueViolation), connection.at_once() as commit:
                connection.execute("delete from public.companies where id = %s", (names[0],))
                commit()
                connection.execute(insert, (names[1],))
            assert value(connection, "select count(*) from public.companies where id = any(%s)", names) == 2
            connection.execute("delete from public.companies where id = any(%s)", (names,))


@pytest.mark.waits(4)
@pytest.mark.parametrize("mode", MODES)
def test_a_pool_too_small_for_a_run_is_named_before_anything_runs(unhelpful: str, tmp_path: Path, mode: str) -> None:
    """Else what waits for a session in vain is blamed on the database or the service."""
    for size, outcome in ((5, Outcome.UNKNOWN), (8, Outcome.PASS)):
        with pgbouncer(tmp_path / str(size), unhelpful, mode, size=size) as url:
            target = Target(TargetKind.STAGING, database_url=url)
            line = with_room(database_lines(target)[0], target)
        assert line.outcome is outcome
        if outcome is Outcome.UNKNOWN:
            assert line.message.startswith("the pooler at DATABASE_URL lends this login 5 sessions at once")
            assert "stages: {drill: {sessions: N}}" in line.message
