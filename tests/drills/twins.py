"""Faulty twins of the reference, for `serve --parts` and `work --parts`: one statement or part is not what it was."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from faults.altered import altered as altered_service
from replay_service import idempotency
from replay_service.composition import build_parts
from replay_service.database import Connection as ServiceConnection
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.validation import EventRequest, ReplayRequest
from replay_service.worker import process
from replay_service.worker.door import Connection, connected
from replay_service.worker.parts import WorkerParts, build_worker_parts
from replay_service.worker.settings import WorkerSettings

EXPIRED = "(e.claimed_until IS NULL OR e.claimed_until <= now())"
CLAIM = "claim_token = %(token)s"
CLAIMED = "e.claim_token = %(token)s"
FENCE = f"{CLAIMED} AND e.processed_at IS NULL AND e.dead_at IS NULL"
ONCE = (
    "ON CONFLICT (event_id) DO UPDATE SET status = 'completed', agent_name = excluded.agent_name,"
    " updated_at = excluded.updated_at\n  WHERE t.status <> 'completed'"
)
UNFINISHED = "WHERE e.processed_at IS NULL AND e.dead_at IS NULL"
ABOVE_THE_LAST = """WHERE e.processed_at IS NULL AND e.dead_at IS NULL AND e.id > (
    SELECT coalesce(max(d.id), 0) FROM public.event_outbox d
    WHERE d.company_id = e.company_id AND d.processed_at IS NOT NULL)"""


def altered(settings: WorkerSettings, *changes: tuple[str, str, str]) -> WorkerParts:
    """The worker with other texts in its statements: (statement, what stands there, what is to stand there)."""
    parts = build_worker_parts(settings)
    queries = dict(parts.queries)
    for name, old, new in changes:
        text = queries[name].decode()
        if old not in text:
            raise ValueError(f"{old!r} does not stand in {name}")
        queries[name] = text.replace(old, new).encode()
    return replace(parts, queries=queries)


class ByOwnClock(dict[str, bytes]):
    """Statements of which some (`which`: none given, all) take `now`, a format, for the time: the process's."""

    def __init__(self, behind: Mapping[str, bytes], which: Sequence[str], now: str) -> None:
        super().__init__(behind)
        self._which, self._now = which, now

    def __getitem__(self, name: str) -> bytes:
        text = super().__getitem__(name)
        if self._which and name not in self._which:
            return text
        now = self._now.format(f"to_timestamp({time.time():.6f})").encode()
        return text.replace(b"clock_timestamp()", b"now()").replace(b"now()", now)


def by_own_clock(settings: WorkerSettings, *which: str, now: str = "{}") -> WorkerParts:
    parts = build_worker_parts(settings)
    return replace(parts, queries=ByOwnClock(parts.queries, which, now))


def own_clock(settings: WorkerSettings) -> WorkerParts:
    """Due times, claims and retries go by the worker's clock."""
    return by_own_clock(settings)


def own_clock_behind(settings: WorkerSettings) -> WorkerParts:
    """The same, seen only where the worker's clock is behind."""
    return by_own_clock(settings, now="least(transaction_timestamp(), {})")


def own_clock_backs_off(settings: WorkerSettings) -> WorkerParts:
    """When a failed event is tried again goes by the worker's clock."""
    return by_own_clock(settings, "settle_failed")


def own_clock_stamps(settings: WorkerSettings) -> WorkerParts:
    """When an event was delivered is told by the worker's clock."""
    return by_own_clock(settings, "settle_delivered")


def own_clock_postpones(settings: WorkerSettings) -> WorkerParts:
    """When a failed item may be replayed again goes by the worker's clock."""
    return by_own_clock(settings, "settle_item")


def own_clock_leases(settings: WorkerSettings) -> WorkerParts:
    """How long a claim lasts goes by the worker's clock."""
    until = "clock_timestamp() + make_interval"
    parts = altered(settings, ("claim_events", until, "OWN_CLOCK + make_interval"))
    return replace(parts, queries=OwnLease(parts.queries))


class OwnLease(dict[str, bytes]):
    """Statements whose claims end by the process's clock."""

    def __getitem__(self, name: str) -> bytes:
        return super().__getitem__(name).replace(b"OWN_CLOCK", f"to_timestamp({time.time():.6f})".encode())


def never_reclaims(settings: WorkerSettings) -> WorkerParts:
    """What was claimed once is taken for claimed for ever."""
    statements = ("claim_events", "claim_items", "drain_lane", "lock_runs")
    return altered(settings, *((name, EXPIRED, "e.claimed_until IS NULL") for name in statements))


def marks_first(settings: WorkerSettings) -> WorkerParts:
    """An event is marked as processed when it is claimed, before its effect."""
    return altered(
        settings,
        ("claim_events", CLAIM, f"{CLAIM}, processed_at = clock_timestamp()"),
        ("claim_items", CLAIM, f"{CLAIM}, processed_at = clock_timestamp()"),
        ("settle_delivered", FENCE, CLAIMED),
        ("fence_item", FENCE, CLAIMED),
    )


def new_id_at_each_claim(settings: WorkerSettings) -> WorkerParts:
    """An event that is claimed again gets another id, so that nobody can know it again."""
    again = f"{CLAIM}, event_id = CASE WHEN e.claim_token IS NULL THEN e.event_id ELSE gen_random_uuid() END"
    return altered(settings, ("claim_events", CLAIM, again))


def no_fence(settings: WorkerSettings) -> WorkerParts:
    """A worker settles what it had claimed, whoever has it now (to be seen, effects must not be unique)."""
    return altered(settings, ("settle_delivered", FENCE, "true"), ("settle_delivered", ONCE, ""))


