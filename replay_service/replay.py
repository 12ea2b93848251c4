"""POST /dlq-replay: steps 2 to 9 of the contract in their order, then one transaction."""

from collections.abc import Mapping
from typing import Any

import msgspec

from replay_service.audit import AuditRow, RefusalNote
from replay_service.authentication import forbidden
from replay_service.claim import Selection
from replay_service.database import Connection
from replay_service.exchange import Call, Caller, Reply
from replay_service.idempotency import Outcome, Run
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.tenants import ReplayFlags
from replay_service.validation import ReplayRequest

AUDITED = frozenset(
    {
        "forbidden",
        "rate_limited",
        "feature_disabled",
        "idempotency_key_reused",
        "in_progress",
        "agents_paused",
        "budget_exhausted",
    }
)
"""Codes of steps 4 to 9 that leave a `dlq_replay_refused` row."""

REPLAYED_HEADER = "idempotent-replayed"


async def replay(parts: Parts, call: Call) -> Reply:
    """Answer a replay request. Raise Refusal, or psycopg.Error where the database fails in the middle."""
    caller = await parts.authenticate(parts, call.headers, call.body)
    request = parts.read_replay(call.body)
    async with parts.database.connection() as conn:
        try:
            return await _authorised(parts, conn, call, caller, request)
        except Refusal as refusal:
            if refusal.code in AUDITED:
                await parts.refusals.note(conn, _note(refusal, call, caller, request))
            raise


async def _authorised(parts: Parts, conn: Connection, call: Call, caller: Caller, request: ReplayRequest) -> Reply:
    """Steps 4 to 6, each in a transaction of its own."""
    if not caller.has_role or not await parts.is_authorised(conn, caller, request.company_id):
        raise forbidden()
    await parts.admit(conn, request.company_id, call.client)
    flags = await parts.read_flags(conn, request.company_id)
    off = flags.refusal()
    if off is not None:
        raise off
    if request.dry_run:
        return await _preview(parts, conn, call, caller, request, flags)
    return await _execute(parts, conn, call, caller, request, flags)


async def _execute(
    parts: Parts, conn: Connection, call: Call, caller: Caller, request: ReplayRequest, flags: ReplayFlags
) -> Reply:
    """Steps 7 to 9 and the effect in one transaction. Lock order: key, run, budget, items, audit head."""
    started = Run(parts.new_id(), _key(parts, caller, request), caller.actor, call.request_id)
    # In a pipeline, a statement whose result nobody reads is sent with the next one whose result is read: BEGIN with
    # the key, the writes with COMMIT. An error in any of them aborts all of them.
    async with conn.pipeline(), parts.transaction(conn):
        stored = await parts.begin_run(conn, request, started)
        if stored is not None:
            return _duplicate(stored, started, request)
        limit = await _limit(parts, conn, request, flags)
        items = await parts.pick(conn, request, limit)
        found = await parts.describe(conn, request, items, limit)
        charged = len(items) if flags.budget_control else 0
        body = _body("started" if items else "completed", started.run_id, started.key, request, found)
        outcome = Outcome(body["status"], len(items), charged, msgspec.json.encode(body).decode())
        await parts.move(conn, started.run_id, items)
        if charged:
            await parts.charge(conn, request.company_id, charged)
        await parts.finish_run(conn, started, outcome)
        for action in _actions(bool(items)):
            await parts.append_audit(conn, _row(action, call, caller, request, found, started))
    return Reply(200, body, outcome=body["status"], items=len(items))


async def _preview(
    parts: Parts, conn: Connection, call: Call, caller: Caller, request: ReplayRequest, flags: ReplayFlags
) -> Reply:
    """Steps 8 and 9 and the selection, rolled back; then the one audit row of a dry run."""
    async with parts.transaction(conn, keep=False):
        limit = await _limit(parts, conn, request, flags)
        items = await parts.pick(conn, request, limit)
        found = await parts.describe(conn, request, items, limit)
    async with parts.transaction(conn):
        await parts.append_audit(conn, _row("dlq_replay_dry_run", call, caller, request, found, None))
    return Reply(200, _body("dry_run", None, _key(parts, caller, request), request, found), outcome="dry_run")


async def _limit(parts: Parts, conn: Connection, request: ReplayRequest, flags: ReplayFlags) -> int:
    """Steps 8 and 9: how many items may move. Raise Refusal `agents_paused` or `budget_exhausted`."""
    if await parts.is_paused(conn, request.company_id):
        raise Refusal("agents_paused", "The agents of this company are paused; nothing was touched.")
    if not flags.budget_control:
        return request.max_items
    ask = parts.preview_budget if request.dry_run else parts.reserve_budget
    left = await ask(conn, request.company_id)
    if left <= 0:
        raise Refusal("budget_exhausted", "The replay budget of this company is used up for this day or month.")
    return min(request.max_items, left)


def _key(parts: Parts, caller: Caller, request: ReplayRequest) -> str:
    """The caller's key; else one from a v2 signature, so that a re-send is a duplicate; else a new one."""
    if request.idempotency_key is not None:
        return request.idempotency_key
    if caller.signature is not None and caller.signature.version == 2:
        return f"sig-{caller.signature.mac[:32]}"
    return f"gen-{parts.new_id()}"


def _body(status: str, run_id: str | None, key: str, request: ReplayRequest, found: Selection) -> dict[str, Any]:
    return {
        "status": status,
        "replay_run_id": run_id,
        "idempotency_key": key,
        "company_id": request.company_id,
        "dry_run": request.dry_run,
        "duplicate": False,
        "target_count": len(found.items),
        "items": list(found.items),
        "not_found": list(found.not_found),
        "ineligible": list(found.ineligible),
    }


def _duplicate(stored: Mapping[str, Any], started: Run, request: ReplayRequest) -> Reply:
    """The stored answer, its members in the order of the first answer (jsonb keeps no order)."""
    body = _body("started", None, started.key, request, Selection(()))
    body = {name: stored.get(name, value) for name, value in body.items()} | {"duplicate": True}
    return Reply(200, body, {REPLAYED_HEADER: "true"}, outcome="duplicate")


def _actions(has_items: bool) -> tuple[str, ...]:
    """The audit actions to write now; a run without items starts and ends at once."""
    return ("dlq_replay_started",) if has_items else ("dlq_replay_started", "dlq_replay_completed", "dlq_replay")


def _row(
    action: str, call: Call, caller: Caller, request: ReplayRequest, found: Selection, started: Run | None
) -> AuditRow:
    metadata: dict[str, Any] = {"dry_run": request.dry_run, "force": request.force, "client_ip": call.client}
    if started is not None:
        metadata |= {"replay_run_id": started.run_id, "idempotency_key": started.key}
    return AuditRow(action, caller.actor, request.company_id, call.request_id, len(found.items), metadata=metadata)


def _note(refusal: Refusal, call: Call, caller: Caller, request: ReplayRequest) -> RefusalNote:
    """The refusal to audit; `forbidden` under the caller's own company: nobody may write into another's trail."""
    scope = caller.scope if refusal.code == "forbidden" else request.company_id
    metadata = {"dry_run": request.dry_run, "client_ip": call.client, **refusal.members}
    return RefusalNote(refusal.code, scope, caller.actor, call.request_id, metadata)
