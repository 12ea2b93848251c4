"""Makes the sessions in which the gate changes a target: on a primary, with the settings that a change relies on,
whatever the database, the login or a pooler have set.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from gates.deployment.sql import database
from gates.deployment.sql.connection import Answering
from gates.deployment.sql.database import execute, sql

SQL = Path(__file__).with_name("sql")
WANTED = {"synchronous_commit": ("on", "remote_apply"), "session_replication_role": ("origin",)}
"""A commit is on disk, and on a standby if the server says so; triggers fire. The first value is the default."""
STANDBY = (
    "the server is a standby (in recovery): what it shows may be old, and nothing can be changed there."
    " Have DATABASE_URL lead to the primary"
)


def connect(
    url: str,
    *,
    read_only: bool = False,
    statement_timeout_ms: int = database.STATEMENT_TIMEOUT_MS,
    idle_in_transaction_ms: int = database.IDLE_IN_TRANSACTION_MS,
) -> Answering:
    """A connection to make, or to read back, a change. Raise psycopg.Error, also if only a standby answers."""
    connection = database.connect(
        url,
        read_only=read_only,
        statement_timeout_ms=statement_timeout_ms,
        idle_in_transaction_ms=idle_in_transaction_ms,
        primary=True,
    )
    try:
        _own(connection)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def session(
    url: str, *, read_only: bool = False, idle_in_transaction_ms: int = database.IDLE_IN_TRANSACTION_MS
) -> Iterator[Answering]:
    """`connect` as a context that closes the connection."""
    connection = connect(url, read_only=read_only, idle_in_transaction_ms=idle_in_transaction_ms)
    try:
        yield connection
    finally:
        connection.close()


def _own(connection: Answering) -> None:
    found = execute(connection, sql(SQL / "acting.sql"))[0]
    if found["standby"] is not False:
        raise psycopg.OperationalError(STANDBY)
    other = {name: allowed[0] for name, allowed in WANTED.items() if found[name] not in {*allowed, None}}
    if other:
        connection.give(other)
