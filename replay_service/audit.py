"""Audit rows: appended in the caller's transaction, or, for refusals, in a small one of their own."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import psycopg

from replay_service.database import Connection, Database, fetch_value, run

ONCE_A_MINUTE = frozenset({"forbidden", "rate_limited"})
FLUSH_EVERY_S = 1.0
MAX_BACKLOG = 1000
MAX_COUNTERS = 10_000
_LOG = logging.getLogger("replay_service.audit")


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row to append; id, hashes and clock are the database's."""

    action: str
    actor: str
    scope: str
    request_id: str
    target_count: int = 0
    success_count: int = 0
    failure_count: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)


async def append(conn: Connection, row: AuditRow) -> None:
    """Append in the open transaction. The head of the scope's chain stays locked until it ends: do this last."""
    await run(
        conn,
        "append_audit",
        action=row.action,
        actor=row.actor,
        scope=row.scope,
        target_count=row.target_count,
        success_count=row.success_count,
        failure_count=row.failure_count,
        metadata=msgspec.json.encode(row.metadata).decode(),
        request_id=row.request_id,
    )


@dataclass(frozen=True, slots=True)
class RefusalNote:
    """A refusal to be audited: `refused` requests with this code."""

    code: str
    scope: str
    actor: str
    request_id: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    refused: int = 1


async def record(conn: Connection, note: RefusalNote) -> float:
    """Write or count a refusal in a transaction of its own. Returns the seconds until another row may be written."""
    return float(
        await fetch_value(
            conn,
            "record_refusal",
            scope=note.scope,
            code=note.code,
            refused=note.refused,
            actor=note.actor,
            metadata=msgspec.json.encode(note.metadata).decode(),
            request_id=note.request_id,
            once_a_minute=note.code in ONCE_A_MINUTE,
        )
    )


class RefusalLog:
    """Audits refusals. Of `forbidden` and `rate_limited` one row a minute, scope and code is written.

    The first of a minute is written at once. The others of that minute are counted in memory and added every second to
    the counter row that all instances share; the first instance to flush after the minute writes them as one row with
    their count. A killed process loses at most the counts of its last second.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._quiet_until: dict[tuple[str, str], float] = {}
        self._counted: dict[tuple[str, str], RefusalNote] = {}
        self._backlog: deque[RefusalNote] = deque(maxlen=MAX_BACKLOG)
        self.failures = 0
        """Refusals that could not be written at once and wait to be tried again."""

    async def note(self, conn: Connection, note: RefusalNote) -> None:
        """Audit one refusal. Never raises: a failed write must not change the answer."""
        key = (note.scope, note.code)
        if note.code in ONCE_A_MINUTE and self._clock() < self._quiet_until.get(key, 0.0):
            self._count(note)
            return
        try:
            wait_s = await record(conn, note)
        except psycopg.Error as error:
            self.failures += 1
            self._backlog.append(note)
            _LOG.error("refusal not audited yet", extra={"fields": {"code": note.code, "error": type(error).__name__}})
            return
        if note.code in ONCE_A_MINUTE and len(self._quiet_until) < MAX_COUNTERS:
            self._quiet_until[key] = self._clock() + wait_s

    def _count(self, note: RefusalNote) -> None:
        key = (note.scope, note.code)
        before = self._counted.get(key)
        self._counted[key] = replace(note, refused=note.refused + (before.refused if before else 0))

    async def flush(self) -> None:
        """Hand over what was counted, try again what failed, and write the rows of minutes that are over."""
        now = self._clock()
        self._quiet_until = {key: until for key, until in self._quiet_until.items() if until > now}
        waiting = [*self._counted.values(), *self._backlog]
        self._counted.clear()
        self._backlog.clear()
        try:
            async with self._database.connection() as conn:
                while waiting:
                    await record(conn, waiting[-1])
                    waiting.pop()
                await run(conn, "flush_refusals")
        except psycopg.Error as error:
            _LOG.warning("refusals wait for the database", extra={"fields": {"error": type(error).__name__}})
        for note in waiting:
            if note.code in ONCE_A_MINUTE:
                self._count(note)
            else:
                self._backlog.append(note)

    async def run(self) -> None:
        """Flush every second until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(FLUSH_EVERY_S)
                await self.flush()
        finally:
            await asyncio.wait_for(asyncio.shield(self.flush()), timeout=2.0)
