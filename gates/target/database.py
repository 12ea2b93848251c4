"""The SQL door: connections with limits, and SQL read from .sql files beside the module that uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg
from psycopg.rows import dict_row

STATEMENT_TIMEOUT_MS = 10_000
LOCK_TIMEOUT_MS = 2_000
CONNECT_TIMEOUT_S = 5

Connection = psycopg.Connection[dict[str, object]]

PINNED = "-c search_path=pg_catalog,pg_temp"
"""A name without a schema is PostgreSQL's own, whatever an owner of the target made in `public` under that name."""

READABLE = "-c datestyle=ISO -c intervalstyle=postgres -c bytea_output=hex -c extra_float_digits=1"
"""How values are written to us: a server may be set up to write them so that no driver reads them."""


def connect(url: str, *, read_only: bool = False, autocommit: bool = True) -> Connection:
    """A connection whose every statement has a limit. Raise psycopg.OperationalError where there is no database."""
    options = f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS} {PINNED} {READABLE}"
    if read_only:
        options += " -c default_transaction_read_only=on"
    return psycopg.connect(
        url,
        autocommit=autocommit,
        connect_timeout=CONNECT_TIMEOUT_S,
        options=options,
        application_name="replaygate",
        row_factory=dict_row,
    )


@contextmanager
def session(url: str, *, read_only: bool = False) -> Iterator[Connection]:
    """A connection that is closed at the end."""
    connection = connect(url, read_only=read_only)
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
