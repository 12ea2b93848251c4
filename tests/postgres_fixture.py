"""A pytest plugin: one PostgreSQL server a session and a fresh migrated database a test.

The server is the embedded one, started by the stack's own launcher; REPLAYGATE_TEST_PG_BIN names another server's `bin`
folder (the suite also runs on the oldest supported version).
"""

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from gates.rehearsal.postgres import installation
from gates.stack import rundir
from gates.stack.account import Account, postgres_account
from gates.stack.postgres import Postgres
from gates.stack.spawner import Spawner
from replay_service.migrate import migrate

LOGIN_ROLES = ("replay_service", "replay_worker", "replay_gate")
PASSWORD = "7e57" * 8
TEMPLATE = "template_migrated"
INITDB = Postgres.create


@dataclass(frozen=True)
class PgServer:
    """A running server; `url` of a database as the superuser, or as one of LOGIN_ROLES."""

    postgres: Postgres
    superuser: psycopg.Connection[Any]

    def url(self, dbname: str, role: str | None = None) -> str:
        return self.postgres.server.url(dbname, role, PASSWORD)

    def create_database(self, template: str = "template0") -> str:
        """A new database of random name; returns the name."""
        name = f"test_{uuid.uuid4().hex}"
        copy = "CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy"  # its checkpoint syncs nothing: a third of the time
        self.superuser.execute(sql.SQL(copy).format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop_database(self, name: str) -> None:
        """Drop it, and end the sessions in it."""
        self.superuser.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """The name of a new database, which is dropped at the end of the block."""
        name = self.create_database(template)
        try:
            yield name
        finally:
            self.drop_database(name)


@pytest.fixture(scope="session")
def account() -> Account:
    return postgres_account()


@pytest.fixture(scope="session")
def initialised(account: Account) -> Iterator[Callable[[Postgres], None]]:
    """Replaces `create` by a copy of its result, so that initdb runs once for each version and password."""
    made: dict[tuple[object, ...], rundir.RunFolder] = {}
    spawner = Spawner()

    def give(server: Postgres) -> None:
        password = server.server.password
        key = installation.major(server._bin), server._set, password
        if key not in made:
            made[key] = rundir.create(rundir.places(os.environ, account), account)
            INITDB(Postgres(made[key], account, spawner, password, None if server._set else server._bin))
        kept = made[key].path / rundir.DATA
        subprocess.run(["cp", "-a", str(kept.parent), str(server.data.parent)], check=True)

    yield give
    spawner.close()
    for run in made.values():
        run.remove()


@pytest.fixture(scope="session")
def pg_server(account: Account) -> Iterator[PgServer]:
    """The session's server, empty but for the migrated template."""
    run = rundir.create(rundir.places(os.environ, account), account)
    spawner = Spawner()
    programs = os.environ.get("REPLAYGATE_TEST_PG_BIN")
    postgres = Postgres(run, account, spawner, PASSWORD, Path(programs) if programs else None)
    try:
        postgres.create()
        with (postgres.data / "postgresql.auto.conf").open("a", encoding="utf-8") as conf:
            conf.write("max_prepared_transactions = 2\n")
        postgres.start()
        with psycopg.connect(postgres.server.url("postgres"), autocommit=True) as superuser:
            # who alters a table that is being analysed waits for that, and that for the row of pg_statistic: a deadlock
            superuser.execute("ALTER SYSTEM SET autovacuum_naptime = '1d'")
            superuser.execute("SELECT pg_reload_conf()")
            server = PgServer(postgres, superuser)
            _make_template(server)
            yield server
    finally:
        postgres.stop()
        spawner.close()
        run.remove()


def sql_at(url: str, *statements: str) -> None:
    """Run the statements beside a test, each committed by itself."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def _make_template(server: PgServer) -> None:
    server.superuser.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    migrate(server.url(TEMPLATE))
    for role in LOGIN_ROLES:
        login = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(PASSWORD))
        server.superuser.execute(login)


@pytest.fixture
def migrated_db(pg_server: PgServer) -> Iterator[str]:
    with pg_server.database(TEMPLATE) as name:
        yield name


@pytest.fixture
def migrated_url(pg_server: PgServer, migrated_db: str) -> str:
    """The superuser's URL of a fresh migrated database."""
    return pg_server.url(migrated_db)


@pytest.fixture
def gate_url(pg_server: PgServer, migrated_db: str) -> str:
    """The URL of the same database for the least role that a gate needs."""
    return pg_server.url(migrated_db, "replay_gate")


@pytest.fixture(params=["migrated_url", "gate_url"])
def either_url(request: pytest.FixtureRequest) -> str:
    """The superuser's, and that of the least role."""
    return str(request.getfixturevalue(request.param))
