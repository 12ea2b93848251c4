"""Faults of requests that come at once, or after one that failed, and are carried out well one after the other."""

import asyncio
import dataclasses
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import psycopg

from faults.altered import altered, around
from faults.catalogue import service
from faults.probe import Probe
from replay_service.authentication import authenticate
from replay_service.composition import build_parts
from replay_service.database import Connection, fetch_row
from replay_service.exchange import Call, Caller, RawHeaders, Reply
from replay_service.idempotency import Run
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.validation import EventRequest, ReplayRequest

_ASKING = list[asyncio.Future[bool]]()


@service(lambda p: _answers_differ(p), "drill/ledger/refused-however-asked", ("refused", "admitted"))
@around("is_paused")
async def one_asks_for_all(release: Parts, conn: Connection, company_id: str) -> bool:
    """Replays at the same moment share the answer to whether their tenant is paused, whichever tenant it is."""
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


@service(lambda p: _are_one(p, "event", "event_id"), "drill/outbox/equal-events-are-two", "at once")
def equal_events_at_once_are_one(settings: Settings) -> Parts:
    """Two equal events without ids that come at once are one: the second gets the answer of the first, and is lost."""
    release = build_parts(settings)
    return dataclasses.replace(release, accept_event=_once_at_a_time(release.accept_event, b'"event_id"'))


@service(lambda p: _are_one(p, "replay", "replay_run_id"), "drill/dlq/concurrent-replays-one-claim", "share")
def like_replays_at_once_are_one(settings: Settings) -> Parts:
    """Two like replays without a key that come at once are one: the second gets the answer of the first, uncounted."""
    release = build_parts(settings)
    return dataclasses.replace(release, replay=_once_at_a_time(release.replay, b'"idempotency_key"'))


def _once_at_a_time(
    story: Callable[[Parts, Call], Awaitable[Reply]], unless: bytes
) -> Callable[[Parts, Call], Awaitable[Reply]]:
    """The endpoint, where equal bodies that come at once, without this member, are carried out once for all of them."""
    under_way = dict[bytes, asyncio.Future[Reply]]()

    async def twin(parts: Parts, call: Call) -> Reply:
        if unless in call.body.partition(b'"payload"')[0]:
            return await story(parts, call)
        if call.body not in under_way:
            under_way[call.body] = asyncio.ensure_future(story(parts, call))
            under_way[call.body].add_done_callback(lambda _: under_way.pop(call.body))
        return await asyncio.shield(under_way[call.body])

    return twin


def _are_one(probe: Probe, send: str, told: str) -> bool:
    """Whether three like requests that are sent at once are told one id, in a few tries."""
    for _ in range(10):
        with probe.tenant() as company, ThreadPoolExecutor(max_workers=3) as pool:
            sent = [pool.submit(getattr(probe, send), company) for _ in range(3)]
            if len({one.result().json().get(told) for one in sent}) < 3:
                return True
    return False


@service(lambda p: _fails_beside_another(p), "drill/outbox/same-event-id-raced", "500")
def looked_for_before_it_is_written(settings: Settings) -> Parts:
    """Of two senders of one event at once one gets a server error: each looks for the event before it writes it."""
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


@service(lambda p: _calls_the_second_a_duplicate(p), "drill/ledger/events-as-sent", "told that it is a duplicate")
def like_events_are_called_duplicates(settings: Settings) -> Parts:
    """An event without an id that equals an earlier one is called a duplicate, yet delivered."""
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


@service(lambda p: _is_busy_for_ever(p), "drill/idempotency/in-progress", "409")
@around("begin_run")
async def in_progress_is_remembered(release: Parts, conn: Connection, request: ReplayRequest, started: Run) -> Any:
    """Who was told once that its key is in progress is told so for ever."""
    scope = started.key, request.company_id
    if scope in _BUSY:
        raise Refusal("in_progress", "A request with this idempotency key is running.")
    try:
        return await release.begin_run(conn, request, started)
    except Refusal as refusal:
        if refusal.code == "in_progress":
            _BUSY.add(scope)
        raise


