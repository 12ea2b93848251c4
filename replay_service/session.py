"""What service, worker and migrations rely on in each of their sessions, whatever a server, database or login sets, and
whether it is a session of their own or one that a pooler lends.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection, AsyncCursor, AsyncTransaction, IsolationLevel
from psycopg.pq import PipelineStatus

Row = tuple[Any, ...]
REFUSED_AT_START = re.compile("parameter|option", re.IGNORECASE)
"""What a pooler speaks of that lets no client choose the settings of a session as it starts."""
_LENT: set[str] = set()
"""Databases at which a pooler was met."""

RELIED_ON: Mapping[str, str] = {
    "TimeZone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "row_security": "on",
}


def startup_options(settings: Mapping[str, object]) -> str:
    """The startup parameter `options` of a session with these settings beside those that are relied on."""
    written = [(name, str(setting).replace(" ", "\\ ")) for name, setting in {**RELIED_ON, **settings}.items()]
    return " ".join(f"-c {name}={setting}" for name, setting in written)


def pinning(settings: Mapping[str, object]) -> bytes:
    """The statement that gives these settings, beside those that are relied on, to the transaction that it is in."""
    calls = [
        f"pg_catalog.set_config('{name}', '{setting}', true)" for name, setting in {**RELIED_ON, **settings}.items()
    ]
    return f"SELECT {', '.join(calls)}".encode()


class Session(AsyncConnection[Row]):
    """A connection in autocommit with the settings of its user. Behind a pooler, which may lend the next transaction
    another session, each transaction begins with them in its first round trip, and nothing is prepared.

    `pins`: the statement that does so; empty where the session is ours for as long as we are connected.
    """

    pins: bytes = b""
    _depth = 0

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """As psycopg's, with `settings`. Raise psycopg.OperationalError where there is no database."""
        settings: Mapping[str, object] = kwargs.pop("settings")
        if conninfo not in _LENT and (ours := await cls._ours(conninfo, settings, kwargs)):
            return ours
        lent = await super().connect(conninfo, autocommit=True, prepare_threshold=None, **kwargs)
        await lent.set_isolation_level(IsolationLevel.READ_COMMITTED)
        await lent.set_read_only(False)
        lent.pins = pinning(settings)
        _LENT.add(conninfo)
        return lent

    @classmethod
    async def _ours(cls, conninfo: str, settings: Mapping[str, object], kwargs: Mapping[str, Any]) -> Self | None:
        """A connection to a session of our own; None where a pooler lends it: that takes no options of a client's, or
        has told the client another number than the session has.
        """
        options = startup_options(settings)
        try:
            conn = await super().connect(conninfo, autocommit=True, prepare_threshold=0, options=options, **kwargs)
        except psycopg.OperationalError as error:
            if REFUSED_AT_START.search(str(error)):
                return None
            raise
        asked = await super(Session, conn).execute("SELECT pg_catalog.pg_backend_pid()", prepare=False)
        row = await asked.fetchone()
        if row is not None and row[0] == conn.info.backend_pid:
            return conn
        await conn.close()
        return None

    @property
    def is_lent(self) -> bool:
        """Whether nothing that belongs to a session (LISTEN) lasts for longer than a transaction."""
        return bool(self.pins)

    async def execute(self, query: Any, params: Any = None, **options: Any) -> AsyncCursor[Row]:
        """As psycopg's; behind a pooler a statement by itself is a transaction in one round trip."""
        if not self.pins or self._depth:
            return await super().execute(query, params, **options)
        try:
            async with self.pipeline():
                await super().execute(b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
                await super().execute(self.pins)
                cursor = await super().execute(query, params, **options)
                await super().execute(b"COMMIT")
        except psycopg.Error:
            if not self.closed:
                await self.rollback()
            raise
        except BaseException:  # what came of it is not known
            await self.close()
            raise
        return cursor

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[AsyncTransaction]:
        """As psycopg's; behind a pooler an outermost one begins with the settings."""
        if not self.pins or self._depth:
            async with super().transaction(savepoint_name, force_rollback) as block:
                yield block
            return
        self._depth += 1
        try:
            if self.pgconn.pipeline_status != PipelineStatus.OFF:
                async with super().transaction(savepoint_name, force_rollback) as block:
                    await super().execute(self.pins)
                    yield block
                return
            async with AsyncExitStack() as stack:
                async with self.pipeline():
                    block = await stack.enter_async_context(AsyncTransaction(self, savepoint_name, force_rollback))
                    await super().execute(self.pins)
                yield block
        finally:
            self._depth -= 1
