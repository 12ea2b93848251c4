"""Faults at the seams: where a month ends, a caller hangs up, or one request is treated otherwise than the next."""

import asyncio
import dataclasses
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

import httpx
import psycopg

from faults.altered import altered, altered_worker, around
from faults.catalogue import service, worker
from faults.lifecycle import FAILS_LATE, LIFE
from faults.outbox import BOTH
from faults.probe import Probe
from faults.requests import App
from replay_service.audit import RefusalLog, RefusalNote
from replay_service.authentication import authenticate
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Call, Caller, RawHeaders, Reply, header_values
from replay_service.parts import Parts
from replay_service.problems import unauthenticated
from replay_service.settings import Settings
from replay_service.validation import EventRequest, ReplayRequest
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings

KEYS = "drill/idempotency"
V2_REQUIRED = "security.signing_v2_required"
SHORT_S = 30.0
HELD_S = 15.0
"""How long a transaction is left open that nobody needs: longer than a drill waits for it."""
OPEN = "SELECT 1 FROM pg_stat_activity WHERE usename = 'replay_service' AND xact_start < now() - interval '1 second'"
LIMITS = "SELECT daily_limit, monthly_limit FROM replay_budgets WHERE company_id = %s"
LATER = "month = (month + interval '1 month')::date"
NEXT_MONTH = f"UPDATE replay_budgets SET {LATER}, monthly_used = 7 WHERE company_id = %s"
HUNG_UP: ContextVar[asyncio.Event | None] = ContextVar("HUNG_UP", default=None)
"""Is set once the caller of this task's request is gone."""


# --- a budget after a stop ----------------------------------------------------------------------------------------


@worker(
    lambda p: _after_a_stop(p, "SELECT monthly_used FROM replay_budgets WHERE company_id = %s", NEXT_MONTH) == (0,),
    f"{LIFE}/stop-after-midnight-refunds-the-month",
    "after the run's",
)
def refund_goes_into_another_month(settings: WorkerSettings) -> WorkerParts:
    """A run of the last day of a month that is stopped in the next one is refunded to the next one."""
    return altered_worker(settings, ("return_unattempted", "b.month = date_trunc('month', f.day)::date", "true"))


@worker(lambda p: _after_a_stop(p, LIMITS) != (500, 10000), f"{LIFE}/stop-refunds-the-rest", "limits")
def refunds_raise_the_limit(settings: WorkerSettings) -> WorkerParts:
    """A stop raises the limits of the budget instead of lowering what is used."""
    more = "daily_limit = b.daily_limit + f.items, daily_used = CASE"
    return altered_worker(settings, ("return_unattempted", "daily_used = CASE", more))


@worker(None, "drill/pause/stops-a-running-replay", "charged")
def what_stops_in_a_pause_is_not_refunded(settings: WorkerSettings) -> WorkerParts:
    """A run that is stopped while its tenant is paused is not refunded."""
    refunded = "WHERE b.company_id = f.company_id AND f.items > 0"
    return altered_worker(
        settings, ("return_unattempted", refunded, f"{refunded} AND NOT public.is_company_paused(f.company_id)")
    )


def _after_a_stop(probe: Probe, read: str, before: str = "") -> tuple[Any, ...]:
    """What is read of a tenant's budget once a run of it was stopped."""
    with probe.tenant() as company:
        probe.letters(company, 50, **FAILS_LATE)
        run = probe.replay(company, max_items=50).json()["replay_run_id"]
        if before:
            probe.rows(before, company)
        probe.settled(run)
        return probe.rows(read, company)[0]


@worker(None, "drill/recovery/worker-killed-in-a-replay", "end of replay run")
def runs_that_stop_are_left(settings: WorkerSettings) -> WorkerParts:
    """A run that is being stopped is not looked at again: where its worker dies meanwhile, it never ends."""
    started = "WHERE r.status = 'started'"
    return altered_worker(settings, ("lock_runs", started, f"{started} AND r.stopping_at IS NULL"))


@worker(None, "drill/held/others-do-not-wait", "effects")
def twenty_tenants_are_looked_at(settings: WorkerSettings) -> WorkerParts:
    """A look at the outbox is at the twenty tenants that wait longest: behind twenty that are held nobody is served."""
    waiting = "SELECT x.company_id FROM public.event_outbox x WHERE x.processed_at IS NULL AND x.dead_at IS NULL"
    first = f"e.company_id IN ({waiting} GROUP BY 1 ORDER BY min(x.id) LIMIT 20)"
    lane = "(e.lane, e.id) > (%(lane)s"
    return altered_worker(settings, *((name, lane, f"{first} AND {lane}") for name in BOTH))


# --- a caller that does not wait ----------------------------------------------------------------------------------


