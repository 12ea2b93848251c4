"""Faults of how a key is kept: when, in which transaction, for whom it waits, and what it outlives."""

import dataclasses
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from faults.altered import altered, around, instead_of
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import REQUEST, is_dry, remembering
from replay_service.audit import AuditRow
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Call, Reply
from replay_service.idempotency import Run, begin
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.replay import replay
from replay_service.settings import Settings
from replay_service.validation import ReplayRequest

KEYS = "drill/idempotency"
_RUNS = "SELECT count(*) FROM replay_runs WHERE company_id = %s"


@asynccontextmanager
async def _committing_refusals(conn: Connection, *, keep: bool = True) -> AsyncIterator[None]:
    """A transaction that commits even if a step refuses the request."""
    refused: Refusal | None = None
    async with conn.transaction():
        try:
            yield
        except Refusal as refusal:
            refused = refusal
        if not keep:
            raise psycopg.Rollback
    if refused is not None:
        raise refused


@service(
    lambda p: _keys_after_a_pause(p) == 1,
    (f"{KEYS}/refusal-by-pause-not-stored", f"{KEYS}/refusal-by-budget-not-stored", "drill/pause/burns-no-key"),
    ("key", "refus", "stored"),
)
def refusals_stored(settings: Settings) -> Parts:
    """A refusal is stored under its key: after the pause the retry is a duplicate and does nothing."""
    return dataclasses.replace(build_parts(settings), transaction=_committing_refusals)


