"""Sweeps over the lanes of the outbox, one lane after the other, each in the order of its ids.

A sweep reads each lane once, from a given id to its end, one window of rows a statement. The statement itself delivers
ordinary events; all others are leased and handed to the deliveries.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from replay_service.worker.agents import Event
from replay_service.worker.deliveries import Deliveries
from replay_service.worker.door import Connection, rows
from replay_service.worker.parts import WorkerParts
from replay_service.worker.runs import claim_items

LANES = 16  # the schema's: event_outbox.lane


@dataclass(slots=True)
class Sweep:
    """What a sweep did: events delivered or leased, and the last id examined in each lane."""

    moved: int = 0
    ends: list[int] = field(default_factory=lambda: [0] * LANES)


@dataclass(frozen=True, slots=True)
class Step:
    """One window: rows examined, their last id, events delivered or leased, whether items of runs wait."""

    examined: int
    last_id: int
    moved: int
    has_items: bool


class Sweeper:
    """Sweeps on a connection. `moving` is called after every statement, to show progress."""

    def __init__(
        self, parts: WorkerParts, deliveries: Deliveries, stop: asyncio.Event, moving: Callable[[], None]
    ) -> None:
        self._parts, self._deliveries, self._stop, self._moving = parts, deliveries, stop, moving

    async def sweep(
        self, conn: Connection, lanes: Sequence[int], after: Sequence[int], share: Callable[[], Sequence[int]]
    ) -> Sweep:
        """Sweep `lanes` from the ids `after`. A full window means a backlog: from then on only lanes of `share()`."""
        done = Sweep(ends=list(after))
        found = {r[0] for r in await rows(conn, self._parts.queries["lanes_with_rows"], after=list(after))}
        live = [lane for lane in lanes if lane in found]
        has_items = False
        while live and not self._stop.is_set():
            for lane in tuple(live):
                if lane not in live:
                    continue
                step = await self._step(conn, lane, done.ends[lane])
                self._moving()
                done.ends[lane] = step.last_id
                done.moved += step.moved
                has_items |= step.has_items
                if step.examined < self._parts.settings.window:
                    live.remove(lane)
                elif step.moved:
                    kept = share()
                    live = [other for other in live if other in kept]
        if has_items:
            done.moved += await self._lease_items(conn)
        self._moving()
        return done

    async def _step(self, conn: Connection, lane: int, after: int) -> Step:
        if not self._parts.has_fast_path:
            return await self._lease(conn, lane, after, every=True)
        try:
            ((examined, last_id, delivered, has_leased),) = await rows(
                conn, self._parts.queries["drain_lane"], lane=lane, after=after, window=self._parts.settings.window
            )
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            # One event that the database refuses must not block the others: deliver one by one, each with its own
            # attempts.
            fields = {"lane": lane, "error": type(error).__name__, "sqlstate": error.sqlstate}
            logging.getLogger("replay_service.worker").warning("statement refused", extra={"fields": fields})
            return await self._lease(conn, lane, after, every=True)
        if not has_leased:
            return Step(examined, last_id, delivered, has_items=False)
        leased = await self._lease(conn, lane, after, every=False)
        return Step(examined, last_id, delivered + leased.moved, leased.has_items)

    async def _lease(self, conn: Connection, lane: int, after: int, *, every: bool) -> Step:
        token = uuid.uuid4()
        found = await rows(
            conn,
            self._parts.queries["claim_events"],
            lane=lane,
            after=after,
            window=self._parts.settings.window,
            slots=max(self._deliveries.free, 0),
            every=every,
            token=token,
            lease_s=self._parts.settings.lease_s,
        )
        events = [
            Event(r[3], r[4], r[5], r[6], r[7], r[8], is_scripted=r[9], failures=r[10])
            for r in found
            if r[3] is not None
        ]
        self._deliveries.start(events, token)
        return Step(found[0][0], found[0][1], len(events), found[0][2])

    async def _lease_items(self, conn: Connection) -> int:
        if self._deliveries.free <= 0:
            return 0
        token = uuid.uuid4()
        events = await claim_items(conn, self._parts, token, self._deliveries.free)
        self._deliveries.start(events, token)
        return len(events)
