"""GET /dlq-replay/{replay_run_id} and GET /events/{event_id}: another tenant's id is answered like an unknown one."""

from datetime import UTC, datetime

from replay_service.authentication import forbidden
from replay_service.database import fetch_row
from replay_service.exchange import Call, Caller, Reply
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.validation import as_uuid


async def read_run(parts: Parts, call: Call, signed_path: bytes, run_id: str) -> Reply:
    """Status and counts of a run. `signed_path` is the path from /dlq-replay/ on, as it was sent."""
    caller = await _reader(parts, call, signed_path)
    wanted = as_uuid(run_id)
    row = None
    if wanted is not None:
        async with parts.database.connection() as conn:
            row = await fetch_row(conn, "read_run", run_id=wanted)
    if row is None or not caller.may_act_for(row[1]):
        raise _not_found()
    names = (
        "replay_run_id",
        "company_id",
        "idempotency_key",
        "status",
        "target_count",
        "success_count",
        "failure_count",
    )
    body = dict(zip(names, row, strict=False)) | {"requested_at": _text(row[7]), "completed_at": _text(row[8])}
    return Reply(200, body)


async def read_event(parts: Parts, call: Call, signed_path: bytes, event_id: str) -> Reply:
    """The status of an event. `signed_path` is the path from /events/ on, as it was sent."""
    caller = await _reader(parts, call, signed_path)
    wanted = as_uuid(event_id)
    row = None
    if wanted is not None:
        async with parts.database.connection() as conn:
            row = await fetch_row(conn, "read_event", event_id=wanted)
    if row is None or not caller.may_act_for(row[0]):
        raise _not_found()
    return Reply(200, {"status": row[3], "committed_at": _text(row[1]), "effect_at": _text(row[2])})


async def _reader(parts: Parts, call: Call, signed_path: bytes) -> Caller:
    caller = await parts.authenticate(parts, call.headers, signed_path, accepts_v1=False)
    if not caller.has_role:
        raise forbidden()
    return caller


def _not_found() -> Refusal:
    return Refusal("not_found", "There is no such thing for these credentials.")


def _text(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC with microseconds."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
