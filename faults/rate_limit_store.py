"""Faults of where the rate limit is kept and of what its refusal says."""

import asyncio
import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from faults.altered import altered, around, instead_of
from faults.catalogue import service
from faults.probe import Probe
from replay_service.audit import RefusalLog
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Call, Reply
from replay_service.idempotency import Run
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.rate_limit import ALLOWED, admit
from replay_service.settings import Settings
from replay_service.validation import ReplayRequest

LIMIT = "drill/rate-limit"
_HITS = "SELECT sum(cardinality(hits)) FROM edge_rate_limits WHERE starts_with(key, 'replay:' || %s)"


@service(lambda p: _admitted_at_once(p) > ALLOWED, f"{LIMIT}/concurrent-exactly-three", ("3", "admitted"))
@instead_of("admit")
async def read_then_written(conn: Connection, company_id: str, client: str) -> None:
    """The limit is read, then written: requests at the same moment are all admitted."""
    key = f"replay:{company_id}:{client}"
    live = b"SELECT h FROM unnest(hits) h WHERE h >= clock_timestamp() - interval '300 s'"
    found = await conn.execute(b"SELECT cardinality(ARRAY(" + live + b")) FROM edge_rate_limits WHERE key = %s", (key,))
    row = await found.fetchone()
    if row is not None and row[0] >= ALLOWED:
        await admit(conn, company_id, client)
        return
    await asyncio.sleep(0.3)
    add = b"""INSERT INTO edge_rate_limits (key, hits) VALUES (%s, ARRAY[clock_timestamp()])
            ON CONFLICT (key) DO UPDATE SET hits = edge_rate_limits.hits || clock_timestamp()"""
    await conn.execute(add, (key,))


def _admitted_at_once(probe: Probe) -> int:
    with probe.tenant() as company, ThreadPoolExecutor(max_workers=12) as pool:
        calls = [pool.submit(probe.replay, company, dry_run=True) for _ in range(12)]
        return sum(call.result().status_code == 200 for call in calls)


@service(
    lambda p: _without_store(p) == 200,
    ("drill/rate-limit/uncounted-is-not-admitted", "drill/rate-limit/missing-store-fails-closed"),
    ("locked", "gone", "429"),
    production=False,
)
@instead_of("admit")
async def fails_open(conn: Connection, company_id: str, client: str) -> None:
    """If the rate-limit store fails, requests are admitted."""
    try:
        await admit(conn, company_id, client)
    except Refusal as refusal:
        if refusal.code != "unavailable":
            raise


def _without_store(probe: Probe) -> int:
    with probe.tenant() as company, psycopg.connect(probe.environ["DATABASE_URL"]) as other:
        other.execute("LOCK TABLE edge_rate_limits IN ACCESS EXCLUSIVE MODE")
        return probe.replay(company, dry_run=True).status_code


@service(lambda p: _forgets_within_seconds(p), f"{LIMIT}/refusal-changes-nothing", "no row")
def young_rows_are_cleaned_up(settings: Settings) -> Parts:
    """A cleanup job deletes full rate-limit rows every second, even current ones."""
    # not within a second of the last call: else the refusals of the drill may find no row, which names another cause
    young = b"hits[3] BETWEEN now() - interval '1 minute' AND now() - interval '1 second'"
    return _cleaning(settings, b"count = 3 AND " + young)


@service(lambda p: _forgets_within_seconds(p, "2 minutes"), f"{LIMIT}/refusal-changes-nothing", "no row")
def rows_are_cleaned_up_by_their_first_call(settings: Settings) -> Parts:
    """A cleanup job deletes full rate-limit rows by their first call, even if later calls still count."""
    old = b"window_start < now() - interval '1 minute' AND hits[3] < now() - interval '1 second'"
    return _cleaning(settings, b"count = 3 AND " + old)


def _cleaning(settings: Settings, which: bytes) -> Parts:
    release = build_parts(settings)

    class Cleaning(RefusalLog):
        async def flush(self) -> None:
            await super().flush()
            async with release.database.connection() as conn:
                await conn.execute(b"DELETE FROM edge_rate_limits WHERE " + which)

    return dataclasses.replace(release, refusals=Cleaning(release.database))


def _forgets_within_seconds(probe: Probe, age: str = "0") -> bool:
    with probe.tenant() as company:
        for _ in range(3):
            probe.replay(company, dry_run=True)
        older = "UPDATE edge_rate_limits SET hits[1] = hits[1] - %s::interval WHERE starts_with(key, 'replay:' || %s)"
        probe.rows(older, age, company)
        left = "SELECT count(*) FROM edge_rate_limits WHERE starts_with(key, 'replay:' || %s)"
        return probe.within(3, lambda: not probe.value(left, company))


