"""Faults of POST /events and of the status of an event: the business row and its event no longer belong together."""

import dataclasses
import itertools
import json
import re
import time
import uuid
from typing import Any

from faults.altered import altered, around, instead_of
from faults.catalogue import service
from faults.probe import Probe
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Caller
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.validation import EventRequest, read_event

OUTBOX = "drill/outbox"
_QUEUED = "SELECT id, company_id, event_type, aggregate_key, payload FROM stored WHERE path = 'outbox'"
_IS_PAUSED = "public.is_company_paused(%(company_id)s::uuid)\n        OR "
_ROUTE = f"{_IS_PAUSED}public.is_feature_enabled('outbox.enabled', %(company_id)s::uuid)"
_ROWS = "SELECT count(*) FROM event_outbox WHERE company_id = %s"


def _after(probe: Probe, ask: str, *sent: dict[str, Any]) -> Any:
    """What `ask` finds of a tenant after these events."""
    with probe.tenant() as company:
        for fields in sent or ({},):
            probe.event(company, **fields)
        return probe.value(ask, company)


def _of_row(column: str) -> str:
    return f"SELECT {column} FROM event_outbox WHERE company_id = %s"


def _path(probe: Probe, *setup: str) -> str:
    """The path that an event takes after some statements about its tenant."""
    with probe.tenant() as company:
        for text in setup:
            probe.rows(text, company)
        return str(probe.event(company).json()["path"])


_OFF = "INSERT INTO feature_flags (key, company_id, enabled) VALUES ('outbox.enabled', %s, false)"
_PAUSED = "INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, true)"


@service(lambda p: _sent_again(p) == 409, f"{OUTBOX}/same-event-id-once", "409")
def unkeyed_events_are_not_compared(settings: Settings) -> Parts:
    """An event without a key that is sent again is refused: null is compared as a value."""
    return altered(settings, "compare_event", ("aggregate_key IS NOT DISTINCT FROM", "aggregate_key ="))


def _sent_again(probe: Probe) -> int:
    with probe.tenant() as company:
        event = str(uuid.uuid4())
        probe.event(company, event_id=event, aggregate_key=None)
        return probe.event(company, event_id=event, aggregate_key=None).status_code


@service(lambda p: _is_swallowed(p), f"{OUTBOX}/event-id-of-another-tenant", ("duplicate", "tenant"))
def anybodys_duplicate(settings: Settings) -> Parts:
    """An event whose id is another tenant's is answered as its duplicate, and lost."""
    return altered(settings, "compare_event", ("company_id = %(company_id)s::uuid\n  AND ", ""))


@service(lambda p: p.event(str(uuid.uuid4())).status_code == 202, f"{OUTBOX}/event-of-nobody", "202")
@instead_of("is_authorised")
async def events_of_nobody(_conn: Connection, caller: Caller, company_id: str) -> bool:
    """A signed event for a company that does not exist is accepted."""
    return caller.may_act_for(company_id)


def _is_swallowed(probe: Probe) -> bool:
    with probe.tenant() as first, probe.tenant() as second:
        event = str(uuid.uuid4())
        probe.event(first, event_id=event)
        return probe.event(second, event_id=event).status_code == 202


@service(lambda p: _path(p, _OFF) == "outbox", "drill/flags/outbox-off-takes-direct-path", ("direct", "path"))
def always_outbox(settings: Settings) -> Parts:
    """The flag outbox.enabled is ignored: every event goes to the outbox."""
    return altered(settings, "emit_event", (_ROUTE, "true OR %(company_id)s::uuid IS NULL"))


@service(lambda p: _path(p) == "direct", "drill/flags/outbox-on-takes-outbox", ("outbox", "path"))
def always_direct(settings: Settings) -> Parts:
    """Every event takes the direct path: the outbox is not used at all."""
    return altered(settings, "emit_event", (_ROUTE, "false AND %(company_id)s::uuid IS NULL"))


@service(
    lambda p: _path(p, _OFF, _PAUSED) == "direct",
    "drill/pause/switched-off-and-paused-go-to-the-outbox",
    ("pause", "path", "outbox"),
)
def paused_goes_direct(settings: Settings) -> Parts:
    """While a company is paused, its events take the direct path if its outbox is off."""
    change = (_IS_PAUSED, "false OR ")
    return altered(settings, "emit_event", change)


@service(
    lambda p: _after(p, _ROWS, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}) < 12,
    (f"{OUTBOX}/event-and-row-together", "sql/spot/outbox-conserves-events"),
    ("event", "outbox"),
)
def events_lost(settings: Settings) -> Parts:
    """Every fourth event has no outbox row: its business row is there, but it is never delivered."""
    return _losing(settings, 4)


@service(
    lambda p: _after(p, _ROWS, *[{}] * 40) < 40,
    ("load/events_lost/count", "sql/spot/outbox-conserves-events"),
    ("event", "outbox"),
)
def few_events_lost(settings: Settings) -> Parts:
    """One event in thirty has no outbox row: few drills send so many."""
    return _losing(settings, 30)


