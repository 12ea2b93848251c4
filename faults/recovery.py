"""Faults of the worker that show when something else breaks: a clock, a session, a process, a notice."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

import psycopg

from faults.altered import AlteredDatabase, altered, altered_worker, around
from faults.catalogue import service, worker
from faults.outbox import is_done, put
from faults.probe import Probe
from faults.requests import App
from replay_service import events, surface
from replay_service.audit import AuditRow, RefusalLog
from replay_service.composition import build_parts
from replay_service.database import QUERIES, Database, _hung_up
from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.validation import EventRequest
from replay_service.worker import process
from replay_service.worker.agents import ScriptedAgent, SqlAgent
from replay_service.worker.door import Connection, connected, keep_at
from replay_service.worker.parts import WorkerParts, build_worker_parts
from replay_service.worker.settings import WorkerSettings

SKEWED = ("drill/recovery/worker-clock-skewed",)
EACH_PHASE, FROZEN = "drill/recovery/worker-killed-in-each-phase", "drill/recovery/worker-frozen-past-its-claim"
SESSIONS, LONG = "drill/recovery/worker-sessions-ended", "drill/recovery/long-transaction-held-open"
KILLED = "drill/recovery/service-killed-in-a-replay"
IN_A_REPLAY, NOTICE_LOST = "drill/recovery/worker-killed-in-a-replay", "drill/recovery/notice-lost"


DIRECT_EFFECT = b"""INSERT INTO public.agent_tasks (company_id, agent_name, event_id, status)
SELECT company_id, 'direct', id, 'completed' FROM public.events WHERE id = %s::uuid
ON CONFLICT (event_id) DO UPDATE SET status = 'completed', updated_at = now()"""


class _ByOwnClock(dict[str, bytes]):
    """Statements of which some (`which`: none given, all) take `now`, a format, for the time: the process's."""

    def __init__(self, behind: Mapping[str, bytes], which: Sequence[str], now: str) -> None:
        super().__init__(behind)
        self._which, self._now = which, now

    def __getitem__(self, name: str) -> bytes:
        text = super().__getitem__(name)
        if name == "beat" or (self._which and name not in self._which):  # a beat of the future outlives the fault
            return text
        now = self._now.format(f"to_timestamp({time.time():.6f})").encode()
        return text.replace(b"clock_timestamp()", b"now()").replace(b"now()", now)


def _by_own_clock(settings: WorkerSettings, *which: str, now: str = "{}") -> WorkerParts:
    parts = build_worker_parts(settings)
    return dataclasses.replace(parts, queries=_ByOwnClock(parts.queries, which, now))


@worker(None, SKEWED, "clock", green=(EACH_PHASE, SESSIONS))
def own_clock(settings: WorkerSettings) -> WorkerParts:
    """The worker uses its own clock for due times, claims and retries."""
    return _by_own_clock(settings)


@service(None, SKEWED, ("clock", "items", "end of replay run"))
def own_clock_of_the_service(settings: Settings) -> Parts:
    """The service uses its own clock to select due items and to count calls."""
    texts = [QUERIES[name] for name in ("admit_request", "pick_items")]
    database = AlteredDatabase(settings, _Anew(_ByOwnClock({text.decode(): text for text in texts}, (), "{}")))
    return dataclasses.replace(build_parts(settings), database=database, refusals=RefusalLog(database))


class _Anew(dict[bytes, bytes]):
    """Statements that are rewritten on each access."""

    def __init__(self, behind: Mapping[str, bytes]) -> None:
        super().__init__()
        self._behind = behind

    def get(self, query: bytes, default: Any = None) -> Any:
        with contextlib.suppress(KeyError):
            return self._behind[query.decode()]
        return default


@worker(None, EACH_PHASE, "effects")
def done_at_the_end(settings: WorkerSettings) -> WorkerParts:
    """A worker that is told to end marks its claimed rows as done."""
    change = ("SET claimed_until = clock_timestamp()", "SET claimed_until = NULL, processed_at = clock_timestamp()")
    return altered_worker(settings, ("release_leases", *change))


