"""Faults of speed, errors and memory that only show under load."""

import asyncio
import dataclasses
import random
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from psycopg.pq import PGconn
from starlette.types import Receive

from faults.catalogue import service
from faults.probe import Probe
from faults.requests import App, wrapped
from replay_service.composition import build_parts
from replay_service.database import Connection, Database
from replay_service.exchange import Call, RawHeaders, Reply
from replay_service.gauges import Gauges
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.validation import EventRequest, ReplayRequest, read_replay

REQUESTS_KEEP_NO_CONNECTION = "drill/observability/requests-keep-no-connection"
FAILED = b'{"type": "about:blank", "title": "x", "status": 500, "code": "internal_error"}'

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"


def _before(settings: Settings, act: Callable[[Any], Awaitable[bool]]) -> Parts:
    """The service that does something before it looks at a request, and fails where that says so."""

    def wrap(app: App) -> App:
        async def twin(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or not await act(scope):
                await app(scope, receive, send)
                return
            headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(FAILED))]
            await send({"type": "http.response.start", "status": 500, "headers": headers})
            await send({"type": "http.response.body", "body": FAILED})

        return twin

    return wrapped(settings, wrap)


class _Dying(Gauges):
    _is_dead = False

    async def lines(self, database: Database) -> list[str]:
        found = [] if self._is_dead else await super().lines(database)
        self._is_dead = "replay_database_up 1" not in found
        return found


@service(None, "drill/identity/not-ready-without-database", "outbox_pending")
def gauges_end_with_the_database(settings: Settings) -> Parts:
    """The task that reads the gauges ends with the first error of the database: they are not shown any more."""
    return dataclasses.replace(build_parts(settings), gauges=_Dying())


@service(lambda p: _grown_mb(p, requests=50) > 10, "load/memory_growth_mb/count", ("memory", "mb"))
def memory_leaks(settings: Settings) -> Parts:
    """Every request leaks 400 KB of memory."""
    kept: list[bytes] = []

    async def leak(_scope: Any) -> bool:
        kept.append(b"x" * 400_000)
        return False

    return _before(settings, leak)


def _grown_mb(probe: Probe, *, requests: int) -> float:
    def resident() -> float:
        lines = probe.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("process_resident_memory_bytes"))

    before = resident()
    for _ in range(requests):
        probe.get("/healthz")
    return (resident() - before) / 1e6


@service(
    lambda p: any(p.get("/healthz").status_code == 500 for _ in range(200)),
    "load/http_req_failed/rate",
    ("rate", "fail", "error"),
)
def six_percent_fail(settings: Settings) -> Parts:
    """6 % of all requests fail with 500."""

    async def fails(_scope: Any) -> bool:
        return random.random() < 0.06

    return _before(settings, fails)


@service(
    lambda p: p.get("/healthz").elapsed.total_seconds() > 2.5,
    ("load/http_req_duration/p95", "load/http_req_duration{operation:*}/p95"),
    ("p95", "duration", "ms"),
)
def all_slow(settings: Settings) -> Parts:
    """Every request takes 2.6 s more."""

    async def wait(scope: Any) -> bool:
        # whoever waits for it to be ready would give up
        if not scope["path"].endswith("/readyz"):
            await asyncio.sleep(2.6)
        return False

    return _before(settings, wait)


@service(
    lambda p: any(p.replay("00000000-0000-4000-8000-0000000000ff").elapsed.total_seconds() > 2.5 for _ in range(60)),
    "load/http_req_duration{operation:replay}/p95",
    ("p95", "p99", "duration", "replay"),
)
def replays_slow_in_the_tail(settings: Settings) -> Parts:
    """Replays, and only they, take 3 s longer in 15 % of the calls."""

    async def wait(scope: Any) -> bool:
        if scope["path"].endswith("/dlq-replay") and random.random() < 0.15:
            await asyncio.sleep(3)
        return False

    return _before(settings, wait)


