"""Faults of where the rate limit is kept and of what its refusal says."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg

from faults.catalogue import service
from faults.probe import Probe
from faults.requests import App, requesting, wrapped
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Call, Reply
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.rate_limit import ALLOWED, WINDOW_S, admit
from replay_service.settings import Settings
from replay_service.validation import ReplayRequest, read_replay

LIMIT = "drill/rate-limit"


def _fourth(probe: Probe, header: str = "retry-after") -> str:
    """A header of the fourth answer."""
    with probe.tenant() as company:
        answers = [probe.replay(company, dry_run=True) for _ in range(4)]
        return str(answers[3].headers.get(header, ""))


@service(
    "The limit is kept in the memory of the process: every instance and every restart has its own.",
    lambda p: _rows_after_one(p) == 0,
    (f"{LIMIT}/row-as-documented", f"{LIMIT}/row-is-the-limit", f"{LIMIT}/deleting-the-row-resets"),
    names=("row", "edge_rate_limits"),
)
def kept_in_memory(settings: Settings) -> Parts:
    hits: dict[str, list[float]] = defaultdict(list)

    async def twin(_conn: Connection, company_id: str, client: str) -> None:
        now = time.monotonic()
        kept = hits[f"{company_id}:{client}"] = [at for at in hits[f"{company_id}:{client}"] if at > now - WINDOW_S]
        if len(kept) >= ALLOWED:
            raise Refusal("rate_limited", "Too many.", headers={"retry-after": str(int(kept[0] + WINDOW_S - now) or 1)})
        kept.append(now)

    return dataclasses.replace(build_parts(settings), admit=twin)


def _rows_after_one(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, dry_run=True)
        return int(probe.value("SELECT count(*) FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}:%"))


@service(
    "The limit is read, then written: requests at the same moment are all admitted.",
    lambda p: _admitted_at_once(p) > ALLOWED,
    (f"{LIMIT}/concurrent-exactly-three",),
    names=("3", "admitted"),
)
def read_then_written(settings: Settings) -> Parts:
    async def twin(conn: Connection, company_id: str, client: str) -> None:
        key = f"replay:{company_id}:{client}"
        live = b"SELECT h FROM unnest(hits) h WHERE h >= clock_timestamp() - interval '300 s'"
        found = await conn.execute(
            b"SELECT cardinality(ARRAY(" + live + b")) FROM edge_rate_limits WHERE key = %s", (key,)
        )
        row = await found.fetchone()
        if row is not None and row[0] >= ALLOWED:
            await admit(conn, company_id, client)
            return
        await asyncio.sleep(0.3)
        add = b"""INSERT INTO edge_rate_limits (key, hits) VALUES (%s, ARRAY[clock_timestamp()])
            ON CONFLICT (key) DO UPDATE SET hits = edge_rate_limits.hits || clock_timestamp()"""
        await conn.execute(add, (key,))

    return dataclasses.replace(build_parts(settings), admit=twin)


def _admitted_at_once(probe: Probe) -> int:
    with probe.tenant() as company, ThreadPoolExecutor(max_workers=12) as pool:
        calls = [pool.submit(probe.replay, company, dry_run=True) for _ in range(12)]
        return sum(call.result().status_code == 200 for call in calls)


@service(
    "Where the store of the limit fails, requests are admitted.",
    lambda p: _without_store(p) == 200,
    ("drill/rate-limit/uncounted-is-not-admitted", "drill/rate-limit/missing-store-fails-closed"),
    names=("locked", "gone", "429"),
    production=False,
)
def fails_open(settings: Settings) -> Parts:
    async def twin(conn: Connection, company_id: str, client: str) -> None:
        try:
            await admit(conn, company_id, client)
        except Refusal as refusal:
            if refusal.code != "unavailable":
                raise

    return dataclasses.replace(build_parts(settings), admit=twin)


def _without_store(probe: Probe) -> int:
    with probe.tenant() as company, psycopg.connect(probe.environ["DATABASE_URL"]) as other:
        other.execute("LOCK TABLE edge_rate_limits IN ACCESS EXCLUSIVE MODE")
        return probe.replay(company, dry_run=True).status_code


def _saying(settings: Settings, change: Callable[[str], str | None]) -> Parts:
    """The service whose refusal by the limit has another Retry-After, or none."""

    async def twin(conn: Connection, company_id: str, client: str) -> None:
        try:
            await admit(conn, company_id, client)
        except Refusal as refusal:
            said = change(refusal.headers.pop("retry-after", ""))
            if said is not None:
                refusal.headers["retry-after"] = said
            raise

    return dataclasses.replace(build_parts(settings), admit=twin)


@service(
    "A 429 has no Retry-After.",
    lambda p: not _fourth(p),
    (f"{LIMIT}/retry-after",),
    names=("Retry-After",),
    decision="hold",
)
def no_retry_after(settings: Settings) -> Parts:
    return _saying(settings, lambda _said: None)


@service(
    "Retry-After is in milliseconds.",
    lambda p: int(_fourth(p)) > WINDOW_S,
    (f"{LIMIT}/retry-after",),
    names=("Retry-After",),
    decision="hold",
)
def retry_after_in_milliseconds(settings: Settings) -> Parts:
    return _saying(settings, lambda said: said and f"{said}000")


@service(
    "Retry-After is a date.",
    lambda p: "GMT" in _fourth(p),
    (f"{LIMIT}/retry-after",),
    names=("Retry-After",),
    decision="hold",
)
def retry_after_is_a_date(settings: Settings) -> Parts:
    return _saying(settings, lambda said: said and "Wed, 21 Oct 2099 07:28:00 GMT")


@service(
    "Retry-After says one second, whatever the wait: clients come back in a loop.",
    lambda p: _fourth(p) == "1",
    (f"{LIMIT}/retry-after-is-true",),
    names=("Retry-After",),
    decision="hold",
)
def retry_after_too_early(settings: Settings) -> Parts:
    return _saying(settings, lambda said: said and "1")


@service(
    "Retry-After says 300 s, whatever is left.",
    lambda p: _aged_retry_after(p) == 300,
    (f"{LIMIT}/retry-after-is-true", f"{LIMIT}/retry-after"),
    names=("Retry-After",),
    decision="hold",
)
def retry_after_constant(settings: Settings) -> Parts:
    return _saying(settings, lambda said: said and "300")


def _aged_retry_after(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, dry_run=True)
        aged = "ARRAY(SELECT now() - make_interval(secs => 200 - n) FROM generate_series(1, 3) n)"
        probe.rows(f"UPDATE edge_rate_limits SET hits = {aged} WHERE key LIKE %s", f"replay:{company}:%")
        return int(probe.replay(company, dry_run=True).headers.get("retry-after", "0"))


@service(
    "The company id of the key keeps the case in which it was sent: every spelling has a limit of its own.",
    lambda p: _spelt(p) == 200,
    (f"{LIMIT}/spelling-of-the-company",),
    names=("spelling", "case", "429"),
)
def spelling_kept(settings: Settings) -> Parts:
    spelt: dict[str, str] = {}

    def read(raw: bytes) -> ReplayRequest:
        request = read_replay(raw)
        spelt[request.company_id] = str(json.loads(raw)["company_id"])
        return request

    async def twin(conn: Connection, company_id: str, client: str) -> None:
        await admit(conn, spelt.get(company_id, company_id), client)

    return dataclasses.replace(build_parts(settings), read_replay=read, admit=twin)


def _spelt(probe: Probe) -> int:
    with probe.tenant() as company:
        for _ in range(3):
            probe.replay(company, dry_run=True)
        status = probe.replay(company.upper(), dry_run=True).status_code
        probe.rows("DELETE FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company.upper()}:%")
        return status


@service(
    "Events are limited, too: a tenant cannot send more than three in five minutes.",
    lambda p: _fifth_event(p) == 429,
    (f"{LIMIT}/events-not-limited",),
    names=("event",),
)
def events_limited(settings: Settings) -> Parts:
    release = build_parts(settings)

    async def accept(parts: Parts, call: Call) -> Reply:
        try:
            company = str(json.loads(call.body)["company_id"]).lower()
        except (ValueError, KeyError, TypeError, RecursionError):
            return await release.accept_event(parts, call)
        async with parts.database.connection() as conn:
            await admit(conn, company, call.client)
        return await release.accept_event(parts, call)

    return dataclasses.replace(release, accept_event=accept)


def _fifth_event(probe: Probe) -> int:
    with probe.tenant() as company:
        return [probe.event(company).status_code for _ in range(5)][4]


@service(
    "Reads of a run are limited, too.",
    lambda p: _fifth_read(p) == 429,
    (f"{LIMIT}/reads-not-limited",),
    names=("read",),
    decision="hold",
)
def reads_limited(settings: Settings) -> Parts:
    seen: dict[str, int] = defaultdict(int)

    def wrap(app: App) -> App:
        async def twin(scope: object, receive: object, send: object) -> None:
            path = scope["path"] if isinstance(scope, dict) and scope.get("method") == "GET" else ""
            seen[path] += 1
            if "/dlq-replay/" in path and seen[path] > ALLOWED:
                await _refuse(send)
                return
            await app(scope, receive, send)

        return twin

    return wrapped(settings, wrap)


async def _refuse(send: object) -> None:
    if callable(send):
        headers = [(b"content-type", b"application/problem+json"), (b"retry-after", b"300")]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"code": "rate_limited", "status": 429}'})


def _fifth_read(probe: Probe) -> int:
    with probe.tenant() as company:
        run = probe.replay(company).json()["replay_run_id"]
        path = f"/dlq-replay/{run}"
        signed = {"X-Transbot-Signature": probe.sign_v2(path.encode(), int(time.time()))}
        return [probe.get(path, **signed).status_code for _ in range(5)][4]


@service(
    "The limit of signed requests and of tokens is kept apart: with both a caller has six.",
    lambda p: _with_token_after_three(p) == 200,
    (f"{LIMIT}/credentials-share",),
    names=("credential", "token", "429"),
)
def per_credential(settings: Settings) -> Parts:
    release = requesting(settings, lambda request: request)

    async def twin(parts: Parts, call: Call) -> Reply:
        has_token = any(name == b"authorization" for name, _ in call.headers)
        return await release.replay(parts, dataclasses.replace(call, client="127.9.9.9") if has_token else call)

    return dataclasses.replace(release, replay=twin)


def _with_token_after_three(probe: Probe) -> int:
    with probe.tenant() as company:
        for _ in range(3):
            probe.replay(company, dry_run=True)
        body = json.dumps({"company_id": company, "dry_run": True}).encode()
        return probe.send(body, probe.as_token(probe.environ["ADMIN_JWT"])).status_code