@worker(None, SKEWED, "clock")
def own_clock_behind(settings: WorkerSettings) -> WorkerParts:
    """The worker uses its own clock where that is behind the database's."""
    return _by_own_clock(settings, now="least(transaction_timestamp(), {})")


@worker(None, SKEWED, "clock")
def own_clock_backs_off(settings: WorkerSettings) -> WorkerParts:
    """The worker uses its own clock for the next attempt of a failed event."""
    return _by_own_clock(settings, "settle_failed")


@worker(None, SKEWED, "clock")
def own_clock_stamps(settings: WorkerSettings) -> WorkerParts:
    """The worker stamps deliveries with its own clock."""
    return _by_own_clock(settings, "settle_delivered")


@worker(None, SKEWED, "clock")
def own_clock_postpones(settings: WorkerSettings) -> WorkerParts:
    """The worker uses its own clock for the `retry_after` of a failed item."""
    return _by_own_clock(settings, "settle_item")


class _OwnLease(dict[str, bytes]):
    """Statements whose claims end by the process's clock."""

    def __getitem__(self, name: str) -> bytes:
        return super().__getitem__(name).replace(b"OWN_CLOCK", f"to_timestamp({time.time():.6f})".encode())


@worker(None, SKEWED, "clock")
def own_clock_leases(settings: WorkerSettings) -> WorkerParts:
    """The worker uses its own clock for the end of a claim."""
    until = "clock_timestamp() + make_interval"
    parts = altered_worker(settings, ("claim_events", until, "OWN_CLOCK + make_interval"))
    return dataclasses.replace(parts, queries=_OwnLease(parts.queries))


@worker(None, EACH_PHASE, ("effect", "event"), green=(LONG,))
def new_id_at_each_claim(settings: WorkerSettings) -> WorkerParts:
    """An event that is claimed again gets another id: the agent cannot recognise it."""
    claim = "claim_token = %(token)s"
    again = f"{claim}, event_id = CASE WHEN e.claim_token IS NULL THEN e.event_id ELSE gen_random_uuid() END"
    return altered_worker(settings, ("claim_events", claim, again))


@worker(
    None,
    (FROZEN, "load/http_req_failed/rate"),  # with direct events failing, the drill cannot tell what became of others
    ("effect", "rate"),
    sql="ALTER TABLE agent_tasks DROP CONSTRAINT agent_tasks_event_id_key",
    undo_sql="DELETE FROM agent_tasks t USING agent_tasks o WHERE t.event_id = o.event_id AND t.id > o.id;"
    " ALTER TABLE agent_tasks ADD CONSTRAINT agent_tasks_event_id_key UNIQUE (event_id)",
)
def no_fence(settings: WorkerSettings) -> WorkerParts:
    """A worker settles rows whose claim it has lost, and effects are not unique."""
    fence = "e.claim_token = %(token)s AND e.processed_at IS NULL AND e.dead_at IS NULL"
    once = (
        "ON CONFLICT (event_id) DO UPDATE SET status = 'completed', agent_name = excluded.agent_name,"
        " updated_at = excluded.updated_at\n  WHERE t.status <> 'completed'"
    )
    return altered_worker(settings, ("settle_delivered", fence, "true"), ("settle_delivered", once, ""))


@worker(None, FROZEN, "run of 3 items")
def no_fence_for_items(settings: WorkerSettings) -> WorkerParts:
    """A worker settles items whose claim it has lost: the run counts them twice."""
    fence = "e.claim_token = %(token)s AND e.processed_at IS NULL AND e.dead_at IS NULL"
    return altered_worker(settings, ("fence_item", fence, "%(token)s IS NOT NULL"))


@worker(None, LONG, ("transaction", "effect"))
def above_the_last(settings: WorkerSettings) -> WorkerParts:
    """The worker reads only rows with ids above the last delivered one of the tenant."""
    unfinished = "WHERE e.processed_at IS NULL AND e.dead_at IS NULL"
    above = f"""{unfinished} AND e.id > (
    SELECT coalesce(max(d.id), 0) FROM public.event_outbox d
    WHERE d.company_id = e.company_id AND d.processed_at IS NOT NULL)"""
    return altered_worker(settings, *((name, unfinished, above) for name in ("drain_lane", "claim_events")))


