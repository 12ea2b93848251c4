"""Faults of requests that come at once, and are carried out well one after the other."""

import asyncio
import dataclasses
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from faults.altered import altered, around
from faults.catalogue import service
from faults.probe import Probe
from replay_service.composition import build_parts
from replay_service.database import Connection, fetch_row
from replay_service.idempotency import Run
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.validation import EventRequest, ReplayRequest

_ASKING = list[asyncio.Future[bool]]()


@service(
    "Replays at the same moment share the answer to whether their tenant is paused, whichever tenant it is.",
    lambda p: _answers_differ(p),
    ("drill/ledger/refused-however-asked",),
    names=("refused",),
)
@around("is_paused")
async def one_asks_for_all(release: Parts, conn: Connection, company_id: str) -> bool:
    if not _ASKING:
        _ASKING.append(asyncio.ensure_future(release.is_paused(conn, company_id)))
        _ASKING[0].add_done_callback(lambda _: _ASKING.clear())
    return await asyncio.shield(_ASKING[0])


def _answers_differ(probe: Probe) -> bool:
    """Whether a paused tenant is served, or another one refused, where both ask at once."""
    with probe.tenant() as held, probe.tenant() as free, ThreadPoolExecutor(max_workers=6) as pool:
        probe.pause(held)
        calls = [(one, pool.submit(probe.replay, one, dry_run=True)) for _ in range(3) for one in (held, free)]
        return any(call.result().status_code != (409 if one == held else 200) for one, call in calls)


@service(
    "Of two senders of one event at once one gets a server error: each looks for the event before it writes it.",
    lambda p: _fails_beside_another(p),
    ("drill/outbox/same-event-id-raced",),
    names=("500",),
)
def looked_for_before_it_is_written(settings: Settings) -> Parts:
    release = altered(settings, "emit_event", ("  ON CONFLICT (id) DO NOTHING\n", ""))

    async def emit(conn: Connection, request: EventRequest, event_id: str) -> tuple[str, bool]:
        known = await fetch_row(conn, "compare_event", **_values(request, event_id))
        if known is not None and known[1]:
            return str(known[0]), True
        return await release.emit(conn, request, event_id)

    return dataclasses.replace(release, emit=emit)


def _values(request: EventRequest, event_id: str) -> dict[str, str | None]:
    names = ("company_id", "event_type", "aggregate_key", "body")
    return {"event_id": event_id} | {name: getattr(request, name) for name in names}


def _fails_beside_another(probe: Probe) -> bool:
    """Whether a sender that waits for another's row fails."""
    row = "INSERT INTO events (id, company_id, event_type) VALUES (%s, %s, 'witness.done')"
    with (
        probe.tenant() as company,
        psycopg.connect(probe.environ["DATABASE_URL"]) as other,
        ThreadPoolExecutor(1) as beside,
    ):
        event = str(uuid.uuid4())
        other.execute(row, (event, company))
        sent = beside.submit(probe.event, company, event_id=event)
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
        probe.within(3, lambda: bool(probe.value(waits, "%public.events%")))
        other.commit()
        return sent.result(10).status_code == 500


@service(
    "An event without an id that equals an earlier one is called a duplicate, yet delivered.",
    lambda p: _calls_the_second_a_duplicate(p),
    ("drill/ledger/events-as-sent",),
    names=("told that it is a duplicate",),
)
def like_events_are_called_duplicates(settings: Settings) -> Parts:
    release = build_parts(settings)
    seen: set[str] = set()

    async def emit(conn: Connection, request: EventRequest, event_id: str) -> tuple[str, bool]:
        path, is_duplicate = await release.emit(conn, request, event_id)
        is_like = request.event_id is None and request.body in seen
        seen.add(request.body)
        return path, is_duplicate or is_like

    return dataclasses.replace(release, emit=emit)


def _calls_the_second_a_duplicate(probe: Probe) -> bool:
    with probe.tenant() as company:
        return [probe.event(company).json()["duplicate"] for _ in range(2)] == [False, True]


_BUSY = set[tuple[str, str]]()


@service(
    "Who was told once that its key is in progress is told so for ever.",
    lambda p: _is_busy_for_ever(p),
    ("drill/idempotency/in-progress",),
    names=("409",),
)
@around("begin_run")
async def in_progress_is_remembered(release: Parts, conn: Connection, request: ReplayRequest, started: Run) -> Any:
    scope = started.key, request.company_id
    try:
        stored = await release.begin_run(conn, request, started)
    except Refusal as refusal:
        if refusal.code == "in_progress":
            _BUSY.add(scope)
        raise
    if scope in _BUSY:
        raise Refusal("in_progress", "A request with this idempotency key is running.")
    return stored


def _is_busy_for_ever(probe: Probe) -> bool:
    with probe.tenant() as company, psycopg.connect(probe.environ["DATABASE_URL"]) as other:
        other.execute("INSERT INTO replay_runs (idempotency_key, company_id) VALUES ('w', %s)", (company,))
        probe.replay(company, idempotency_key="w")
        other.rollback()
        return probe.replay(company, idempotency_key="w").status_code == 409
