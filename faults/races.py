"""Faults of requests that come at once, and are carried out well one after the other."""

import dataclasses
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg

from faults.altered import altered
from faults.catalogue import service
from faults.probe import Probe
from replay_service.composition import build_parts
from replay_service.database import Connection, fetch_row
from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.validation import EventRequest


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
