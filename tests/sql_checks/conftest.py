"""One seeded database a session; tests plant violations in a transaction of it that is rolled back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from gates.evidence import TargetKind
from gates.observation import Observer, Unmet
from gates.stack import seed
from gates.target.database import Connection, connect, execute
from gates.target.deployment import Target
from sql_checks.sqlsession import SqlSession
from tests.postgres_fixture import TEMPLATE, PgServer

COMPANY = "00000000-0000-4000-8000-000000000004"


@dataclass
class PlantedSession(SqlSession):
    """A session whose snapshot is the transaction that a test has open, with what it planted."""

    planted: Connection | None = None

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        assert self.planted is not None
        yield self.planted


@pytest.fixture(scope="session")
def seeded_db(pg_server: PgServer) -> Iterator[str]:
    """The name of a database with the reference's history."""
    name = pg_server.create_database(TEMPLATE)
    seed.write(pg_server.url(name), COMPANY)
    yield name
    pg_server.drop_database(name)


@pytest.fixture(scope="session")
def seeded_url(pg_server: PgServer, seeded_db: str) -> str:
    """The superuser's URL of the seeded database. Leave it as it is."""
    return pg_server.url(seeded_db)


@pytest.fixture
def planted(seeded_url: str) -> Iterator[PlantedSession]:
    """An open transaction on the seeded database; rolled back at the end."""
    connection = connect(seeded_url)
    execute(connection, "begin transaction isolation level repeatable read")
    execute(connection, "set local search_path = pg_catalog, pg_temp")
    execute(connection, "set local timezone = 'UTC'")
    try:
        yield PlantedSession(seeded_url, planted=connection)
    finally:
        connection.rollback()
        connection.close()


def outcome_of(judge: Callable[[Observer], None]) -> tuple[str, str, Observer]:
    """`pass`, `fail` or `unknown` of one judgement, its message, and what was seen, as the recorder decides it."""
    observer = Observer(Target(TargetKind.REFERENCE))
    try:
        judge(observer)
    except AssertionError as error:
        return "fail", str(error), observer
    except Unmet as error:
        return "unknown", str(error), observer
    return ("pass" if observer.samples and observer.controls else "unknown"), "", observer
