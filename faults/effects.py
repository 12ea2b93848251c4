"""Faults of how a replay starts: moving the items, the run, the answer, and all of it in one transaction."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from psycopg.types.json import Jsonb

from faults.altered import altered, around, instead_of
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import is_dry, remembering
from replay_service.claim import Selection
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Call, Reply
from replay_service.idempotency import Outcome, Run
from replay_service.parts import Parts
from replay_service.replay import replay
from replay_service.settings import Settings
from replay_service.validation import ReplayRequest

START_AND_EFFECT_TOGETHER = "drill/audit/start-and-effect-together"
DLQ, RAILS = "drill/dlq", "drill/safety-rails"
_NO_PLACE = "SELECT payload ? 'place' FROM event_outbox WHERE company_id = %s"
_KEY = "SELECT aggregate_key FROM event_outbox WHERE company_id = %s"
_EVENT = "00000000-0000-4000-8000-%012d"
_SAME_ID = f"SELECT bool_and(event_id = '{_EVENT % 77}') FROM event_outbox WHERE company_id = %s"


def _after(probe: Probe, ask: str, letters: int = 2, columns: dict[str, Any] | None = None, **fields: Any) -> Any:
    """What `ask` finds of a tenant after a replay of its letters."""
    with probe.tenant() as company:
        probe.letters(company, letters, **(columns or {}))
        probe.replay(company, **fields)
        return probe.value(ask, company)


def _answer(probe: Probe, letters: int = 2, **fields: Any) -> dict[str, Any]:
    with probe.tenant() as company:
        probe.letters(company, letters)
        return dict(probe.replay(company, **fields).json())


@service(
    lambda p: not _after(p, _SAME_ID, 1, {"event_id": _EVENT % 77}),
    "drill/lifecycle/event-id-is-stable",
    ("event_id", "event id", "id"),
)
def new_event_id(settings: Settings) -> Parts:
    """A replay gives its event a new id: the agent cannot refuse a second effect."""
    change = ("event_id = coalesce(event_id, gen_random_uuid())", "event_id = gen_random_uuid()")
    return altered(settings, "move_items", change)


@service(
    lambda p: _after(p, "SELECT payload ? 'replayed' FROM event_outbox WHERE company_id = %s", 1),
    f"{DLQ}/letter-is-kept",
    ("differs", "payload"),
)
def payload_changed(settings: Settings) -> Parts:
    """The payload of a replayed item is changed on its way."""
    change = ("aggregate_key, payload, %(run_id)s", "aggregate_key, payload || '{\"replayed\": true}', %(run_id)s")
    return altered(settings, "move_items", change)


@service(lambda p: not _after(p, _NO_PLACE, 1, {"payload": Jsonb({"place": None})}), f"{DLQ}/letter-is-kept", "differs")
def nulls_are_dropped(settings: Settings) -> Parts:
    """Null members of a replayed item's payload are dropped."""
    change = ("aggregate_key, payload, %(run_id)s", "aggregate_key, jsonb_strip_nulls(payload), %(run_id)s")
    return altered(settings, "move_items", change)


@service(
    lambda p: _after(p, _KEY, 1, {"aggregate_key": "k"}) is None,
    f"{DLQ}/letter-is-kept",
    ("differs", "aggregate_key", "key", "order"),
)
def key_dropped(settings: Settings) -> Parts:
    """A replayed item loses its key: it is delivered out of order."""
    change = ("aggregate_key, payload, %(run_id)s", "NULL, payload, %(run_id)s")
    return altered(settings, "move_items", change)


@service(
    lambda p: _after(p, "SELECT event_type FROM event_outbox WHERE company_id = %s", 1) == "replay",
    f"{DLQ}/letter-is-kept",
    ("differs", "event_type", "type"),
)
def type_replaced(settings: Settings) -> Parts:
    """A replayed item gets another event type."""
    change = ("event_type, aggregate_key, payload, %(run_id)s", "'replay', aggregate_key, payload, %(run_id)s")
    return altered(settings, "move_items", change)