@worker(
    None, (IN_A_REPLAY, NOTICE_LOST, "drill/held/delivered-when-on-again"), ("notice", "effect", "items"), green=(LONG,)
)
def no_polling(settings: WorkerSettings) -> WorkerParts:
    """The worker does not poll: only a notice makes it look."""
    return build_worker_parts(dataclasses.replace(settings, poll_s=3600.0))


@worker(lambda p: _is_seldom_seen(p), "drill/outbox/effect-within-two-seconds", ("2 s", "lag", "effect"))
def unheard_and_seldom_seen(settings: WorkerSettings) -> WorkerParts:
    """The worker listens on the wrong channel and polls only every five seconds."""
    process.CHANNEL = "outbox"
    return build_worker_parts(dataclasses.replace(settings, poll_s=5.0))


def _is_seldom_seen(probe: Probe) -> bool:
    with probe.tenant() as company:
        return is_done(probe, put(probe, company), 8) and not is_done(probe, put(probe, company))


@worker(None, SESSIONS, ("session", "effect"))
def no_reconnect(settings: WorkerSettings) -> WorkerParts:
    """A worker task whose database session was ended does not reconnect."""

    async def once(_name: str, url: str, work: Callable[[Connection], Awaitable[None]], stop: asyncio.Event) -> None:
        try:
            async with connected(url) as conn:
                await work(conn)
        except psycopg.OperationalError:
            await stop.wait()

    vars(process)["keep_at"] = once
    return build_worker_parts(settings)


@worker(None, "drill/identity/not-ready-without-worker", "after the workers go on")
def heartbeats_do_not_reconnect(settings: WorkerSettings) -> WorkerParts:
    """The task that gives signs of life does not reconnect: the worker works, and counts as dead for good."""

    async def once(name: str, url: str, work: Callable[[Connection], Awaitable[None]], stop: asyncio.Event) -> None:
        if name != "beat":
            await keep_at(name, url, work, stop)
        with contextlib.suppress(psycopg.OperationalError):
            async with connected(url) as conn:
                await work(conn)
        await stop.wait()

    vars(process)["keep_at"] = once
    return build_worker_parts(settings)


@service(None, "drill/recovery/service-sessions-ended", "sessions were ended")
def lost_connections_stay_lent(settings: Settings) -> Parts:
    """A connection that the database has ended stays lent: in the end the pool is empty."""
    database = _Forgetful(settings)
    return dataclasses.replace(build_parts(settings), database=database, refusals=RefusalLog(database))


class _Forgetful(Database):
    async def _living(self, timeout_s: float) -> Connection:
        while _hung_up(conn := await self._pool.getconn(timeout_s)):
            await conn.close()
        return conn


@service(None, "drill/identity/not-ready-without-database", "503")
def an_outage_is_called_an_error(settings: Settings) -> Parts:
    """A replay without a reachable database is answered with 500, not with 503."""
    vars(surface)["is_outage"] = lambda _error: False
    return build_parts(settings)