def _keys_after_a_pause(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.pause(company)
        probe.replay(company, idempotency_key="w")
        return int(probe.value(_RUNS, company))


@service(lambda p: _runs_after_dry(p) == 1, f"{KEYS}/dry-run-stores-no-key", ("dry", "key", "run"))
def dry_run_stores_key(settings: Settings) -> Parts:
    """A dry run stores its key: the real run after it is a duplicate that does nothing."""
    release = remembering(settings)
    add = b"""INSERT INTO replay_runs (idempotency_key, company_id, payload_hash, status)
        VALUES (%s, %s, %s, 'completed') ON CONFLICT DO NOTHING"""

    async def append(conn: Connection, row: AuditRow) -> None:
        await release.append_audit(conn, row)
        request = REQUEST.get()
        if request is not None and request.dry_run and request.idempotency_key:
            real = dataclasses.replace(request, dry_run=False)
            await conn.execute(add, (request.idempotency_key, request.company_id, real.payload_hash))

    return dataclasses.replace(release, append_audit=append)


def _runs_after_dry(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, idempotency_key="w", dry_run=True)
        return int(probe.value(_RUNS, company))


@service(lambda p: _dry_after_real(p) == 422, f"{KEYS}/dry-run-looks-up-no-key", ("dry", "key"))
@around("is_paused", of=remembering)
async def dry_run_looks_up_key(release: Parts, conn: Connection, company_id: str) -> bool:
    """A dry run looks its key up and is refused where another request used it."""
    request = REQUEST.get()
    if is_dry() and request is not None and request.idempotency_key:
        find = b"SELECT 1 FROM replay_runs WHERE company_id = %s AND idempotency_key = %s"
        if await (await conn.execute(find, (company_id, request.idempotency_key))).fetchone():
            raise Refusal("idempotency_key_reused", "This key was used.")
    return await release.is_paused(conn, company_id)


def _dry_after_real(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, idempotency_key="w")
        return probe.replay(company, idempotency_key="w", dry_run=True).status_code


@service(
    lambda p: _audited_after_duplicate(p) > 0,
    (f"{KEYS}/duplicate-not-audited", "drill/audit/duplicate-leaves-no-row"),
    ("audit", "duplicate"),
)
@instead_of("replay")
async def duplicates_audited(parts: Parts, call: Call) -> Reply:
    """A duplicate is audited as if it had replayed."""
    reply = await replay(parts, call)
    if reply.outcome == "duplicate":
        row = AuditRow("dlq_replay_started", "signature", str(reply.body["company_id"]), call.request_id)
        async with parts.database.connection() as conn, parts.transaction(conn):
            await parts.append_audit(conn, row)
    return reply


def _audited_after_duplicate(probe: Probe) -> int:
    text = "SELECT count(*) FROM audit_logs WHERE scope = %s AND action = 'dlq_replay_started'"
    with probe.tenant() as company:
        probe.replay(company, idempotency_key="w")
        before = probe.value(text, company)
        probe.replay(company, idempotency_key="w")
        return int(probe.value(text, company) - before)


@service(lambda p: _status_after_late_retry(p) == "started", f"{KEYS}/late-retry-keeps-the-run", ("started", "run"))
def late_retry_restarts(settings: Settings) -> Parts:
    """A late retry sets the ended run back to `started` (ON CONFLICT DO UPDATE)."""
    back = b"""UPDATE replay_runs SET status = 'started', completed_at = NULL
        WHERE idempotency_key = %s AND company_id = %s"""

    async def twin(conn: Connection, request: ReplayRequest, started: Run) -> Mapping[str, Any] | None:
        stored = await begin(conn, request, started)
        if stored is not None:
            await conn.execute(back, (started.key, request.company_id))
        return stored

    return dataclasses.replace(build_parts(settings), begin_run=twin)


def _status_after_late_retry(probe: Probe) -> str:
    with probe.tenant() as company:
        run = probe.replay(company, idempotency_key="w").json()["replay_run_id"]
        probe.settled(run)
        probe.replay(company, idempotency_key="w")
        return str(probe.value("SELECT status FROM replay_runs WHERE id = %s", run))


@service(lambda p: _status_of_a_twin(p) != 200, f"{KEYS}/each-tenant-has-its-own-answer", "once more")
def looked_up_by_key_alone(settings: Settings) -> Parts:
    """A run is looked up by its key alone: of two tenants with one key, one is compared with the other's."""
    return altered(
        settings, "find_run", (" AND company_id = %(company_id)s::uuid", " AND %(company_id)s::uuid IS NOT NULL")
    )


@service(lambda p: _answers_of_a_pattern(p) == 1, f"{KEYS}/keys-differ-in-escapes", "another key")
def looked_up_by_a_pattern(settings: Settings) -> Parts:
    """Keys are looked up with LIKE: a key with `_` is answered with the run of another key."""
    return altered(settings, "find_run", ("idempotency_key = %(", "idempotency_key LIKE %("))


def _answers_of_a_pattern(probe: Probe) -> int:
    """How many runs the answers to a key, and to another that matches it, asked for twice, speak of."""
    with probe.tenant() as company:
        answers = [probe.replay(company, idempotency_key=key).json() for key in ("wx", "w_", "w_")]
        return len({answers[n].get("replay_run_id") for n in (0, 2)})


def _status_of_a_twin(probe: Probe) -> int:
    """The worst status of re-sends by two tenants that have used one key."""
    with probe.tenant() as one, probe.tenant() as other:
        for company in (one, other):
            probe.replay(company, idempotency_key="twin")
        return max(probe.replay(company, idempotency_key="twin").status_code for company in (one, other))


@service(lambda p: _status_beside_a_stranger(p) == 409, f"{KEYS}/in-progress", "another tenant")
def lock_shared_by_tenants(settings: Settings) -> Parts:
    """The lock of a key is shared by all tenants: one's replay refuses another's of the same key."""
    return altered(settings, "take_key", ("uuid_hash_extended(%(company_id)s::uuid, 1)", "1"))


def _status_beside_a_stranger(probe: Probe) -> int:
    """What a replay is answered while another session holds the lock of its key, which no tenant shares."""
    with probe.tenant() as company, psycopg.connect(probe.environ["DATABASE_URL"]) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(hashtextextended('witness', 1))")
        return probe.replay(company, idempotency_key="witness").status_code


@service(lambda p: _status_beside_a_like_key(p) == 409, f"{KEYS}/in-progress", "another key")
def lock_shared_by_like_keys(settings: Settings) -> Parts:
    """Keys that begin alike have one lock: one replay refuses another."""
    return altered(
        settings, "take_key", ("hashtextextended(%(idempotency_key)s", "hashtextextended(left(%(idempotency_key)s, 8)")
    )


def _status_beside_a_like_key(probe: Probe) -> int:
    with probe.tenant() as company, psycopg.connect(probe.environ["DATABASE_URL"]) as holder:
        held = "SELECT pg_advisory_xact_lock(hashtextextended('witness-', uuid_hash_extended(%s::uuid, 1)))"
        holder.execute(held.encode(), (company,))
        return probe.replay(company, idempotency_key="witness-1").status_code


@service(lambda p: _told_while_paused(p) == 409, f"{KEYS}/duplicate-while-refused", "409")
@around("begin_run")
async def pause_hides_reuse(release: Parts, conn: Connection, request: ReplayRequest, started: Run) -> Any:
    """A used key with another payload is refused for the pause, not for the key."""
    try:
        return await release.begin_run(conn, request, started)
    except Refusal:
        if await release.is_paused(conn, request.company_id):
            raise Refusal("agents_paused", "The agents of this company are paused.") from None
        raise


def _told_while_paused(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, idempotency_key="w", max_items=1)
        probe.pause(company)
        return probe.replay(company, idempotency_key="w", max_items=2).status_code


@service(lambda p: _seconds_behind_a_lock(p) > 2, f"{KEYS}/in-progress", ("in_progress", "409"))
def waits_for_the_key(settings: Settings) -> Parts:
    """A request whose key is running elsewhere waits for it instead of being refused at once."""
    return altered(
        settings,
        "take_key",
        ("pg_try_advisory_xact_lock(hashtextextended", "(SELECT true FROM pg_advisory_xact_lock(hashtextextended"),
        ("1))) AS free", "1)))) AS free"),
        ("'200ms'", "'9s'"),
    )


def _seconds_behind_a_lock(probe: Probe) -> float:
    with probe.tenant() as company, psycopg.connect(probe.environ["DATABASE_URL"]) as other:
        other.execute("INSERT INTO replay_runs (idempotency_key, company_id) VALUES ('w', %s)", (company,))
        started = time.monotonic()
        probe.replay(company, idempotency_key="w")
        return time.monotonic() - started


@service(
    lambda p: _txids_of_a_run(p) > 1,
    (
        f"{KEYS}/crash-leaves-no-key",
        "drill/audit/start-and-effect-together",
        "drill/dlq/run-and-items-together",
        "drill/recovery/replay-session-ended",
        "drill/recovery/service-killed-in-a-replay",
    ),
    ("key", "transaction", "txid"),
)
@around("begin_run")
async def key_commits_first(
    release: Parts, conn: Connection, request: ReplayRequest, started: Run
) -> Mapping[str, Any] | None:
    """The key commits before the effect: a crash between them leaves a key without one."""
    async with release.database.connection() as other:
        stored = await begin(other, request, started)
    await conn.execute(b"SELECT 1")
    return stored


def _txids_of_a_run(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.letters(company, 1)
        probe.replay(company)
        both = """SELECT count(DISTINCT t) FROM (SELECT txid AS t FROM replay_runs WHERE company_id = %s
            UNION ALL SELECT txid FROM audit_logs WHERE scope = %s AND action = 'dlq_replay_started') AS found"""
        return int(probe.value(both, company, company))


@service(lambda p: _status_of_reuse(p) == 409, f"{KEYS}/other-payload-refused", "422")
@instead_of("begin_run")
async def reuse_is_in_progress(conn: Connection, request: ReplayRequest, started: Run) -> Mapping[str, Any] | None:
    """A reused key is answered with 409 instead of 422."""
    try:
        return await begin(conn, request, started)
    except Refusal as refusal:
        raise Refusal("in_progress", refusal.detail) from None


def _status_of_reuse(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, idempotency_key="w")
        return probe.replay(company, idempotency_key="w", max_items=3).status_code


@service(None, "drill/lifecycle/runs-do-not-wait-for-each-other", "next run")
@instead_of("begin_run")
async def one_run_of_a_tenant(conn: Connection, request: ReplayRequest, started: Run) -> Mapping[str, Any] | None:
    """A tenant whose run is not at its end is told that its next one is in progress."""
    stored = await begin(conn, request, started)
    others = b"SELECT FROM replay_runs WHERE company_id = %s AND id <> %s AND status = 'started'"
    if (
        stored is None
        and await (await conn.execute(others, (request.company_id, started.run_id))).fetchone() is not None
    ):
        raise Refusal("in_progress", "Another run of this company is in progress.")
    return stored


@service(lambda p: _runs_of_an_old_key(p), "drill/idempotency/old-key-is-known", "another run")
def key_expires(settings: Settings) -> Parts:
    """A key is forgotten after a month: what is re-sent later replays again."""
    forget = b"""UPDATE replay_runs SET idempotency_key = idempotency_key || '-' || id
        WHERE idempotency_key = %s AND company_id = %s AND requested_at < now() - interval '1 month'"""

    async def twin(conn: Connection, request: ReplayRequest, started: Run) -> Mapping[str, Any] | None:
        await conn.execute(forget, (started.key, request.company_id))
        return await begin(conn, request, started)

    return dataclasses.replace(build_parts(settings), begin_run=twin)


def _runs_of_an_old_key(probe: Probe) -> bool:
    with probe.tenant() as company:
        first = probe.replay(company, idempotency_key="w").json()["replay_run_id"]
        probe.rows("UPDATE replay_runs SET requested_at = now() - interval '35 d' WHERE id = %s", first)
        return bool(probe.replay(company, idempotency_key="w").json()["replay_run_id"] != first)


@service(lambda p: _runs_of_a_stored_key(p), f"{KEYS}/stored-key-is-known", "another")
def key_in_memory(settings: Settings) -> Parts:
    """Each process remembers the keys that it took: another one, or the same after a restart, runs a request again."""
    forget = b"""UPDATE replay_runs SET idempotency_key = idempotency_key || '-' || id
        WHERE idempotency_key = %s AND company_id = %s"""
    taken: set[tuple[str, str]] = set()

    async def twin(conn: Connection, request: ReplayRequest, started: Run) -> Mapping[str, Any] | None:
        if (started.key, request.company_id) not in taken:
            await conn.execute(forget, (started.key, request.company_id))
            taken.add((started.key, request.company_id))
        return await begin(conn, request, started)

    return dataclasses.replace(build_parts(settings), begin_run=twin)


def _runs_of_a_stored_key(probe: Probe) -> bool:
    with probe.tenant() as company:
        first = probe.replay(company, idempotency_key="w").json()["replay_run_id"]
        probe.rows("UPDATE replay_runs SET idempotency_key = 'v' WHERE id = %s", first)
        return bool(probe.replay(company, idempotency_key="v").json()["replay_run_id"] != first)