@service(
    lambda p: _after(p, "SELECT bool_or(status = 'resolved') FROM dead_letter_queue WHERE company_id = %s", 2, _slow()),
    f"{DLQ}/only-legal-transitions",
    ("resolved", "transition"),
)
def resolved_at_once(settings: Settings) -> Parts:
    """Items of a replay are resolved when they are taken, before their effect."""
    return altered(settings, "move_items", ("status = 'replaying', event_id", "status = 'resolved', event_id"))


def _slow() -> dict[str, Any]:
    return {"event_type": "drill.witness", "payload": Jsonb({"drill": {"delay_ms": 1000}})}


@service(
    lambda p: _after(p, "SELECT count(*) FROM event_outbox WHERE company_id = %s") == 0,
    (f"{DLQ}/replayed-item-is-resolved", "sql/spot/replaying-items-are-on-their-way"),
    ("outbox", "replaying", "resolved", "item", "effect"),
)
def no_outbox_row(settings: Settings) -> Parts:
    """Items are taken, but get no outbox row: they hang as `replaying`."""
    return altered(settings, "move_items", ("FROM moved\nORDER", "FROM moved WHERE false\nORDER"))


@service(
    lambda p: _after(p, "SELECT bool_or(status = 'pending') FROM dead_letter_queue WHERE company_id = %s", 2, _slow()),
    (f"{DLQ}/only-legal-transitions", f"{DLQ}/concurrent-replays-one-claim"),
    ("in the answers", "resolved items", "pending"),
)
def not_taken(settings: Settings) -> Parts:
    """Items get their outbox row, but stay `pending`: the next replay takes them again."""
    return altered(settings, "move_items", ("status = 'replaying', event_id", "status = status, event_id"))


@service(
    lambda p: not _after(p, _ONE_TXID),
    (f"{DLQ}/run-and-items-together", START_AND_EFFECT_TOGETHER, "drill/recovery/replay-session-ended", "sql/spot/*"),
    ("transaction", "txid", "together"),
)
def moved_in_another_transaction(settings: Settings) -> Parts:
    """Items are moved before the transaction of the run: a crash between them leaves items without a run."""
    return moving_apart(settings, 0)


def moving_apart(settings: Settings, together: int) -> Parts:
    """The service that moves this many items of a run in its transaction, and the others after it."""
    release = build_parts(settings)

    async def move(conn: Connection, run_id: str, items: Sequence[str]) -> None:
        await release.move(conn, run_id, items[:together])
        moving.append((run_id, items[together:]))

    async def twin(parts: Parts, call: Call) -> Reply:
        reply = await replay(parts, call)
        while moving:
            run_id, items = moving.pop()
            async with parts.database.connection() as conn:
                await release.move(conn, run_id, items)
        return reply

    moving: list[tuple[str, Sequence[str]]] = []
    return dataclasses.replace(release, move=move, replay=twin)


_ONE_TXID = """SELECT count(DISTINCT t) = 1 FROM (SELECT txid AS t, company_id::text AS c FROM event_outbox
    UNION ALL SELECT txid, scope FROM audit_logs WHERE action = 'dlq_replay_started') AS found WHERE c = %s"""


@service(
    lambda p: _answer(p, 0)["status"] == "started",
    (f"{RAILS}/nothing-eligible-completes", "drill/audit/nothing-eligible", "sql/spot/runs-not-stuck"),
    ("completed", "started"),
)
def empty_run_stays_started(settings: Settings) -> Parts:
    """A run without items stays `started`."""
    release = build_parts(settings)

    async def finish(conn: Connection, run: Run, outcome: Outcome) -> None:
        await release.finish_run(conn, run, dataclasses.replace(outcome, status="started"))

    return _saying(dataclasses.replace(release, finish_run=finish), {"status": "started"}, only="completed")


@service(
    lambda p: _answer(p)["status"] == "completed",
    ("drill/safety-rails/nothing-eligible-completes", "drill/dry-run/absent-means-real"),
    ("started", "completed"),
)
def started_called_completed(settings: Settings) -> Parts:
    """A run with items is called completed in the answer, before anything was delivered."""
    return _saying(build_parts(settings), {"status": "completed"}, only="started")


