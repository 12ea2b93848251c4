"""The SQL door: connections with limits, and SQL read from .sql files beside the module that uses it.

Every wait has a limit on both sides. The server ends a session of ours that is left in a transaction and notices a
client that the network cut off; the client closes a connection whose server no longer answers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import dict_row

from gates.deployment.cells import TOLERANCE

STATEMENT_TIMEOUT_MS = 10_000
LOCK_TIMEOUT_MS = 2_000
IDLE_IN_TRANSACTION_MS = 60_000
"""Longer than the longest step of a drill that keeps a transaction open, and than the time between two renewals."""
CONNECT_TIMEOUT_S = 5
ANSWER_GRACE_S = 5.0
"""How long the client waits for an answer after the server's own limit: what is later than this never comes."""
KEEPALIVE: Mapping[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""For the client; the server is asked for the same."""
PINNED = {"search_path": "pg_catalog,pg_temp"}
"""A name without a schema is PostgreSQL's own, whatever an owner of the target made in `public` under that name."""
READABLE: Mapping[str, object] = {
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": 1,
}
"""How values are written to us: a server may be set up to write them so that no driver reads them."""

T = TypeVar("T")
Connection = psycopg.Connection[dict[str, object]]


class Answering(Connection):
    """A connection that ends a statement without an answer in time: TCP alone waits for ever behind a live proxy."""

    answer_limit_s: float = STATEMENT_TIMEOUT_MS / 1000 + ANSWER_GRACE_S

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        limit_s = self.answer_limit_s if timeout is None else min(timeout, self.answer_limit_s)
        return super().wait(self._limited(gen, limit_s), interval)

    def _limited(self, gen: PQGen[T], limit_s: float) -> PQGen[T]:
        until = time.monotonic() + limit_s
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if time.monotonic() > until:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"the server gave no answer within {limit_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            answer: T = end.value
            return answer


def connect(
    url: str,
    *,
    read_only: bool = False,
    autocommit: bool = True,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    idle_in_transaction_ms: int = IDLE_IN_TRANSACTION_MS,
) -> Answering:
    """A connection whose every wait has a limit. Raise psycopg.OperationalError where there is no database."""
    settings = {
        "statement_timeout": statement_timeout_ms,
        "lock_timeout": LOCK_TIMEOUT_MS,
        "idle_in_transaction_session_timeout": idle_in_transaction_ms,
        "default_transaction_read_only": "on" if read_only else "off",
        **{name if name.startswith("tcp_") else f"tcp_{name}": limit for name, limit in KEEPALIVE.items()},
        **PINNED,
        **READABLE,
    }
    connection = Answering.connect(
        url,
        autocommit=autocommit,
        connect_timeout=CONNECT_TIMEOUT_S,
        options=" ".join(f"-c {name}={setting}" for name, setting in settings.items()),
        application_name="replaygate",
        row_factory=dict_row,
        context=TOLERANCE,
        **KEEPALIVE,
    )
    connection.answer_limit_s = statement_timeout_ms / 1000 + ANSWER_GRACE_S
    return connection


@contextmanager
def session(
    url: str, *, read_only: bool = False, idle_in_transaction_ms: int = IDLE_IN_TRANSACTION_MS
) -> Iterator[Answering]:
    """A connection that is closed at the end."""
    connection = connect(url, read_only=read_only, idle_in_transaction_ms=idle_in_transaction_ms)
    try:
        yield connection
    finally:
        connection.close()


@cache
def sql(path: Path) -> str:
    """The text of a .sql file."""
    return path.read_text(encoding="utf-8")


def execute(connection: Connection, statement: str, *params: object) -> list[dict[str, object]]:
    """Run one statement; the rows it gave, or an empty list for a statement without rows."""
    cursor = connection.execute(statement.encode(), params or None)
    return cursor.fetchall() if cursor.description else []


def value(connection: Connection, statement: str, *params: object) -> object:
    """The first column of the first row, or None."""
    rows = execute(connection, statement, *params)
    return next(iter(rows[0].values())) if rows else None