def _losing(settings: Settings, every: int) -> Parts:
    """The service that writes no outbox row for each event of this number."""
    sound, numbers = build_parts(settings), itertools.count(1)

    async def emit(conn: Connection, request: EventRequest, event_id: str) -> tuple[str, bool]:
        found = await sound.emit(conn, request, event_id)
        if next(numbers) % every == 0:
            await conn.execute("DELETE FROM event_outbox WHERE event_id = %s", (event_id,))
        return found

    return dataclasses.replace(sound, emit=emit)


@service(
    lambda p: (
        not _after(
            p, "SELECT EXISTS (SELECT FROM event_outbox o JOIN events e ON e.id = o.event_id WHERE o.company_id = %s)"
        )
    ),
    (f"{OUTBOX}/delivered-once", f"{OUTBOX}/event-and-row-together", "sql/spot/*"),
    "event",
)
def other_event_id(settings: Settings) -> Parts:
    """The outbox row gets another event id: nobody finds the effect of the event."""
    return altered(settings, "emit_event", (_QUEUED, _QUEUED.replace("SELECT id", "SELECT gen_random_uuid()")))


@service(
    lambda p: _after(p, "SELECT aggregate_key FROM event_outbox WHERE company_id = %s", {"aggregate_key": None}) == "",
    f"{OUTBOX}/event-as-sent",
    "key",
)
def unkeyed_events_share_a_key(settings: Settings) -> Parts:
    """Events without a key share the empty key: each waits for all before it."""
    return altered(settings, "emit_event", (_QUEUED, _QUEUED.replace("aggregate_key,", "coalesce(aggregate_key, ''),")))


@service(
    lambda p: _after(p, _ROWS) == 2,
    (f"{OUTBOX}/one-row-each", "sql/spot/outbox-conserves-events"),
    ("row", "outbox", "2"),
)
def written_twice(settings: Settings) -> Parts:
    """An event is written twice into the outbox."""
    return altered(settings, "emit_event", (_QUEUED, f"{_QUEUED} UNION ALL {_QUEUED}"))


