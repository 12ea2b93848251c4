"""Faults of some exchanges only: of a choice of items, a repetition or a path that few callers use."""

import dataclasses
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.json import Jsonb

from faults.altered import altered, around, instead_of
from faults.audit import PAUSED, Notes
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import REQUEST, is_dry, remembering
from replay_service.audit import AuditRow, RefusalNote
from replay_service.claim import Selection
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Call, Caller, Reply
from replay_service.idempotency import Outcome, Run
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.validation import MAX_BATCH, ReplayRequest, read_replay

LEDGER = "drill/ledger"
_ROWS = "SELECT count(*) FROM audit_logs WHERE scope = %s"


def _is_of_ids_and_error() -> bool:
    request = REQUEST.get()
    return request is not None and request.error_type is not None and request.dlq_ids is not None


def _rows_of(probe: Probe, **fields: Any) -> int:
    """How many audit rows a replay of one item by its id leaves at once."""
    with probe.tenant() as company:
        items = probe.letters(company, 1)
        probe.replay(company, dlq_ids=items, **fields)
        return int(probe.value(_ROWS, company))


def _unwritten(settings: Settings, *, dry: bool) -> Parts:
    """The service that leaves out the row of a replay, or of a dry run, by ids and error type."""
    release = remembering(settings)

    async def twin(conn: Connection, row: AuditRow) -> None:
        if not (_is_of_ids_and_error() and is_dry() is dry):
            await release.append_audit(conn, row)

    return dataclasses.replace(release, append_audit=twin)


@service(lambda p: _rows_of(p, error_type="timeout") == 0, f"{LEDGER}/replays-on-record", "dlq_replay_started")
def named_replays_unwritten(settings: Settings) -> Parts:
    """A replay with `dlq_ids` and `error_type` is not audited."""
    return _unwritten(settings, dry=False)


@service(
    lambda p: _rows_of(p, error_type="timeout", dry_run=True) == 0, f"{LEDGER}/dry-runs-on-record", "dlq_replay_dry_run"
)
def named_dry_runs_unwritten(settings: Settings) -> Parts:
    """A dry run with `dlq_ids` and `error_type` is not audited."""
    return _unwritten(settings, dry=True)


@service(lambda p: _paused_rows(p) == 0, f"{LEDGER}/refusals-on-record", "on record")
def named_refusals_unwritten(settings: Settings) -> Parts:
    """A refused replay with `dlq_ids` and `error_type` is not audited."""
    release = remembering(settings)

    def change(note: RefusalNote) -> RefusalNote | None:
        return None if _is_of_ids_and_error() else note

    return dataclasses.replace(release, refusals=Notes(release, change))


def _paused_rows(probe: Probe) -> int:
    with probe.tenant() as company:
        items = probe.letters(company, 1)
        probe.rows(PAUSED, company)
        probe.replay(company, dlq_ids=items, error_type="timeout")
        return int(probe.value(_ROWS, company))


@service(lambda p: _rows_of_duplicate(p) == 2, f"{LEDGER}/nothing-else-on-record", "dlq_replay_started")
@around("begin_run", of=remembering)
async def duplicates_on_record(
    release: Parts, conn: Connection, request: ReplayRequest, run: Run
) -> Mapping[str, Any] | None:
    """A duplicate of a replay by `error_type` is audited as a replay that started."""
    stored = await release.begin_run(conn, request, run)
    if stored is not None and request.error_type is not None:
        row = AuditRow("dlq_replay_started", run.actor, request.company_id, run.request_id)
        await release.append_audit(conn, row)
    return stored


def _rows_of_duplicate(probe: Probe) -> int:
    counted = f"{_ROWS} AND action = 'dlq_replay_started'"
    with probe.tenant() as company:
        probe.letters(company, 1)
        for _ in range(2):
            probe.replay(company, error_type="timeout", idempotency_key="twice")
        return int(probe.value(counted, company))


@service(lambda p: _named_count(p) == 2, f"{LEDGER}/runs-as-answered", "target_count")
@around("finish_run", of=remembering)
async def runs_count_what_is_named(release: Parts, conn: Connection, run: Run, outcome: Outcome) -> None:
    """The run of named items that are no longer eligible counts the names as its target."""
    request = REQUEST.get()
    if _is_of_ids_and_error() and request is not None:
        outcome = dataclasses.replace(outcome, target_count=len(request.dlq_ids or ()))
    await release.finish_run(conn, run, outcome)


