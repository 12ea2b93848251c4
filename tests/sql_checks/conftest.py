"""One seeded database, renewed when it is old; tests plant violations in a transaction that is rolled back."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import psycopg
import pytest

from gates.checks.observation import Observer, Unmet
from gates.deployment.sql.connection import Answers
from gates.deployment.sql.database import Connection, connect, execute
from gates.deployment.target import Target
from gates.evidence import TargetKind
from gates.stack import seed
from sql_checks.rules.file import read_all_rules
from sql_checks.sqlsession import SqlSession
from tests.postgres_fixture import TEMPLATE, PgServer

C = TypeVar("C")
W = TypeVar("W")
COMPANY = "00000000-0000-4000-8000-000000000004"
RULES = {rule.name: rule for rule in read_all_rules()}


@dataclass
class PlantedSession(SqlSession):
    """A session whose snapshot is the test's open transaction with the planted rows."""

    planted: Connection = field(kw_only=True)

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        yield self.planted

    def ask(self, *statements: str) -> Answers:
        return [self.planted.execute(statement.encode()) for statement in statements]


FRESH_S = 120.0
"""The alerts look at windows of five and ten minutes: a history that was written earlier than this is written anew."""


@pytest.fixture(scope="session")
def seeds(pg_server: PgServer) -> Iterator[Callable[[], str]]:
    """Gives the name of a database with the reference's history, at most FRESH_S old."""
    made: list[tuple[str, float]] = []

    def fresh() -> str:
        if not made or time.monotonic() - made[-1][1] > FRESH_S:
            name = pg_server.create_database(TEMPLATE)
            made.append((name, time.monotonic()))
            seed.write(pg_server.url(name), COMPANY)
        return made[-1][0]

    yield fresh
    for name, _ in made:
        pg_server.drop_database(name)


@pytest.fixture
def seeded_db(seeds: Callable[[], str]) -> str:
    """The name of a database with the reference's history."""
    return seeds()


@pytest.fixture
def seeded_url(pg_server: PgServer, seeded_db: str) -> str:
    """The superuser's URL of the seeded database. Leave it as it is."""
    return pg_server.url(seeded_db)


@pytest.fixture
def clone(pg_server: PgServer, seeded_db: str) -> Iterator[str]:
    """The name of a copy of the seeded database, to be broken."""
    with pg_server.database(seeded_db) as name:
        yield name


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


def wrong_together(
    connection: Connection, cases: Sequence[C], plant: Callable[[C], None], judge: Callable[[Sequence[C]], W]
) -> list[W]:
    """A judge's complaints about cases planted at once. On a complaint, halves are judged alone, down to single cases;
    cases that cannot be planted beside others are a group of their own. Raise psycopg.Error if one cannot be
    planted at all.
    """
    left, wrong = [list(cases)], []
    while left:
        together, later = [], []
        with connection.transaction(force_rollback=True):
            for case in left.pop():
                try:
                    with connection.transaction():
                        plant(case)
                    together.append(case)
                except psycopg.Error:
                    if not together:  # nothing is there yet that could disturb it
                        raise
                    later.append(case)
            said = judge(together)
        if said and len(together) > 1:
            left += [together[::2], together[1::2]]
        elif said:
            wrong.append(said)
        left += [later] * bool(later)
    return wrong