@service(
    lambda p: _left(p, partial(p.replay, max=0), requests=5) == 5, REQUESTS_KEEP_NO_CONNECTION, "an invalid replay"
)
def invalid_replays_keep_a_connection(settings: Settings) -> Parts:
    """Every invalid replay leaks a database connection outside the pool."""
    kept: list[Any] = []

    def read(raw: bytes) -> ReplayRequest:
        try:
            return read_replay(raw)
        except Refusal:
            kept.append(PGconn.connect(settings.database_url.encode()))
            raise

    return dataclasses.replace(build_parts(settings), read_replay=read)


@service(lambda p: _left(p, p.replay, first=p.pause) > 9, REQUESTS_KEEP_NO_CONNECTION, "a paused tenant")
def paused_replays_keep_a_connection(settings: Settings) -> Parts:
    """Every replay of a paused tenant leaks a database connection outside the pool."""
    kept: list[Any] = []
    sound = build_parts(settings)

    async def is_paused(conn: Connection, company_id: str) -> bool:
        paused = await sound.is_paused(conn, company_id)
        if paused:
            kept.append(PGconn.connect(settings.database_url.encode()))
        return paused

    return dataclasses.replace(sound, is_paused=is_paused)


@service(
    lambda p: _left(p, partial(p.event, event_id=str(uuid.uuid4()))) > 9, REQUESTS_KEEP_NO_CONNECTION, "sent again"
)
def events_sent_again_keep_a_connection(settings: Settings) -> Parts:
    """Every event that is sent again leaks a database connection outside the pool."""
    kept: list[Any] = []
    sound = build_parts(settings)

    async def emit(conn: Connection, request: EventRequest, event_id: str) -> tuple[str, bool]:
        path, is_duplicate = await sound.emit(conn, request, event_id)
        if is_duplicate:
            kept.append(PGconn.connect(settings.database_url.encode()))
        return path, is_duplicate

    return dataclasses.replace(sound, emit=emit)


@service(lambda p: _left(p, partial(p.replay, dry_run=True)) > 9, REQUESTS_KEEP_NO_CONNECTION, "a dry run")
def dry_runs_keep_a_connection(settings: Settings) -> Parts:
    """Every dry run leaks a database connection outside the pool."""
    kept: list[Any] = []
    sound = build_parts(settings)

    async def preview_budget(conn: Connection, company_id: str) -> int:
        kept.append(PGconn.connect(settings.database_url.encode()))
        return await sound.preview_budget(conn, company_id)

    return dataclasses.replace(sound, preview_budget=preview_budget)


@service(lambda p: _left(p, partial(_looks, p)) > 9, REQUESTS_KEEP_NO_CONNECTION, "GET /dlq-replay")
def reads_keep_a_connection(settings: Settings) -> Parts:
    """Every look at a run that is there leaks a database connection outside the pool."""
    kept: list[Any] = []
    sound = build_parts(settings)

    async def read_run(parts: Parts, call: Call, signed_path: bytes, run_id: str) -> Reply:
        reply = await sound.read_run(parts, call, signed_path, run_id)
        kept.append(PGconn.connect(settings.database_url.encode()))
        return reply

    return dataclasses.replace(sound, read_run=read_run)


def _looks(probe: Probe, company: str) -> None:
    probe.read(f"/dlq-replay/{probe.replay(company).json()['replay_run_id']}")


@service(lambda p: _left(p, lambda _company: p.send(b" " * 65_537)) > 9, REQUESTS_KEEP_NO_CONNECTION, "too large")
def large_bodies_keep_a_connection(settings: Settings) -> Parts:
    """Every request whose body is refused unread leaks a database connection outside the pool."""
    kept: list[Any] = []
    sound = build_parts(settings)

    async def read_body(headers: RawHeaders, receive: Receive, timeout_s: float) -> bytes:
        try:
            return await sound.read_body(headers, receive, timeout_s)
        except Refusal:
            kept.append(PGconn.connect(settings.database_url.encode()))
            raise

    return dataclasses.replace(sound, read_body=read_body)


def _left(probe: Probe, ask: Callable[[str], object], requests: int = 12, first: Callable[[str], object] = str) -> int:
    """How many sessions this many requests of a tenant, none of them rate limited, leave behind."""
    with probe.tenant() as company:
        first(company)
        before = probe.value(SESSIONS)
        for _ in range(requests):
            probe.rows("DELETE FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}:%")
            ask(company)
        return int(probe.value(SESSIONS) - before)
