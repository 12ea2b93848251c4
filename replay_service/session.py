"""Database sessions with fixed settings, whatever server, database or login set, also behind a pooler that gives each
transaction another session.
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
"""The words of a pooler that refuses startup options."""
_LENT: set[str] = set()
"""URLs that were found to lead to a pooler."""

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
    """A connection in autocommit with its settings. Behind a pooler each transaction sets them in its first round trip,
    and nothing is prepared. `pins`: the statement that sets them; empty without a pooler.
    """

    pins: bytes = b""
    _depth = 0

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """As psycopg's, with `settings`. Raise psycopg.OperationalError where there is no database."""
        settings: Mapping[str, object] = kwargs.pop("settings")
        if conninfo not in _LENT and (direct := await cls._direct(conninfo, settings, kwargs)):
            return direct
        lent = await super().connect(conninfo, autocommit=True, prepare_threshold=None, **kwargs)
        await lent.set_isolation_level(IsolationLevel.READ_COMMITTED)
        await lent.set_read_only(False)
        lent.pins = pinning(settings)
        _LENT.add(conninfo)
        return lent

    @classmethod
    async def _direct(cls, conninfo: str, settings: Mapping[str, object], kwargs: Mapping[str, Any]) -> Self | None:
        """A direct connection; None behind a pooler, which refuses startup options or reports another backend pid."""
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
        """Whether a pooler may give each transaction another session, so that session state (LISTEN) is lost."""
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
        except BaseException:  # its outcome is unknown
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
