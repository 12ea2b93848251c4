"""The reference behind a pooler that lends its sessions: settings, errors, a replay, a run, and the migrations."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest

from gates.proof.workbench.pooler import lacking, pgbouncer
from replay_service.migrate import MIGRATIONS, expected_version, migrate
from replay_service.session import Session
from tests.postgres_fixture import TEMPLATE, PgServer
from tests.replay_service.http.service_process import Db, Service, add_items, post, rolled_out, value
from tests.replay_service.worker.harness import Bench, Workers
from tests.waiting import until

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())

POOLERS = [(mode, ignored) for mode in ("transaction", "session") for ignored in ("", "options")]
"""How it lends, and whether it refuses settings at the start or drops them silently."""
SETTINGS = {"statement_timeout": "7s", "enable_sort": "off"}
SHOWN = (
    "select current_setting('statement_timeout'), current_setting('enable_sort'), current_setting('timezone'),"
    " current_setting('transaction_read_only'), current_setting('transaction_isolation')"
)
DUE = ("7s", "off", "UTC", "off", "read committed")


@pytest.fixture(scope="module")
def database(pg_server: PgServer) -> Iterator[str]:
    """A migrated database whose own settings are of no use to us."""
    with pg_server.database(TEMPLATE) as name:
        with psycopg.connect(pg_server.url("postgres"), autocommit=True) as conn:
            for setting in ("timezone = 'Asia/Kolkata'", "default_transaction_isolation = serializable"):
                conn.execute(f'alter database "{name}" set {setting}'.encode())
        yield name


@pytest.fixture(scope="module")
def pooled(pg_server: PgServer, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """As the service's login, by transaction, from two sessions."""
    url = pg_server.url(database, "replay_service")
    with pgbouncer(tmp_path_factory.mktemp("pooler"), url, "transaction", size=2) as there:
        yield there


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Service], pooled: str) -> Service:
    return rolled_out(start_service(DATABASE_URL=pooled))


@pytest.mark.parametrize(("mode", "ignored"), POOLERS)
def test_every_statement_has_its_settings(
    pg_server: PgServer, database: str, tmp_path: Path, mode: str, ignored: str
) -> None:
    """By itself, in a transaction, in a pipeline; and after an error in each."""

    async def look(url: str) -> list[object]:
        found: list[object] = []
        async with await Session.connect(url, settings=SETTINGS) as conn:
            assert conn.is_lent
            for _ in range(2):
                found.append(await (await conn.execute(SHOWN)).fetchone())
                async with conn.transaction(), conn.transaction():
                    found.append(await (await conn.execute(SHOWN)).fetchone())
                async with conn.pipeline(), conn.transaction():
                    found.append(await (await conn.execute(SHOWN)).fetchone())
                with pytest.raises(psycopg.errors.DivisionByZero):
                    await conn.execute("select 1 / 0")
                with pytest.raises(psycopg.errors.DivisionByZero):
                    async with conn.pipeline(), conn.transaction():
                        await conn.execute("select 1 / 0")
        return found

    with pgbouncer(tmp_path, pg_server.url(database), mode, ignore=ignored, size=2) as url:
        assert asyncio.run(look(url)) == [DUE] * 6
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as other:  # nothing of it stays
            assert other.execute("show statement_timeout").fetchone() == ("0",)
            assert other.execute("select count(*) from pg_prepared_statements").fetchone() == (0,)


def test_a_session_of_its_own_is_known_as_one(pg_server: PgServer, database: str) -> None:
    """Without a pooler the settings are given once, at the start."""

    async def look() -> object:
        async with await Session.connect(pg_server.url(database), settings=SETTINGS) as conn:
            assert not conn.is_lent
            return await (await conn.execute(SHOWN)).fetchone()

    assert asyncio.run(look()) == DUE


@pytest.mark.parametrize("time", range(3))
def test_the_service_replays(http: httpx.Client, db: Db, company: str, time: int) -> None:
    """A replay is one transaction there, several times over: the pooler lends now one session and now the other."""
    ids = add_items(db, company, 5)
    fields = {"company_id": company, "max": 3, "idempotency_key": f"k{time}"}
    body = post(http, fields).json()
    assert (body["status"], body["items"], body["target_count"]) == ("started", ids[:3], 3)
    txids = db.execute(
        "SELECT txid FROM replay_runs WHERE company_id = %(c)s"
        " UNION SELECT txid FROM event_outbox WHERE company_id = %(c)s"
        " UNION SELECT txid FROM audit_logs WHERE scope = %(c)s::text",
        {"c": company},
    ).fetchall()
    assert len(txids) == 1
    assert value(db, "SELECT daily_used FROM replay_budgets WHERE company_id = %s", company) == 3
    assert post(http, fields).json() == body | {"duplicate": True}


def test_a_worker_ends_runs(pg_server: PgServer, migrated_db: str, tmp_path: Path) -> None:
    """It hears no notification there, and looks by itself."""
    migrated = pg_server.url(migrated_db)
    with (
        psycopg.connect(migrated, autocommit=True) as conn,
        pgbouncer(tmp_path / "pooler", pg_server.url(migrated_db, "replay_worker"), "transaction", size=2) as url,
    ):
        conn.execute("INSERT INTO feature_flags (key, enabled) VALUES ('outbox.enabled', true)")
        bench, workers = Bench(conn), Workers(url, tmp_path / "worker.log")
        run = bench.start_run(bench.company(), [{"fail_times": 0}] * 25)
        worker = workers.start()
        try:
            until(lambda: bench.run_status(run)[0] != "started", 30, "the end of the run")
            assert bench.run_status(run) == ("completed", 25, 0)
        finally:
            worker.terminate()
            assert worker.wait(10) == 0, workers.log.read_text()[-2000:]


def test_migrations_go_through_it(pg_server: PgServer, tmp_path: Path) -> None:
    """Also two at once: what keeps them apart belongs to a transaction."""
    with pg_server.database() as name:
        with pgbouncer(tmp_path, pg_server.url(name), "transaction") as url, ThreadPoolExecutor(2) as pool:
            assert set(pool.map(migrate, [url] * 2)) == {expected_version()}
            with psycopg.connect(url, prepare_threshold=None) as conn:
                row = conn.execute("select count(*) from schema_migrations").fetchone()
        assert row == (len(list(MIGRATIONS.glob("*.sql"))),)