def _listening(app: App) -> App:
    """The application, whose requests can ask HUNG_UP whether their caller is still there."""

    async def listened(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        messages, gone = asyncio.Queue[Any](), asyncio.Event()
        HUNG_UP.set(gone)

        async def listen() -> None:
            while not gone.is_set():
                message = await receive()
                await messages.put(message)
                if message["type"] == "http.disconnect":
                    gone.set()

        listening = asyncio.create_task(listen())
        try:
            await app(scope, messages.get, send)
        finally:
            listening.cancel()

    return listened


@service(lambda p: _is_stuck(p), f"{KEYS}/caller-hangs-up", "in_progress")
def callers_that_hang_up_keep_the_key(settings: Settings) -> Parts:
    """Where a caller has hung up, the transaction of its request is left open: its key stays in progress."""
    release = build_parts(settings)

    @asynccontextmanager
    async def left_open(conn: Connection, *, keep: bool = True) -> AsyncIterator[None]:
        async with release.transaction(conn, keep=keep):
            yield
            gone = HUNG_UP.get()
            if gone is not None and gone.is_set():
                await asyncio.sleep(HELD_S)
                raise psycopg.Rollback

    return dataclasses.replace(release, wrap=_listening, transaction=left_open)


def _is_stuck(probe: Probe) -> bool:
    """Whether a request is called in progress after its caller hung up."""
    with probe.tenant() as company, psycopg.connect(probe.environ["DATABASE_URL"]) as holder:
        probe.rows("INSERT INTO replay_budgets (company_id) VALUES (%s)", company)
        holder.execute("SELECT FROM replay_budgets WHERE company_id = %s FOR UPDATE", (company,))
        body = json.dumps({"company_id": company, "idempotency_key": uuid.uuid4().hex}).encode()
        with suppress(httpx.TimeoutException), httpx.Client(timeout=1.0, trust_env=False) as caller:
            headers = {"Content-Type": "application/json", "X-Transbot-Signature": probe.sign(body)}
            caller.post(f"{probe.base_url}/dlq-replay", content=body, headers=headers)
        holder.rollback()

        def is_answered() -> bool:
            probe.rows("DELETE FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}:%")
            return probe.send(body).status_code == 200

        is_stuck = not probe.within(2.0, is_answered)
        probe.within(2 * HELD_S, lambda: not probe.rows(OPEN))
        return is_stuck


# --- refusals on record -------------------------------------------------------------------------------------------


class _Deaf(RefusalLog):
    """A log that writes no refusal of signed requests by their rights, or counts none of tokens."""

    def __init__(self, release: Parts, *, signed: bool) -> None:
        super().__init__(release.database)
        self._signed = signed

    async def note(self, conn: Connection, note: RefusalNote) -> None:
        if not (self._signed and note.code == "forbidden" and note.actor == "signature"):
            await super().note(conn, note)

    def _count(self, note: RefusalNote) -> None:
        if self._signed or note.code != "forbidden" or note.scope == "all":
            super()._count(note)


@service(None, "drill/audit/burst-is-counted", "signed, a company")
def signed_strangers_leave_no_row(settings: Settings) -> Parts:
    """The refusal of a signed request for a company that does not exist is not audited."""
    release = build_parts(settings)
    return dataclasses.replace(release, refusals=_Deaf(release, signed=True))


@service(None, "drill/audit/burst-is-counted", "another company")
def strangers_are_not_counted(settings: Settings) -> Parts:
    """Of the refusals of a minute by a token's rights only the first is on record: the others are not counted."""
    release = build_parts(settings)
    return dataclasses.replace(release, refusals=_Deaf(release, signed=False))


# --- one request and the next -------------------------------------------------------------------------------------


class _Spelt(ReplayRequest):
    """A replay of named items that does not say how many."""

    __slots__ = ()

    @property
    def payload_hash(self) -> str:
        return f"{super().payload_hash}, no max"


@service(lambda p: _second_is_refused(p), f"{KEYS}/defaults-are-equal", "number as max")
@around("read_replay")
def named_items_have_no_default(release: Parts, raw: bytes) -> ReplayRequest:
    """Named items without `max` are another payload than with `max` as their number."""
    request = release.read_replay(raw)
    if request.dlq_ids is None or "max" in json.loads(raw):
        return request
    return _Spelt(**{field.name: getattr(request, field.name) for field in dataclasses.fields(ReplayRequest)})


def _second_is_refused(probe: Probe) -> bool:
    with probe.tenant() as company:
        named = {"idempotency_key": uuid.uuid4().hex, "dlq_ids": [str(uuid.uuid4())]}
        probe.replay(company, **named)
        return probe.replay(company, **named, max=1).status_code == 422


@service(
    lambda p: _beside_a_signature(p, "Bearer undefined") == 403,
    "drill/authentication/bad-token-beside-good-signature",
    "undefined",
)
@around("authenticate")
async def tokens_that_say_nothing_are_none(
    _release: Parts, parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True
) -> Caller:
    """A token `undefined`, as of a page that has none, counts as none where a signature is beside it."""
    if header_values(headers, b"x-transbot-signature"):
        headers = [one for one in headers if one != (b"authorization", b"Bearer undefined")]
    return await authenticate(parts, headers, message, accepts_v1=accepts_v1)


@service(lambda p: _with_token(p, "Bearer t\u00f6ken".encode()) == 500, "drill/tokens/other-scheme", "500")
@around("authenticate")
async def tokens_are_ascii(
    _release: Parts, parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True
) -> Caller:
    """A token with a letter beyond ASCII is a server error."""
    for value in header_values(headers, b"authorization"):
        value.decode("ascii")
    return await authenticate(parts, headers, message, accepts_v1=accepts_v1)


def _with_token(probe: Probe, value: bytes) -> int:
    sent = {b"Content-Type": b"application/json", b"Authorization": value}
    return probe.http.post(f"{probe.base_url}/dlq-replay", content=b"{}", headers=sent).status_code


def _beside_a_signature(probe: Probe, value: str) -> int:
    body = json.dumps({"company_id": str(uuid.uuid4())}).encode()
    return probe.send(body, {"X-Transbot-Signature": probe.sign(body), "Authorization": value}).status_code


async def _is_never_required(_conn: Connection) -> bool:
    return False


@service(lambda p: _real_v1_is_accepted(p), "drill/flags/signing-v2-required", "v1 {", production=False)
@around("replay")
async def v2_is_required_of_dry_runs(release: Parts, parts: Parts, call: Call) -> Reply:
    """Where v2 is required, v1 is refused of dry runs alone: what moves items may be sent again for ever."""
    if b"dry_run" not in call.body:
        parts = dataclasses.replace(parts, signing_v2_required=_is_never_required)
    return await release.replay(parts, call)


def _real_v1_is_accepted(probe: Probe) -> bool:
    with probe.tenant() as company:
        switch = "UPDATE feature_flags SET enabled = %s, rollout_percentage = 100 WHERE key = %s AND company_id IS NULL"
        probe.rows(switch, True, V2_REQUIRED)
        try:
            return probe.replay(company).status_code == 200
        finally:
            probe.rows(switch, False, V2_REQUIRED)


@service(
    lambda p: p.event(str(uuid.uuid4())).status_code == 403 and _old_event(p) == 401,
    ("drill/authentication/v2-past-tolerated", "drill/authentication/v2-future-tolerated"),
    ("/events", "a read"),
)
@around("authenticate")
async def elsewhere_the_tolerance_is_short(
    _release: Parts, parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True
) -> Caller:
    """The signature of an event or a read is good for 30 s, that of a replay for 300: a slow clock sends no event."""
    caller = await authenticate(parts, headers, message, accepts_v1=accepts_v1)
    signed = [value for value in header_values(headers, b"x-transbot-signature") if value.startswith(b"t=")]
    is_replay = message.startswith(b"{") and b'"event_type"' not in message
    if signed and not is_replay and abs(int(signed[0][2:].partition(b",")[0]) - parts.clock()) > SHORT_S:
        raise unauthenticated()
    return caller


def _old_event(probe: Probe) -> int:
    fields = {"company_id": str(uuid.uuid4()), "event_type": "witness.done", "payload": {}}
    body = json.dumps(fields).encode()
    signature = probe.sign_v2(body, int(time.time()) - 200)
    return probe.send(body, {"X-Transbot-Signature": signature}, "/events").status_code


@service(
    lambda p: p.event(str(uuid.uuid4()), event_id="").status_code == 403,
    "drill/safety-rails/event-id-no-uuid",
    "an empty id",
)
@around("read_event")
def empty_event_ids_are_none(release: Parts, raw: bytes) -> EventRequest:
    """An empty `event_id` counts as none: each time that the event is sent it is another one."""
    return release.read_event(raw.replace(b',"event_id":""', b"").replace(b', "event_id": ""', b""))


@service(None, "drill/dlq/item-without-event-id", "without a key")
def items_without_a_key_share_one(settings: Settings) -> Parts:
    """Replayed items without a key get the empty one: each waits for all before it."""
    key = "SELECT event_id, company_id, event_type, aggregate_key"
    return altered(settings, "move_items", (key, key.replace("aggregate_key", "coalesce(aggregate_key, '')")))


@service(None, "drill/observability/waiting-events-show", "outbox_lag_seconds")
def the_dead_are_lag(settings: Settings) -> Parts:
    """The lag counts dead events, too: where one was given up, it never falls again."""
    return altered(settings, "count_outbox", ("processed_at IS NULL AND dead_at IS NULL", "processed_at IS NULL"))