def above_the_last(settings: WorkerSettings) -> WorkerParts:
    """A cursor: of a tenant's events only those above the last delivered one are looked at."""
    return altered(settings, ("drain_lane", UNFINISHED, ABOVE_THE_LAST), ("claim_events", UNFINISHED, ABOVE_THE_LAST))


def no_polling(settings: WorkerSettings) -> WorkerParts:
    """Only a notice makes the worker look."""
    return build_worker_parts(replace(settings, poll_s=3600.0))


def no_reconnect(settings: WorkerSettings) -> WorkerParts:
    """A task whose session was ended does nothing any more."""

    async def once(_name: str, url: str, work: Callable[[Connection], Awaitable[None]], stop: asyncio.Event) -> None:
        try:
            async with connected(url) as conn:
                await work(conn)
        except psycopg.OperationalError:
            await stop.wait()

    vars(process)["keep_at"] = once
    return build_worker_parts(settings)


async def commit(conn: ServiceConnection) -> None:
    """End the transaction in the middle, and begin another for the rest."""
    await conn.execute("commit")
    await conn.execute("begin")


def commits_the_key_first(settings: Settings) -> Parts:
    """A replay whose key is stored before its effect, for good."""
    parts = build_parts(settings)

    async def begin_run(
        conn: ServiceConnection, request: ReplayRequest, run: idempotency.Run
    ) -> Mapping[str, Any] | None:
        stored = await parts.begin_run(conn, request, run)
        await commit(conn)
        return stored

    return replace(parts, begin_run=begin_run)


def commits_the_items_first(settings: Settings) -> Parts:
    """A replay whose items move before they are charged and audited, for good."""
    parts = build_parts(settings)

    async def move(conn: ServiceConnection, run_id: str, items: Sequence[str]) -> None:
        await parts.move(conn, run_id, items)
        await commit(conn)

    return replace(parts, move=move)


def two_transactions(settings: Settings) -> Parts:
    """An event whose business row and outbox row are stored one after the other."""

    async def emit(conn: ServiceConnection, request: EventRequest, event_id: str) -> tuple[str, bool]:
        row = (event_id, request.company_id, request.event_type, request.aggregate_key, json.dumps(request.payload))
        stored = await conn.execute(
            "insert into public.events (id, company_id, event_type, aggregate_key, payload, path)"
            " values (%s, %s, %s, %s, %s, 'outbox') on conflict (id) do nothing",
            row,
        )
        if not stored.rowcount:
            return "outbox", True
        await conn.execute(
            "insert into public.event_outbox (event_id, company_id, event_type, aggregate_key, payload)"
            " values (%s, %s, %s, %s, %s)",
            row,
        )
        return "outbox", False

    return replace(build_parts(settings), emit=emit)


def charges_duplicates(settings: Settings) -> Parts:
    """A repeated request is answered as a duplicate, and charged once more."""
    parts = build_parts(settings)

    async def begin_run(
        conn: ServiceConnection, request: ReplayRequest, run: idempotency.Run
    ) -> Mapping[str, Any] | None:
        stored = await parts.begin_run(conn, request, run)
        if stored is not None and await parts.reserve_budget(conn, request.company_id) > 0:
            await parts.charge(conn, request.company_id, 1)
        return stored

    return replace(parts, begin_run=begin_run)


def refuses_duplicates_of_the_broke(settings: Settings) -> Parts:
    """A repeated request is refused where the budget is spent by now, and not answered as it was."""
    parts = build_parts(settings)

    async def begin_run(
        conn: ServiceConnection, request: ReplayRequest, run: idempotency.Run
    ) -> Mapping[str, Any] | None:
        stored = await parts.begin_run(conn, request, run)
        if stored is not None and await parts.reserve_budget(conn, request.company_id) <= 0:
            raise Refusal("budget_exhausted", "Spent.")
        return stored

    return replace(parts, begin_run=begin_run)


def looks_at_the_budget_first(settings: Settings) -> Parts:
    """Where a tenant is paused and has no budget left, the budget is told, not the pause."""
    parts = build_parts(settings)

    async def is_paused(conn: ServiceConnection, company: str) -> bool:
        return await parts.preview_budget(conn, company) > 0 and await parts.is_paused(conn, company)

    return replace(parts, is_paused=is_paused)


def counts_no_calls_of_the_paused(settings: Settings) -> Parts:
    """The rate limit does not count while a tenant is paused."""
    parts = build_parts(settings)

    async def admit(conn: ServiceConnection, company: str, client: str) -> None:
        if not await parts.is_paused(conn, company):
            await parts.admit(conn, company, client)

    return replace(parts, admit=admit)


def replays_what_was_discarded(settings: Settings) -> Parts:
    """A discarded item is as good as a pending one."""
    return altered_service(settings, "pick_items", ("status = 'pending'", "status IN ('pending', 'discarded')"))


def sends_a_known_event_again(settings: Settings) -> Parts:
    """An event that is sent a second time is put into the outbox a second time, under another id."""
    parts = build_parts(settings)

    async def emit(conn: ServiceConnection, request: EventRequest, event_id: str) -> tuple[str, bool]:
        path, is_duplicate = await parts.emit(conn, request, event_id)
        return (path, is_duplicate) if not is_duplicate else await parts.emit(conn, request, parts.new_id())

    return replace(parts, emit=emit)


def forgets_the_letters(settings: WorkerSettings) -> WorkerParts:
    """The dead letter of an item is not told that it was delivered."""
    letter = "WHERE d.status = 'replaying' AND d.company_id = h.company_id"
    return altered(settings, ("settle_item", letter, f"{letter} AND false"))