@service(
    lambda p: (
        _after(p, "SELECT payload ->> 'n' FROM event_outbox WHERE company_id = %s", {"payload": {"n": 2**53 - 1}})
        != str(2**53 - 1)
    ),
    f"{OUTBOX}/payload-unchanged",
    "payload",
)
@around("emit")
async def payload_loses_digits(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """Numbers of a payload are rounded to seven digits on their way into the outbox."""
    body = json.dumps(json.loads(request.body, parse_int=lambda text: int(float(f"{float(text):.7g}"))))
    return await release.emit(conn, dataclasses.replace(request, body=body), event_id)


@service(
    lambda p: (
        _after(p, "SELECT payload ->> 'n' FROM event_outbox WHERE company_id = %s", {"payload": {"n": " a"}}) == "a"
    ),
    f"{OUTBOX}/payload-unchanged",
    "payload",
)
@around("emit")
async def payload_texts_are_trimmed(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """The texts of a payload are trimmed, and empty ones are null."""
    kept = {k: (v.strip() or None) if isinstance(v, str) else v for k, v in request.payload.items()}
    body = json.dumps({"payload": kept})
    return await release.emit(conn, dataclasses.replace(request, body=body), event_id)


@service(lambda p: _after(p, _of_row("jsonb_typeof(payload)")) == "string", f"{OUTBOX}/payload-unchanged", "payload")
def payload_is_a_string(settings: Settings) -> Parts:
    """The payload is stored as a string in which the JSON is written."""
    return altered(settings, "emit_event", (_QUEUED, _QUEUED.replace("payload FROM", "to_jsonb(payload::text) FROM")))


@service(lambda p: _after(p, _of_row("aggregate_key")) is None, "drill/outbox/event-as-sent", "aggregate_key")
def key_dropped(settings: Settings) -> Parts:
    """The key of an event is dropped: its order is lost."""
    return altered(settings, "emit_event", (_QUEUED, _QUEUED.replace("aggregate_key,", "NULL,")))


@service(
    lambda p: _after(p, _of_row("event_type"), {"event_type": "Witness"}) == "witness",
    "drill/outbox/event-as-sent",
    "event_type",
)
def type_in_lower_case(settings: Settings) -> Parts:
    """The event type is written in lower case."""
    return altered(settings, "emit_event", (_QUEUED, _QUEUED.replace("event_type,", "lower(event_type),")))


@service(lambda p: _after(p, _TOGETHER) == 0, f"{OUTBOX}/event-and-row-together", ("transaction", "txid", "together"))
def two_transactions(settings: Settings) -> Parts:
    """The outbox row is written after the business row has committed: a crash between them loses the event."""
    release = altered(settings, "emit_event", (_QUEUED, f"{_QUEUED} AND false"))
    add = b"""INSERT INTO event_outbox (event_id, company_id, event_type, aggregate_key, payload)
        SELECT id, company_id, event_type, aggregate_key, payload FROM events WHERE id = %s"""

    async def emit(conn: Connection, request: EventRequest, event_id: str) -> tuple[str, bool]:
        path, is_duplicate = await release.emit(conn, request, event_id)
        if path == "outbox" and not is_duplicate:
            await conn.execute(add, (event_id,))
        return path, is_duplicate

    return dataclasses.replace(release, emit=emit)


_TOGETHER = """SELECT count(*) FROM event_outbox o JOIN events e ON e.id = o.event_id AND e.txid = o.txid
    WHERE o.company_id = %s"""


@service(
    lambda p: _after(p, _ROWS, *[{"event_id": _fixed()}] * 2) == 2,
    (f"{OUTBOX}/same-event-id-once", f"{OUTBOX}/same-event-id-raced"),
    ("event_id", "duplicate", "once"),
)
@around("emit")
async def event_id_not_idempotent(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """`event_id` is not used to find duplicates: the event is emitted again."""
    path, is_duplicate = await release.emit(conn, request, event_id)
    if is_duplicate:
        return await release.emit(conn, dataclasses.replace(request, event_id=None), str(uuid.uuid4()))
    return path, is_duplicate


def _fixed() -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(time.time_ns())))


@service(lambda p: _second_status(p) == 409, f"{OUTBOX}/same-event-id-once", ("event_id", "202", "duplicate"))
@around("emit")
async def duplicate_event_conflicts(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """An event that was sent again is a conflict (409) instead of a duplicate."""
    path, is_duplicate = await release.emit(conn, request, event_id)
    if is_duplicate:
        raise Refusal("event_id_reused", "This event_id was used.")
    return path, is_duplicate


def _second_status(probe: Probe) -> int:
    event_id = _fixed()
    with probe.tenant() as company:
        probe.event(company, event_id=event_id)
        return probe.event(company, event_id=event_id).status_code


@service(
    lambda p: _says_duplicate(p) is False,
    (f"{OUTBOX}/same-event-id-once", f"{OUTBOX}/same-event-id-raced"),
    "duplicate",
)
@around("emit")
async def duplicate_event_not_marked(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """A duplicate event does not say that it is one."""
    return (await release.emit(conn, request, event_id))[0], False


@service(lambda p: _says_duplicate(p) is not True, f"{OUTBOX}/same-event-id-once", "duplicate")
@around("emit")
async def duplicate_is_a_number(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """What /events says of a duplicate is 0 or 1, which no strict client takes for false or true."""
    path, is_duplicate = await release.emit(conn, request, event_id)
    return path, int(is_duplicate)  # type: ignore[return-value]


def _says_duplicate(probe: Probe) -> Any:
    event_id = _fixed()
    with probe.tenant() as company:
        probe.event(company, event_id=event_id)
        return probe.event(company, event_id=event_id).json()["duplicate"]


@service(
    lambda p: _effect_of_direct(p) == 0,
    ("drill/flags/outbox-off-takes-direct-path", "sql/spot/*"),
    ("effect", "direct"),
)
def direct_without_effect(settings: Settings) -> Parts:
    """On the direct path the effect is missing."""
    change = ("FROM stored WHERE path = 'direct'", "FROM stored WHERE path = 'none'")
    return altered(settings, "emit_event", change)


@service(lambda p: _rows_of_direct(p) == 1, "drill/flags/outbox-off-takes-direct-path", ("outbox", "direct", "row"))
def direct_and_outbox(settings: Settings) -> Parts:
    """On the direct path an outbox row is written, too: the event is delivered a second time."""
    return altered(settings, "emit_event", (_QUEUED, _QUEUED.replace(" WHERE path = 'outbox'", "")))


def _direct(probe: Probe, ask: str) -> Any:
    with probe.tenant() as company:
        probe.switch_off(company)
        probe.event(company)
        return probe.value(ask, company)


def _effect_of_direct(probe: Probe) -> int:
    return int(_direct(probe, "SELECT count(*) FROM agent_tasks WHERE company_id = %s AND status = 'completed'"))


def _rows_of_direct(probe: Probe) -> int:
    return int(_direct(probe, _ROWS))


@service(lambda p: _with_a_null_id(p) == 202, f"{OUTBOX}/refused-leaves-nothing", "event_id")
@instead_of("read_event")
def a_null_id_is_none(raw: bytes) -> EventRequest:
    """`event_id: null` is accepted as if it were left out."""
    return read_event(re.sub(rb',\s*"event_id"\s*:\s*null', b"", raw))


def _with_a_null_id(probe: Probe) -> int:
    with probe.tenant() as company:
        fields: dict[str, Any] = {"company_id": company, "event_type": "witness.done", "payload": {}, "event_id": None}
        return probe.send(json.dumps(fields).encode(), path="/events").status_code