@service(
    lambda p: _answer(p, 0, dlq_ids=["00000000-0000-4000-8000-000000000000"])["status"] == "started",
    f"{RAILS}/nothing-eligible-completes",
    "that is named",
)
@around("replay")
async def nothing_named_is_started(release: Parts, given: Parts, call: Call) -> Reply:
    """A run of named items of which none is there is called started."""
    said = _saying(release, {"status": "started"}, only="completed")
    return await (said if b"dlq_ids" in call.body else release).replay(given, call)


def _saying(parts: Parts, members: Mapping[str, Any], only: str = "") -> Parts:
    """The service whose answers have these members replaced."""

    async def twin(given: Parts, call: Call) -> Reply:
        reply = await replay(given, call)
        is_meant = only in {"", reply.body["status"]}
        return dataclasses.replace(reply, body={**reply.body, **members}) if is_meant else reply

    return dataclasses.replace(parts, replay=twin)


@service(
    lambda p: _answer(p, 2, max_items=9)["target_count"] == 9,
    (f"{RAILS}/answer-adds-up", "drill/dry-run/answer", "drill/budgets/charged-by-items-moved", "sql/spot/run-counts"),
    "target_count",
)
def target_is_max(settings: Settings) -> Parts:
    """`target_count` is what was asked for, not what is taken."""
    return _saying(build_parts(settings), {"target_count": 9})


@service(lambda p: _answer(p, 1, dry_run=True)["idempotency_key"] is None, "drill/dry-run/answer", "idempotency_key")
def dry_run_says_no_key(settings: Settings) -> Parts:
    """A dry run does not say which key it had."""
    return _saying(build_parts(settings), {"idempotency_key": None}, only="dry_run")


@service(
    lambda p: "not_found" not in _answer(p), (f"{RAILS}/answer-adds-up", f"{RAILS}/foreign-ids-not-found"), "not_found"
)
@instead_of("replay")
async def lists_missing(given: Parts, call: Call) -> Reply:
    """The answer lacks `not_found` and `ineligible`."""
    reply = await replay(given, call)
    kept = {name: value for name, value in reply.body.items() if name not in {"not_found", "ineligible"}}
    return dataclasses.replace(reply, body=kept)


@service(lambda p: _answer(p)["idempotency_key"] is None, "drill/idempotency/key-generated", ("idempotency_key", "key"))
@instead_of("replay")
async def generated_key_not_told(given: Parts, call: Call) -> Reply:
    """A request without a key gets no generated key in the answer: it cannot be repeated safely."""
    reply = await replay(given, call)
    is_made = str(reply.body["idempotency_key"]).startswith("gen-")
    return dataclasses.replace(reply, body={**reply.body, "idempotency_key": None}) if is_made else reply


@service(lambda p: _moved_by_id(p), "drill/lifecycle/items-of-a-key-in-order", "order")
def moved_in_the_order_of_ids(settings: Settings) -> Parts:
    """The items of a run get their outbox rows in the order of their ids, not of their ages."""
    return altered(settings, "move_items", ("ORDER BY moved.created_at, moved.id", "ORDER BY moved.id"))


def _moved_by_id(probe: Probe) -> bool:
    ask = """SELECT array_agg(o.id ORDER BY d.created_at) <> array_agg(o.id ORDER BY o.id)
        FROM event_outbox o JOIN dead_letter_queue d ON d.id = o.dlq_id WHERE o.company_id = %s"""
    with probe.tenant() as company:
        probe.letters(company, 12)
        probe.replay(company)
        return bool(probe.value(ask, company))


@service(lambda p: _letter_beside_its_event(p) == "replaying", f"{DLQ}/event-still-in-the-outbox", "run")
def no_second_row_for_an_event(settings: Settings) -> Parts:
    """An event that is on its way already gets no outbox row of its replay: its letter is stuck."""
    open_row = "SELECT FROM public.event_outbox o WHERE o.event_id = moved.event_id AND o.processed_at IS NULL"
    return altered(settings, "move_items", ("FROM moved\nORDER", f"FROM moved WHERE NOT EXISTS ({open_row})\nORDER"))