def _tidying(settings: Settings, statement: bytes) -> Parts:
    """The service that runs a statement when it has started, before its first request."""
    release = build_parts(settings)

    def wrap(app: App) -> App:
        tidied: list[asyncio.Task[None]] = []

        async def tidy() -> None:
            async with release.database.connection() as conn:
                await conn.execute(statement)

        async def served(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                if not tidied:
                    tidied.append(asyncio.create_task(tidy()))
                await tidied[0]
            await app(scope, receive, send)

        return served

    return dataclasses.replace(release, wrap=wrap)


@service(None, KILLED, "three after a restart")
def a_start_lifts_the_limits(settings: Settings) -> Parts:
    """A service that starts clears the rate limits."""
    return _tidying(settings, b"UPDATE edge_rate_limits SET hits = '{}'")


@service(None, KILLED, "after a restart")
def a_start_forgets_what_was_charged(settings: Settings) -> Parts:
    """A service that starts begins every budget anew."""
    return _tidying(settings, b"UPDATE replay_budgets SET daily_used = 0, monthly_used = 0")


@service(None, KILLED, "sent again after a restart")
def a_start_frees_the_keys(settings: Settings) -> Parts:
    """A service that starts forgets the keys of the requests before."""
    return _tidying(settings, b"UPDATE replay_runs SET idempotency_key = id::text")


@service(None, KILLED, "under way")
def a_start_ends_runs(settings: Settings) -> Parts:
    """A service that starts takes the runs that are under way for those of a crash, and calls them failed."""
    ended = b"SET status = 'failed', completed_at = now() WHERE status = 'started'"
    return _tidying(settings, b"UPDATE replay_runs " + ended)


class _Tidying(ScriptedAgent):
    """An agent whose worker runs a statement when it starts."""

    def __init__(self, url: str, statement: bytes) -> None:
        super().__init__(SqlAgent())
        self._url, self._statement = url, statement

    async def __aenter__(self) -> Self:
        async with connected(self._url) as conn:
            await conn.execute(self._statement)
        return await super().__aenter__()


def _tidying_worker(settings: WorkerSettings, statement: bytes) -> WorkerParts:
    return dataclasses.replace(build_worker_parts(settings), agent=_Tidying(settings.database_url, statement))


@worker(None, EACH_PHASE, "after a start of the workers")
def a_start_tries_the_dead_again(settings: WorkerSettings) -> WorkerParts:
    """A worker that starts tries again what was given up, which its dead letter then sends once more."""
    return _tidying_worker(settings, b"UPDATE event_outbox SET dead_at = NULL, attempts = 0 WHERE dead_at IS NOT NULL")


@worker(None, EACH_PHASE, "after a start of the workers")
def a_start_ends_waits(settings: WorkerSettings) -> WorkerParts:
    """A worker that starts delivers what was put off before it is due."""
    late = b"UPDATE event_outbox SET next_attempt_at = now() WHERE next_attempt_at > now() AND processed_at IS NULL"
    return _tidying_worker(settings, late + b" AND dead_at IS NULL")


@worker(None, IN_A_REPLAY, "under way")
def a_start_resolves_items(settings: WorkerSettings) -> WorkerParts:
    """A worker that starts takes the items that are under way for delivered, and resolves them."""
    return _tidying_worker(settings, b"UPDATE dead_letter_queue SET status = 'resolved' WHERE status = 'replaying'")


@service(None, "drill/outbox/commit-that-fails", "refused its row", production=False)
@around("append_audit")
async def refused_row_forgotten(release: Parts, conn: Connection, row: AuditRow) -> None:
    """A savepoint hides that an audit row was refused: the replay goes on without it."""
    with contextlib.suppress(psycopg.Error):
        async with conn.transaction():
            await release.append_audit(conn, row)


@service(None, "drill/outbox/commit-that-fails", "replay_budgets refused its row", production=False)
@around("charge")
async def refused_charge_forgotten(release: Parts, conn: Connection, company: str, items: int) -> None:
    """A savepoint hides that a charge was refused: the replay is free."""
    with contextlib.suppress(psycopg.Error):
        async with conn.transaction():
            await release.charge(conn, company, items)


@service(None, "drill/outbox/commit-that-fails", "agent_tasks refused its row", production=False)
def refused_effect_forgotten(settings: Settings) -> Parts:
    """A savepoint hides that the effect of an event of the direct path was refused: the event is accepted."""
    apart = altered(settings, "emit_event", ("FROM stored WHERE path = 'direct'", "FROM stored WHERE false"))

    async def emit(conn: Connection, request: EventRequest, event_id: str) -> tuple[str, bool]:
        async with conn.transaction():
            stored = await events.emit(conn, request, event_id)
            if stored == ("direct", False):
                with contextlib.suppress(psycopg.Error):
                    async with conn.transaction():
                        await conn.execute(DIRECT_EFFECT, (event_id,))
            return stored

    return dataclasses.replace(apart, emit=emit)
