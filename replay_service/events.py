"""POST /events: an event by the outbox or by the direct path, in one statement and so in one transaction."""

import asyncio

from replay_service.authentication import forbidden
from replay_service.database import Connection, fetch_row
from replay_service.exchange import Call, Reply
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.validation import EventRequest

MAX_DRILL_DELAY_MS = 5000


async def accept_event(parts: Parts, call: Call) -> Reply:
    """Steps 2 to 4, then the event. Raise Refusal; psycopg.Error leaves nothing behind."""
    caller = await parts.authenticate(parts, call.headers, call.body)
    request = parts.read_event(call.body)
    event_id = request.event_id or parts.new_id()
    async with parts.database.connection() as conn:
        if not caller.has_role or not await parts.is_authorised(conn, caller, request.company_id):
            raise forbidden()
        delay_ms = 0 if not request.event_type.startswith("drill.") else await parts.obey_drill(conn, request)
        if not delay_ms:
            return _accepted(event_id, *await parts.emit(conn, request, event_id))
    # The agent was told to be slow: do not hold a connection meanwhile.
    await asyncio.sleep(delay_ms / 1000)
    async with parts.database.connection() as conn:
        return _accepted(event_id, *await parts.emit(conn, request, event_id))


def _accepted(event_id: str, path: str, is_duplicate: bool) -> Reply:
    body = {"event_id": event_id, "path": path, "duplicate": is_duplicate}
    return Reply(202, body, outcome="duplicate" if is_duplicate else path)


async def emit(conn: Connection, request: EventRequest, event_id: str) -> tuple[str, bool]:
    """Store the event: (path, duplicate). Raise Refusal `event_id_reused` where the id is another event's."""
    values = {
        "event_id": event_id,
        "company_id": request.company_id,
        "event_type": request.event_type,
        "aggregate_key": request.aggregate_key,
        "body": request.body,
    }
    # If the event was deleted between the two statements, its id is free again.
    for _attempt in range(3):
        stored = await fetch_row(conn, "emit_event", **values)
        if stored is not None:
            return str(stored[0]), False
        known = await fetch_row(conn, "compare_event", **values)
        if known is not None:
            path, is_same = known
            if not is_same:
                raise Refusal("event_id_reused", "This event_id belongs to an event with other content.")
            return str(path), True
    raise Refusal("event_id_reused", "This event_id is being used and removed elsewhere.")


async def obey_drill(conn: Connection, request: EventRequest) -> int:
    """The drill agent on the direct path (contract, section 4): milliseconds to wait, or Refusal if it is told to fail.

    The direct path has one attempt, so any `fail_times` but 0 fails it. On the outbox the worker's agent obeys.
    """
    drill = request.payload.get("drill")
    if not isinstance(drill, dict):
        return 0
    row = await fetch_row(conn, "event_path", company_id=request.company_id)
    if row is None or row[0] != "direct" or not row[1]:
        return 0
    delay_ms, fail_times = drill.get("delay_ms", 0), drill.get("fail_times", 0)
    if type(fail_times) is int and fail_times != 0:
        raise Refusal("unavailable", "The agent failed; nothing was stored. Send the event again.")
    return min(max(delay_ms, 0), MAX_DRILL_DELAY_MS) if type(delay_ms) is int else 0
