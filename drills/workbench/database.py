"""The target's database: statements by text or file name, and separate transactions."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg

from gates.checks.recorder import Unmet
from gates.deployment.dialect.current import tenant_session
from gates.deployment.sql.connection import Answering
from gates.deployment.sql.database import Connection, connect, execute, sql, value
from gates.deployment.sql.failures import in_words
from gates.deployment.sql.kept import borrowed
from gates.deployment.target import Target

SQL = Path(__file__).with_name("sql")


@cache
def query(name: str) -> str:
    """The statement of `sql/<name>.sql`."""
    return sql(SQL / f"{name}.sql")


class SqlDoor:
    """The session's SQL connection, opened again if a check lost it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Answering | None = None

    def connection(self) -> Answering:
        if self._connection is None or self._connection.closed or self._connection.broken:
            try:
                self._connection = connect(self._url)
            except psycopg.OperationalError as error:
                raise Unmet(f"the database does not answer: {in_words(error)}") from error
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class Release(Thread):
    """Ends the transaction of a connection after a while; `released` is set just before it does."""

    def __init__(self, connection: Connection, seconds: float) -> None:
        super().__init__(daemon=True)
        self.released = Event()
        self._connection, self._seconds = connection, seconds

    def run(self) -> None:
        time.sleep(self._seconds)
        self.released.set()
        with suppress(psycopg.Error):  # the check ended early: its end released already
            self._connection.commit()


@dataclass
class Database:
    """What a check asks the database, through the session's connection or one of its own."""

    target: Target
    db: Answering

    def rows(self, statement: str, *params: object) -> list[dict[str, Any]]:
        return execute(self.db, statement, *params)

    def one(self, statement: str, *params: object) -> dict[str, Any]:
        """The first row of a statement; an empty mapping where there is none."""
        found = execute(self.db, statement, *params)
        return found[0] if found else {}

    def value(self, statement: str, *params: object) -> Any:
        """The first column of the first row, or None."""
        return value(self.db, statement, *params)

    def number(self, statement: str, *params: object) -> int:
        return int(str(value(self.db, statement, *params) or 0))

    def minutes(self) -> Callable[[], int]:
        """Start counting minutes. The returned function tells how many rows a once-a-minute writer may have written
        since, with clocks up to two seconds apart.
        """
        first = self.value("select date_trunc('minute', clock_timestamp() - interval '2 seconds')")
        last = "date_trunc('minute', clock_timestamp() + interval '2 seconds')"
        return lambda: 1 + self.number(f"select (extract(epoch from {last} - %s) / 60)::integer", first)

    def count(self, table: str, company: str, where: str = "true", *params: object) -> int:
        """How many rows of a table a tenant has for which this holds."""
        return self.number(f"select count(*) from public.{table} where company_id = %s and {where}", company, *params)

    @contextmanager
    def transaction(self) -> Iterator[Answering]:
        """A second connection with an open transaction; rolled back at the end unless committed before."""
        with borrowed(self.target.database_url, autocommit=False) as connection:
            yield connection

    @contextmanager
    def undone(self) -> Iterator[Answering]:
        """The session's connection, in a transaction that is rolled back: a second one is far away from afar."""
        with self.db.transaction(force_rollback=True):
            yield self.db

    @contextmanager
    def locked(self, table: str, company: str) -> Iterator[Answering]:
        """A transaction that locks a tenant's rows of a table; their writers wait for its end."""
        with self.transaction() as holder:
            execute(holder, f"select from public.{table} where company_id = %s for update", company)
            yield holder

    def refused_by_database(self, statement: str, *params: object) -> bool:
        """Whether the database refuses a statement for its meaning; trouble of another kind is raised."""
        try:
            with self.db.at_once(end=b"rollback"):
                self.db.execute(statement.encode(), params or None)
        except (psycopg.OperationalError, psycopg.errors.SyntaxError, psycopg.errors.UndefinedTable):
            raise
        except psycopg.Error:
            return True
        return False

    @contextmanager
    def as_tenant(self, company: str, *, role: str = "authenticated") -> Iterator[Connection]:
        """A transaction as a tenant comes in: role and claims are set locally, all is rolled back. No claims: ''."""
        given = {"sub": str(uuid.uuid4()), "role": role, "company_id": company}
        setting, claims = tenant_session(given)
        with self.undone() as connection:
            with connection.pipeline():
                execute(connection, "select set_config(%s, %s, true)", setting, claims if company else "")
                execute(connection, f"set local role {role}")
            yield connection

    def changed_as_tenant(self, company: str, statement: str, *params: object) -> int:
        """How many rows a statement changes for a tenant; 0 where it is refused."""
        try:
            with self.as_tenant(company) as connection:
                return connection.execute(statement.encode(), params or None).rowcount
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.RaiseException):
            return 0

    @staticmethod
    def released_after(connection: Answering, seconds: float) -> Release:
        """End the transaction of a connection after so long, from another thread, also where its check ended before."""
        connection.may_be_kept = False
        release = Release(connection, seconds)
        release.start()
        return release