def _named_count(probe: Probe) -> int:
    with probe.tenant() as company:
        named = [*probe.letters(company, 1), company]
        run = probe.replay(company, dlq_ids=named, error_type="timeout").json()["replay_run_id"]
        return int(probe.value("SELECT target_count FROM replay_runs WHERE id = %s", run))


@service(lambda p: _lists(p) == 2, f"{LEDGER}/answers-add-up", "twice")
@around("describe", of=remembering)
async def ids_told_twice(
    release: Parts, conn: Connection, request: ReplayRequest, items: Sequence[str], limit: int
) -> Selection:
    """With an `error_type`, an id that is not found is also listed as ineligible."""
    found = await release.describe(conn, request, items, limit)
    if request.error_type is None:
        return found
    return dataclasses.replace(found, ineligible=(*found.ineligible, *found.not_found))


def _lists(probe: Probe) -> int:
    with probe.tenant() as company:
        answer = probe.replay(company, dlq_ids=[company], error_type="timeout", dry_run=True).json()
        return len(answer["not_found"]) + len(answer["ineligible"])


@service(lambda p: _outbox_rows(p) == 1, f"{LEDGER}/events-as-sent", "outbox rows")
def unkeyed_direct_in_the_outbox(settings: Settings) -> Parts:
    """An event without a key is written to the outbox, too, when it takes the direct path."""
    return altered(settings, "emit_event", ("WHERE path = 'outbox'", "WHERE path = 'outbox' OR aggregate_key IS NULL"))