def _letter_beside_its_event(probe: Probe) -> str:
    """The outcome of a dead letter whose event another relay has claimed."""
    with probe.tenant() as company:
        claimed = """INSERT INTO event_outbox (company_id, event_type, claimed_until)
            VALUES (%s, 'witness.done', now() + interval '1 hour') RETURNING event_id"""
        probe.letters(company, 1, event_id=probe.value(claimed, company))
        probe.settled(probe.replay(company).json()["replay_run_id"], 3.0)
        return str(probe.value("SELECT status FROM dead_letter_queue WHERE company_id = %s", company))


@service(
    lambda p: _after(p, "SELECT count(*) FROM event_outbox WHERE company_id = %s", dry_run=True) > 0,
    ("drill/dry-run/writes-nothing", "drill/dry-run/delivers-nothing", "drill/proof/dry-run-changes-nothing"),
    ("dry", "outbox"),
)
def dry_run_is_real(settings: Settings) -> Parts:
    """A dry run moves the items."""
    release = remembering(settings)

    async def twin(conn: Connection, request: ReplayRequest, items: Sequence[str], limit: int) -> Selection:
        found = await release.describe(conn, request, items, limit)
        if is_dry():
            await release.move(conn, release.new_id(), items)
        return found

    @asynccontextmanager
    async def keeping(conn: Connection, *, keep: bool = True) -> AsyncIterator[None]:
        async with conn.transaction():
            yield

    return dataclasses.replace(release, describe=twin, transaction=keeping)


@service(lambda p: _taken_twice(p), f"{DLQ}/concurrent-replays-one-claim", "answers of two replays")
def no_lock_on_items(settings: Settings) -> Parts:
    """A run takes an item that another run is just taking (no lock)."""
    parts = altered(settings, "pick_items", ("  FOR UPDATE SKIP LOCKED\n", ""))

    async def pick(conn: Connection, request: ReplayRequest, limit: int) -> tuple[str, ...]:
        found = await parts.pick(conn, request, limit)
        await asyncio.sleep(0.1)
        return found

    async def unpaid(_conn: Connection, _company_id: str) -> int:
        return 500

    return dataclasses.replace(parts, pick=pick, reserve_budget=unpaid)


def _taken_twice(probe: Probe) -> bool:
    with probe.tenant() as company, ThreadPoolExecutor(max_workers=2) as pool:
        probe.letters(company, 3)
        calls = [pool.submit(probe.replay, company) for _ in range(2)]
        return bool(sum(call.result().json().get("target_count", 0) for call in calls) > 3)


@service(
    lambda p: _after(p, "SELECT target_count FROM replay_runs WHERE company_id = %s") == 0,
    ("sql/spot/run-counts", "drill/lifecycle/run-counts-add-up"),
    ("target_count", "count"),
)
def run_without_target(settings: Settings) -> Parts:
    """The stored row of a run says another number of items than the answer."""
    return altered(settings, "finish_request", ("target_count = %(target_count)s", "target_count = 0"))


@service(lambda p: _said_while_it_runs(p) == 0, START_AND_EFFECT_TOGETHER, "snapshot")
@around("replay")
async def answer_stored_afterwards(release: Parts, parts: Parts, call: Call) -> Reply:
    """What a run took and was answered is written after its items have moved: a crash between them loses both."""
    kept: list[tuple[Run, Outcome]] = []

    async def later(_conn: Connection, run: Run, outcome: Outcome) -> None:
        kept.append((run, outcome))

    reply = await release.replay(dataclasses.replace(parts, finish_run=later), call)
    await asyncio.sleep(0.5 if kept else 0)
    for run, outcome in kept:
        async with parts.database.connection() as conn:
            await release.finish_run(conn, run, outcome)
    return reply


def _said_while_it_runs(probe: Probe) -> int:
    """The target count of a run whose items have moved, before it is answered."""
    moved = "SELECT count(*) FROM event_outbox WHERE company_id = %s"
    with probe.tenant() as company, ThreadPoolExecutor(1) as beside:
        probe.letters(company, 1)
        answer = beside.submit(probe.replay, company)
        probe.within(3, lambda: bool(probe.value(moved, company)))
        said = int(probe.value("SELECT target_count FROM replay_runs WHERE company_id = %s", company))
        answer.result(10)
        return said
