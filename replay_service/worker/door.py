"""The worker's access to PostgreSQL: connections with limits on every wait, and named statements."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from replay_service.session import Session

Row = tuple[Any, ...]
Connection = Session
Queries = Mapping[str, bytes]

CONNECT_TIMEOUT_S = 5
STATEMENT_LIMIT_S = 45.0  # beyond the server's own limit: for a server that answers nothing at all
RECONNECT_PAUSE_S = 0.5
# Before a burst the statistics describe an empty outbox, so plans must not depend on them: without sequential scans
# and sorts, each statement has one index to use. A generic plan is then as good as a custom one, and planning a sweep
# costs five times as much as running it.
SESSION: Mapping[str, str] = {
    "statement_timeout": "30s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "enable_seqscan": "off",
    "enable_sort": "off",
    "enable_incremental_sort": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "work_mem": "16MB",
}
_LOG = logging.getLogger("replay_service.worker")


def _arguments() -> dict[str, Any]:
    return {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "settings": SESSION,
        "application_name": "replay-worker",
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection outside of the pool."""
    async with await Connection.connect(url, **_arguments()) as conn:
        yield conn


def settling_pool(url: str, size: int) -> AsyncConnectionPool[Connection]:
    """A pool, not yet open."""
    return AsyncConnectionPool(
        url,
        connection_class=Connection,
        kwargs=_arguments(),
        min_size=1,
        max_size=size,
        timeout=10.0,
        open=False,
        check=AsyncConnectionPool.check_connection,
    )


async def rows(conn: Connection, text: bytes, **parameters: Any) -> list[Row]:
    """All rows of a statement. Raise psycopg.Error or TimeoutError."""
    async with asyncio.timeout(STATEMENT_LIMIT_S):
        cursor = await conn.execute(text, parameters)
        return await cursor.fetchall() if cursor.description else []


async def keep_at(name: str, url: str, work: Callable[[Connection], Awaitable[None]], stop: asyncio.Event) -> None:
    """Run `work` on a connection until `stop`; reconnect after any database error."""
    while not stop.is_set():
        try:
            async with connected(url) as conn:
                await work(conn)
        except (psycopg.Error, TimeoutError, OSError) as error:
            if stop.is_set():
                return
            _LOG.warning("database lost", extra={"fields": {"task": name, "error": type(error).__name__}})
            await wait_for(stop, RECONNECT_PAUSE_S)


async def wait_for(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait until the event is set or the time is over; whether it is set."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
    return event.is_set()