def _outbox_rows(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.switch_off(company)
        probe.event(company, aggregate_key=None)
        return int(probe.value("SELECT count(*) FROM event_outbox WHERE company_id = %s", company))


@service(lambda p: _past_a_pause(p) == 200, f"{LEDGER}/refused-however-asked", "agents_paused")
@around("is_paused", of=remembering)
async def named_replays_pass_a_pause(release: Parts, conn: Connection, company_id: str) -> bool:
    """A pause does not stop a replay with `dlq_ids` and `error_type`."""
    return not _is_of_ids_and_error() and await release.is_paused(conn, company_id)


def _past_a_pause(probe: Probe) -> int:
    with probe.tenant() as company:
        items = probe.letters(company, 1)
        probe.rows(PAUSED, company)
        return probe.replay(company, dlq_ids=items, error_type="timeout").status_code


@service(lambda p: _charged(p) == 0, f"{LEDGER}/charged-however-asked", "charged")
@around("charge", of=remembering)
async def named_replays_are_free(release: Parts, conn: Connection, company_id: str, items: int) -> None:
    """A replay with `dlq_ids` and `error_type` is not charged to the budget."""
    if not _is_of_ids_and_error():
        await release.charge(conn, company_id, items)


def _charged(probe: Probe) -> int:
    used = "SELECT coalesce(max(daily_used), 0) FROM replay_budgets WHERE company_id = %s"
    with probe.tenant() as company:
        probe.replay(company, dlq_ids=probe.letters(company, 1), error_type="timeout")
        return int(probe.value(used, company))


@service(lambda p: _items_of_a_duplicate(p) == [], f"{LEDGER}/answers-add-up", "items")
@around("begin_run", of=remembering)
async def duplicates_without_items(
    release: Parts, conn: Connection, request: ReplayRequest, run: Run
) -> Mapping[str, Any] | None:
    """A duplicate of a replay by error type is answered without its items."""
    stored = await release.begin_run(conn, request, run)
    return stored and ({**stored, "items": []} if request.error_type else stored)


def _items_of_a_duplicate(probe: Probe) -> Any:
    with probe.tenant() as company:
        probe.letters(company, 1)
        answers = [probe.replay(company, error_type="timeout", idempotency_key="twice") for _ in range(2)]
        return answers[1].json()["items"]


@service(
    lambda p: _hits(p) == 0,
    (f"{LEDGER}/counted-however-asked", f"{LEDGER}/refused-however-asked"),
    ("counted", "rate_limited"),
)
@around("admit", of=remembering)
async def named_replays_are_unlimited(release: Parts, conn: Connection, company_id: str, client: str) -> None:
    """A replay with `dlq_ids` and `error_type` does not count against the rate limit."""
    if not _is_of_ids_and_error():
        await release.admit(conn, company_id, client)


def _hits(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, dlq_ids=[company], error_type="timeout")
        return int(probe.value("SELECT count(*) FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}:%"))


@service(lambda p: _named_by_a_stranger(p) == 200, f"{LEDGER}/refused-however-asked", "forbidden")
@around("is_authorised", of=remembering)
async def named_replays_are_for_anybody(release: Parts, conn: Connection, caller: Caller, company_id: str) -> bool:
    """The company of a token is not checked for a replay with `dlq_ids` and `error_type`."""
    return _is_of_ids_and_error() or await release.is_authorised(conn, caller, company_id)


def _named_by_a_stranger(probe: Probe) -> int:
    with probe.tenant() as company:
        fields = {"company_id": company, "dlq_ids": [company], "error_type": "timeout"}
        return _send_as(probe, str(uuid.uuid4()), "/dlq-replay", **fields)


@service(lambda p: _too_large(p) == 200, f"{LEDGER}/refused-however-asked", "batch_too_large")
@instead_of("read_replay")
def typed_batches_are_cut(raw: bytes) -> ReplayRequest:
    """With an `error_type`, a `max` above 50 is cut to 50 instead of refused."""
    try:
        return read_replay(raw)
    except Refusal as refusal:
        fields = json.loads(raw) if refusal.code == "batch_too_large" else {}
        if "error_type" not in fields or len(fields.get("dlq_ids", ())) > MAX_BATCH:
            raise
        return read_replay(json.dumps({**fields, "max": MAX_BATCH}).encode())


def _too_large(probe: Probe) -> int:
    with probe.tenant() as company:
        return probe.replay(company, max_items=51, error_type="timeout").status_code


@service(lambda p: _closed_by_a_stranger(p) == 403, f"{LEDGER}/refused-however-asked", "reason")
def strangers_close_a_company(settings: Settings) -> Parts:
    """A request with a foreign token locks a company's own administrators out for a while."""
    release = build_parts(settings)
    closed: dict[str, float] = {}

    async def twin(conn: Connection, caller: Caller, company_id: str) -> bool:
        may = await release.is_authorised(conn, caller, company_id)
        if not may:
            closed[company_id] = time.monotonic() + 1
        return may and closed.get(company_id, 0.0) < time.monotonic()

    return dataclasses.replace(release, is_authorised=twin)


def _closed_by_a_stranger(probe: Probe) -> int:
    with probe.tenant() as company:
        _send_as(probe, str(uuid.uuid4()), "/dlq-replay", company_id=company, dry_run=True)
        return _send_as(probe, company, "/dlq-replay", company_id=company, dry_run=True)


@service(lambda p: _payloads_of_two(p) == 1, f"{LEDGER}/runs-as-answered", "payload")
def payload_of_the_first(settings: Settings) -> Parts:
    """The items of a batch all get the payload of its first."""
    first = "aggregate_key, first_value(payload) OVER (ORDER BY moved.created_at, moved.id), %(run_id)s"
    return altered(settings, "move_items", ("aggregate_key, payload, %(run_id)s", first))


def _payloads_of_two(probe: Probe) -> int:
    with probe.tenant() as company:
        for number in (1, 2):
            probe.letters(company, 1, payload=Jsonb({"n": number}))
        probe.replay(company)
        return int(probe.value("SELECT count(DISTINCT payload) FROM event_outbox WHERE company_id = %s", company))


@service(lambda p: _known_to_a_stranger(p) == 202, f"{LEDGER}/events-as-sent", "another company")
@around("accept_event")
async def known_events_are_answered_to_anybody(release: Parts, parts: Parts, call: Call) -> Reply:
    """A known event is answered before the company of the token is checked."""
    try:
        return await release.accept_event(parts, call)
    except Refusal as refusal:
        event = parts.read_event(call.body)
        if refusal.code != "forbidden" or event.event_id is None:
            raise
        async with parts.database.connection() as conn:
            cursor = await conn.execute(b"SELECT path FROM events WHERE id = %s::uuid", (event.event_id,))
            known = await cursor.fetchone()
        if known is None:
            raise
        return Reply(202, {"event_id": event.event_id, "path": known[0], "duplicate": True})


def _known_to_a_stranger(probe: Probe) -> int:
    with probe.tenant() as company:
        event = probe.event(company).json()["event_id"]
        fields = {"company_id": company, "event_id": event, "event_type": "witness.done", "payload": {"n": 1}}
        return _send_as(probe, str(uuid.uuid4()), "/events", **fields)


def _send_as(probe: Probe, administered: str, path: str, **fields: Any) -> int:
    """The status of a POST by an administrator of this company."""
    token = probe.token({"role": "company_admin", "company_id": administered})
    return probe.send(json.dumps(fields).encode(), probe.as_token(token), path).status_code