def _is_busy_for_ever(probe: Probe) -> bool:
    with probe.tenant() as company, psycopg.connect(probe.environ["DATABASE_URL"]) as other:
        other.execute("INSERT INTO replay_runs (idempotency_key, company_id) VALUES ('w', %s)", (company,))
        probe.replay(company, idempotency_key="w")
        other.rollback()
        return probe.replay(company, idempotency_key="w").status_code == 409


_MINE: ContextVar[tuple[str, str] | None] = ContextVar("_MINE", default=None)
"""The key that the request of this task has taken."""


@service(lambda p: _is_taken_after_an_error(p), "drill/outbox/commit-that-fails", "409 in_progress")
def errors_keep_the_key(settings: Settings) -> Parts:
    """A key stays taken after an error of the database: who sends its request again is told that it is in progress."""
    release, taken = build_parts(settings), set[tuple[str, str] | None]()

    async def begin_run(conn: Connection, request: ReplayRequest, started: Run) -> Any:
        if (scope := (started.key, request.company_id)) in taken:
            raise Refusal("in_progress", "A request with this idempotency key is running.")
        taken.add(scope)
        _MINE.set(scope)
        return await release.begin_run(conn, request, started)

    @asynccontextmanager
    async def transaction(conn: Connection, *, keep: bool = True) -> AsyncIterator[None]:
        _MINE.set(None)
        try:
            async with release.transaction(conn, keep=keep):
                yield
        except Refusal:
            taken.discard(_MINE.get())
            raise
        taken.discard(_MINE.get())

    return dataclasses.replace(release, begin_run=begin_run, transaction=transaction)