@service(lambda p: _is_whole(p), f"{LIMIT}/row-as-documented", "a hit is of")
def hits_are_whole_seconds(settings: Settings) -> Parts:
    """Calls are recorded in whole seconds: the window is up to a second too short."""
    now, whole = "SELECT clock_timestamp()\n", "SELECT date_trunc('second', clock_timestamp())\n"
    first = ("ARRAY[clock_timestamp()]", "ARRAY[date_trunc('second', clock_timestamp())]")
    return altered(settings, "admit_request", first, (now, whole))


def _is_whole(probe: Probe) -> bool:
    asked = (
        "SELECT hits[1] = date_trunc('second', hits[1]) FROM edge_rate_limits WHERE starts_with(key, 'replay:' || %s)"
    )
    with probe.tenant() as company:
        probe.replay(company, dry_run=True)
        return bool(probe.value(asked, company))


@service(lambda p: _counts_in_progress(p) == 0, "drill/idempotency/in-progress", "count")
@around("begin_run")
async def calls_in_progress_are_free(release: Parts, conn: Connection, request: ReplayRequest, started: Run) -> Any:
    """A call that is refused as in progress does not count: a client may ask for a running key without limit."""
    return await _free_of_charge("in_progress", release, conn, request, started)


@service(lambda p: _counts_of_a_used_key(p) == 1, f"{LIMIT}/exhausted-budget-counts", "its key")
@around("begin_run")
async def calls_of_a_used_key_are_free(release: Parts, conn: Connection, request: ReplayRequest, started: Run) -> Any:
    """A call that is refused for its key does not count: whoever tries keys may do so without limit."""
    return await _free_of_charge("idempotency_key_reused", release, conn, request, started)


async def _free_of_charge(code: str, release: Parts, conn: Connection, request: ReplayRequest, started: Run) -> Any:
    """Step 7, where a refusal with this code takes a hit back."""
    try:
        return await release.begin_run(conn, request, started)
    except Refusal as refusal:
        if refusal.code == code:
            forget = b"UPDATE edge_rate_limits SET hits = hits[2:] WHERE starts_with(key, 'replay:' || %s)"
            async with release.database.connection() as other:
                await other.execute(forget, (request.company_id,))
        raise


def _counts_in_progress(probe: Probe) -> int:
    with probe.tenant() as company, psycopg.connect(probe.environ["DATABASE_URL"]) as other:
        other.execute("INSERT INTO replay_runs (idempotency_key, company_id) VALUES ('w', %s)", (company,))
        probe.replay(company, idempotency_key="w")
        return int(probe.value(_HITS, company))


def _counts_of_a_used_key(probe: Probe) -> int:
    with probe.tenant() as company:
        for wanted in (1, 2):
            probe.replay(company, idempotency_key="w", max_items=wanted)
        return int(probe.value(_HITS, company))


_SPENT = b"SELECT FROM public.replay_budgets WHERE company_id = %s::uuid AND monthly_used >= monthly_limit"


@service(lambda p: _hits_of_a_spent_month(p) == 0, "drill/ledger/counted-however-asked", "counted 0 times")
@around("admit")
async def calls_of_a_spent_month_are_free(release: Parts, conn: Connection, company_id: str, client: str) -> None:
    """Calls of a tenant whose month is spent are not counted: it may ask without end."""
    if await (await conn.execute(_SPENT, (company_id,))).fetchone() is None:
        await release.admit(conn, company_id, client)


def _hits_of_a_spent_month(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.rows("INSERT INTO replay_budgets (company_id, monthly_limit) VALUES (%s, 0)", company)
        probe.replay(company)
        counted = "SELECT coalesce(sum(cardinality(hits)), 0) FROM edge_rate_limits WHERE starts_with(key, %s)"
        return int(probe.value(counted, f"replay:{company}:"))


@service(lambda p: _counts_of_what_is_too_large(p) > 0, f"{LIMIT}/invalid-do-not-count", ("invalid", "call"))
@around("replay")
async def large_batches_count(release: Parts, parts: Parts, call: Call) -> Reply:
    """Whoever asks for more than a batch uses up the limit."""
    try:
        return await release.replay(parts, call)
    except Refusal as refusal:
        if refusal.code == "batch_too_large":
            async with parts.database.connection() as conn:
                await parts.admit(conn, json.loads(call.body)["company_id"], call.client)
        raise


def _counts_of_what_is_too_large(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, max_items=51)
        return int(probe.value(_HITS, company) or 0)
