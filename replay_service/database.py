"""The door to PostgreSQL: a sized pool with limits on every wait, and the named queries of sql/."""

import select
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from replay_service.session import Session
from replay_service.settings import Settings

Row = tuple[Any, ...]
Connection = Session
ANSWER_S = 2.0
"""The limit of probes: a timely `not ready` is worth more than a late answer."""
CONNECT_TIMEOUT_S = 3
RECONNECT_TIMEOUT_S = 60.0


def load_queries(folder: Path) -> Mapping[str, bytes]:
    """Every named query: file name without its suffix -> text."""
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.sql"))}


QUERIES = load_queries(Path(__file__).parent / "sql")


async def fetch_row(conn: Connection, name: str, **parameters: Any) -> Row | None:
    """The first row of a named query, None where there is none. Raise psycopg.Error."""
    cursor = await conn.execute(QUERIES[name], parameters)
    return await cursor.fetchone()


async def fetch_value(conn: Connection, name: str, **parameters: Any) -> Any:
    """The first column of the first row; None where there is no row."""
    row = await fetch_row(conn, name, **parameters)
    return None if row is None else row[0]


async def fetch_rows(conn: Connection, name: str, **parameters: Any) -> list[Row]:
    """All rows of a named query."""
    cursor = await conn.execute(QUERIES[name], parameters)
    return await cursor.fetchall()


async def run(conn: Connection, name: str, **parameters: Any) -> int:
    """Run a named statement; returns the number of rows it touched."""
    cursor = await conn.execute(QUERIES[name], parameters)
    return cursor.rowcount


def _hung_up(conn: Connection) -> bool:
    """Whether the server closed an idle connection: its socket is readable only then. Costs no round trip."""
    if conn.closed:
        return True
    idle = select.poll()
    idle.register(conn.pgconn.socket, select.POLLIN)
    return bool(idle.poll(0))


class Database:
    """The pool of one process. Connections are in autocommit mode; callers open transactions explicitly."""

    def __init__(self, settings: Settings) -> None:
        self._timeout_s = settings.pool_timeout_s
        limits = {
            "statement_timeout": settings.statement_timeout_ms,
            "lock_timeout": settings.lock_timeout_ms,
            "idle_in_transaction_session_timeout": settings.idle_in_transaction_timeout_ms,
            # a killed service must not keep its key for as long as its backend waits for a lock
            "client_connection_check_interval": 1000,
        }
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            settings.database_url,
            min_size=settings.pool_min,
            max_size=settings.pool_max,
            timeout=settings.pool_timeout_s,
            reconnect_timeout=RECONNECT_TIMEOUT_S,
            open=False,
            name="replay-service",
            connection_class=Connection,
            kwargs={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "keepalives_idle": 10,
                "keepalives_interval": 3,
                "keepalives_count": 3,
                "application_name": "replay-service",
                "settings": limits,
            },
        )

    async def open(self) -> None:
        """Start connecting; does not wait, so that /healthz answers while the database is away."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        await self._pool.close(timeout=2.0)

    @asynccontextmanager
    async def connection(self, timeout_s: float | None = None) -> AsyncIterator[Connection]:
        """A connection for one request. Raise psycopg.OperationalError where there is none in time."""
        conn = await self._living(self._timeout_s if timeout_s is None else timeout_s)
        try:
            yield conn
        finally:
            await self._pool.putconn(conn)

    async def _living(self, timeout_s: float) -> Connection:
        """A connection that the server has not closed. The pool's own check would wait a second between attempts."""
        for _attempt in range(self._pool.max_size + 1):
            conn = await self._pool.getconn(timeout_s)
            if not _hung_up(conn):
                return conn
            await conn.close()
            await self._pool.putconn(conn)
        raise PoolTimeout


def is_outage(error: psycopg.Error) -> bool:
    """Whether the database was unavailable, as opposed to having refused a wrong statement."""
    return not isinstance(error, psycopg.DataError | psycopg.IntegrityError)