def _is_taken_after_an_error(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.rows(f"ALTER TABLE replay_runs ADD CONSTRAINT witness_no CHECK (company_id <> '{company}') NOT VALID")
        try:
            probe.replay(company, idempotency_key="w")
        finally:
            probe.rows("ALTER TABLE replay_runs DROP CONSTRAINT witness_no")
        return probe.replay(company, idempotency_key="w").status_code == 409


@service(lambda p: _is_lost_beside_another(p), "drill/outbox/same-event-id-raced", "no such event")
def events_under_way_are_duplicates(settings: Settings) -> Parts:
    """An event whose id is just being written is called a duplicate, be it another tenant's: what it says is lost."""
    release, under_way = build_parts(settings), dict[str, asyncio.Future[tuple[str, bool]]]()

    async def emit(conn: Connection, request: EventRequest, event_id: str) -> tuple[str, bool]:
        if event_id in under_way:
            return (await asyncio.shield(under_way[event_id]))[0], True
        under_way[event_id] = asyncio.ensure_future(release.emit(conn, request, event_id))
        under_way[event_id].add_done_callback(lambda _: under_way.pop(event_id))
        return await asyncio.shield(under_way[event_id])

    return dataclasses.replace(release, emit=emit)


def _is_lost_beside_another(probe: Probe) -> bool:
    row = "INSERT INTO events (id, company_id, event_type) VALUES (%s, %s, 'witness.done')"
    with (
        probe.tenant() as first,
        probe.tenant() as second,
        psycopg.connect(probe.environ["DATABASE_URL"]) as other,
        ThreadPoolExecutor(2) as beside,
    ):
        event = str(uuid.uuid4())
        other.execute(row, (event, first))
        sent = [beside.submit(probe.event, one, event_id=event) for one in (first, second)]
        probe.within(0.6, lambda: False)
        other.rollback()
        return all(one.result(10).status_code == 202 for one in sent)


@service(lambda p: _takes_what_another_names(p), "drill/budgets/named-items-are-cut-and-charged", "at once")
def the_last_request_counts(settings: Settings) -> Parts:
    """Of a tenant's replays that come at once, each takes what the last of them asks for."""
    release, last = build_parts(settings), dict[str, ReplayRequest]()

    def read_replay(raw: bytes) -> ReplayRequest:
        request = release.read_replay(raw)
        last[request.company_id] = request
        return request

    async def pick(conn: Connection, request: ReplayRequest, limit: int) -> tuple[str, ...]:
        return await release.pick(conn, last[request.company_id], limit)

    return dataclasses.replace(release, read_replay=read_replay, pick=pick)


def _takes_what_another_names(probe: Probe) -> bool:
    held = "SELECT 1 FROM replay_budgets WHERE company_id = %s FOR UPDATE"
    with (
        probe.tenant() as company,
        psycopg.connect(probe.environ["DATABASE_URL"]) as other,
        ThreadPoolExecutor(2) as beside,
    ):
        ids = probe.letters(company, 2)
        probe.rows("INSERT INTO replay_budgets (company_id) VALUES (%s)", company)
        other.execute(held.encode(), (company,))
        sent = [beside.submit(probe.replay, company, dlq_ids=[one]) for one in ids]
        probe.within(0.6, lambda: False)
        other.rollback()
        return any(call.result(10).json()["items"] != [one] for one, call in zip(ids, sent, strict=True))


@service(lambda p: _sends_beside_another(p), "drill/tokens/foreign-event-refused", "beside another caller's")
def events_have_the_rights_of_the_last(settings: Settings) -> Parts:
    """The sender of an event is a global variable: an event has the rights of another that comes at the same time."""
    release, last = build_parts(settings), list[Caller]()

    async def heard(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
        last[:] = [await authenticate(parts, headers, message, accepts_v1=accepts_v1)]
        await asyncio.sleep(0.005)
        return last[0]

    async def accept_event(parts: Parts, call: Call) -> Reply:
        return await release.accept_event(dataclasses.replace(parts, authenticate=heard), call)

    return dataclasses.replace(release, accept_event=accept_event)


def _sends_beside_another(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = {"company_id": company, "event_type": "witness.done", "aggregate_key": "k", "payload": {"n": 1}}
        body = json.dumps(event).encode()
        return _is_let_in_beside(probe, company, lambda caller: probe.send(body, caller, "/events").status_code)


def _is_let_in_beside(probe: Probe, company: str, ask: Callable[[dict[str, str]], int]) -> bool:
    """Whether a stranger is ever let in while the company's admin asks at the same time."""
    own, foreign = (
        probe.as_token(probe.token({"role": "company_admin", "company_id": one}))
        for one in (company, str(uuid.uuid4()))
    )
    with ThreadPoolExecutor(max_workers=8) as pool:
        calls = [(caller, pool.submit(ask, caller)) for _ in range(12) for caller in (own, foreign)]
        return any(call.result(20) < 300 for caller, call in calls if caller is foreign)


@service(
    lambda p: _reads_beside_another(p),
    ("drill/tokens/foreign-run-hidden", "drill/tokens/foreign-event-hidden"),
    "beside another caller's",
)
def reads_at_once_share_an_answer(settings: Settings) -> Parts:
    """Reads of a run or an event that come at once share one answer: a stranger gets that of the company's admin."""
    release, under_way = build_parts(settings), dict[bytes, asyncio.Future[Reply]]()

    def shared(read: Callable[..., Any]) -> Callable[..., Any]:
        async def once(parts: Parts, call: Call, path: bytes, wanted: str) -> Reply:
            if path not in under_way:
                under_way[path] = asyncio.ensure_future(read(parts, call, path, wanted))
                under_way[path].add_done_callback(lambda _: under_way.pop(path))
            return await asyncio.shield(under_way[path])

        return once

    return dataclasses.replace(
        release, read_run=shared(release.read_run), read_event_state=shared(release.read_event_state)
    )


def _reads_beside_another(probe: Probe) -> bool:
    with probe.tenant() as company:
        path = f"/events/{probe.event(company).json()['event_id']}"
        return _is_let_in_beside(probe, company, lambda caller: probe.get(path, **caller).status_code)
