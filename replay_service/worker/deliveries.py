"""Leased deliveries: many at once, each in its own slot, settled only while its lease is still held."""

import asyncio
import logging
import random
import uuid
from collections import defaultdict
from collections.abc import Callable

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from replay_service.worker.agents import Event, Failure
from replay_service.worker.door import Connection, rows
from replay_service.worker.parts import WorkerParts
from replay_service.worker.runs import settle_item

SETTLE_ATTEMPTS = 4
RETRY_PAUSE_S = 0.05
RELEASE_LIMIT_S = 1.0
TRANSIENT = (psycopg.OperationalError, PoolTimeout, TimeoutError)
_LOG = logging.getLogger("replay_service.worker")


class Deliveries:
    """The deliveries in progress. `wake` is called after each, since more work may be possible then."""

    def __init__(self, parts: WorkerParts, pool: AsyncConnectionPool[Connection], wake: Callable[[], None]) -> None:
        self._parts, self._pool, self._wake = parts, pool, wake
        self._running: dict[asyncio.Task[None], tuple[int, uuid.UUID]] = {}
        self._is_closing = False

    @property
    def free(self) -> int:
        return 0 if self._is_closing else self._parts.settings.slots - len(self._running)

    def start(self, events: list[Event], token: uuid.UUID) -> None:
        """Deliver leased events in the background."""
        for event in events:
            task = asyncio.create_task(self._deliver(event, token))
            self._running[task] = (event.outbox_id, token)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._wake()

    async def _deliver(self, event: Event, token: uuid.UUID) -> None:
        try:
            failure = await self._parts.agent.deliver(event)
        except Exception as error:  # noqa: BLE001  -- whatever the agent raises, its event must be settled
            _LOG.exception("agent broke", extra={"fields": {"event_id": event.event_id}})
            failure = Failure("agent_error", type(error).__name__)
        await self._settle(event, token, failure)

    async def _settle(self, event: Event, token: uuid.UUID, failure: Failure | None) -> None:
        """Settle; retry while the database is busy or gone. If that fails, the lease expires: another delivery."""
        record_task = True
        for attempt in range(1, SETTLE_ATTEMPTS + 1):
            try:
                async with self._pool.connection() as conn:
                    await self._settle_on(conn, event, token, failure, record_task=record_task)
            except TRANSIENT as error:
                _note(event, "settling delayed", error)
                await asyncio.sleep(RETRY_PAUSE_S * 2**attempt * (0.5 + random.random()))  # noqa: S311  -- jitter
            except psycopg.Error as error:
                # the database refuses the effect itself: that is a failed attempt, told without the error's text
                _note(event, "effect refused", error)
                record_task = failure is None
                failure = failure or Failure("effect_refused", f"the database refused the effect: {error.sqlstate}")
            else:
                return

    async def _settle_on(
        self, conn: Connection, event: Event, token: uuid.UUID, failure: Failure | None, *, record_task: bool
    ) -> None:
        queries, settings = self._parts.queries, self._parts.settings
        names = {"id": event.outbox_id, "token": token, "agent": self._parts.agent.name}
        if event.replay_run_id is not None:
            await settle_item(conn, self._parts, event, token, failure, record_task=record_task)
        elif failure is None:
            await rows(conn, queries["settle_delivered"], **names)
        else:
            await rows(
                conn,
                queries["settle_failed"],
                **names,
                **settings.backoff,
                error_type=failure.error_type,
                error_message=failure.message,
                record_task=record_task,
            )

    async def close(self, grace_s: float) -> None:
        """Wait a while for deliveries to end, then release the leases of the rest."""
        self._is_closing = True
        if self._running:
            await asyncio.wait(list(self._running), timeout=grace_s)
        left: dict[uuid.UUID, list[int]] = defaultdict(list)
        for task, (outbox_id, token) in list(self._running.items()):
            task.cancel()
            left[token].append(outbox_id)
        if not left:
            return
        await asyncio.wait(list(self._running), timeout=RELEASE_LIMIT_S)
        try:
            async with asyncio.timeout(RELEASE_LIMIT_S), self._pool.connection() as conn:
                for token, ids in left.items():
                    await rows(conn, self._parts.queries["release_leases"], ids=ids, token=token)
        except (*TRANSIENT, psycopg.Error) as error:
            _LOG.warning("leases not released", extra={"fields": {"error": type(error).__name__}})


def _note(event: Event, message: str, error: BaseException) -> None:
    fields = {"event_id": event.event_id, "error": type(error).__name__, "sqlstate": getattr(error, "sqlstate", None)}
    _LOG.warning(message, extra={"fields": fields})
