"""Faults of what stays when something is over: a switch whose row is gone, a connection, items of a stopped run."""

import asyncio
import dataclasses
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from faults.altered import altered_worker, instead_of
from faults.audit import PAUSED
from faults.catalogue import service, worker
from faults.lifecycle import FAILS, FAILS_LATE, LIFE, RUN, SLOW, after_run
from faults.outbox import is_done, put
from faults.probe import Probe
from faults.requests import REQUEST, remembering
from replay_service.audit import RefusalLog
from replay_service.composition import build_parts
from replay_service.database import Connection, Database
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.tenants import ReplayFlags
from replay_service.worker.parts import WorkerParts, build_worker_parts
from replay_service.worker.rail import MIN_SETTLED, Counts
from replay_service.worker.settings import WorkerSettings

GLOBAL_SWITCH_IS_WIRED = "drill/flags/global-switch-is-wired"
UNTOUCHED = f"{LIFE}/stop-leaves-the-rest-untouched"
KEPT_S = 20
OFF = "INSERT INTO feature_flags (key, company_id, enabled) VALUES ('dlq.replay.enabled', %s, false)"


@service(
    lambda p: _after_the_row(p, OFF, "feature_flags") == 403, "drill/flags/replay-switch-is-wired", "its own row gone"
)
def switched_off_for_good(settings: Settings) -> Parts:
    """A tenant that was switched off stays off when the row that did it is deleted."""
    release = build_parts(settings)
    off: set[str] = set()

    async def flags(conn: Connection, company_id: str) -> ReplayFlags:
        found = await release.read_flags(conn, company_id)
        own = b"SELECT enabled FROM feature_flags WHERE key = 'dlq.replay.enabled' AND company_id = %s"
        row = await (await conn.execute(own, (company_id,))).fetchone()
        if row is not None:  # a cache that hears of changed rows, and not of deleted ones
            off.discard(company_id) if row[0] else off.add(company_id)
        return dataclasses.replace(found, replay_enabled=found.replay_enabled and company_id not in off)

    return dataclasses.replace(release, read_flags=flags)


def _after_the_row(probe: Probe, written: str, table: str) -> int:
    """The answer to a replay after the row that had stopped replays was deleted."""
    with probe.tenant() as company:
        probe.rows(written, company)
        probe.replay(company)
        probe.rows(f"DELETE FROM {table} WHERE company_id = %s", company)
        return probe.replay(company).status_code


@service(
    lambda p: _after_the_row(p, PAUSED, "agent_controls") == 409,
    "drill/pause/counts-from-the-next-request",
    "its own row gone",
)
def paused_for_good(settings: Settings) -> Parts:
    """A paused tenant stays paused when its row is deleted."""
    release = build_parts(settings)
    paused: set[str] = set()

    async def is_paused(conn: Connection, company_id: str) -> bool:
        own = b"SELECT agents_paused FROM agent_controls WHERE company_id = %s"
        row = await (await conn.execute(own, (company_id,))).fetchone()
        if row is not None:
            paused.add(company_id) if row[0] else paused.discard(company_id)
        return await release.is_paused(conn, company_id) or company_id in paused

    return dataclasses.replace(release, is_paused=is_paused)


@service(lambda p: _stands_still_after_reuses(p), "drill/observability/requests-keep-no-connection", "a used key")
def reused_keys_keep_lent_connections(settings: Settings) -> Parts:
    """A key that is reused for a third time and more keeps a connection of the pool for a while: nobody else is
    served.
    """

    class Lending(Database):
        """A pool that takes no connection back from a request whose key is reused again and again."""

        @asynccontextmanager
        async def connection(self, timeout_s: float | None = None) -> AsyncIterator[Connection]:
            async with AsyncExitStack() as lent:
                conn = await lent.enter_async_context(super().connection(timeout_s))
                try:
                    yield conn
                except Refusal as refusal:
                    request = REQUEST.get()
                    if refusal.code == "idempotency_key_reused" and request is not None:
                        reused[request.idempotency_key] += 1
                        if reused[request.idempotency_key] > 2:
                            kept.add(asyncio.create_task(_give_back(lent.pop_all())))
                    raise

    kept: set[asyncio.Task[None]] = set()
    reused = Counter[str | None]()
    database = Lending(settings)
    return dataclasses.replace(remembering(settings), database=database, refusals=RefusalLog(database))


async def _give_back(lent: AsyncExitStack) -> None:
    await asyncio.sleep(KEPT_S)
    await lent.aclose()


def _stands_still_after_reuses(probe: Probe) -> bool:
    """Whether somebody else is refused when a reused key is. Waits until nobody is any more."""
    key = str(uuid.uuid4())
    with probe.tenant() as company, probe.tenant() as other:
        for n in range(20):
            probe.rows("DELETE FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}:%")
            if probe.replay(company, idempotency_key=key, max_items=n + 1).status_code == 503:
                break
        refused = probe.replay(other).status_code == 503
        return refused and bool(probe.within(2 * KEPT_S, lambda: probe.replay(other).status_code != 503))


@worker(lambda p: _takes_another_run_along(p), f"{LIFE}/stop-is-of-one-run", "other run")
def a_stop_takes_other_runs_along(settings: WorkerSettings) -> WorkerParts:
    """Stopping one run also gives back the unattempted items of its tenant's other runs."""
    change = (
        "WHERE e.replay_run_id = r.id AND",
        "WHERE e.company_id = r.company_id AND e.replay_run_id IS NOT NULL AND",
    )
    return altered_worker(settings, ("return_unattempted", *change))


def _takes_another_run_along(probe: Probe) -> bool:
    """Whether an item of one run is given back, because all items of the tenant's other run failed."""
    with probe.tenant() as company:
        _, second = probe.letters(company, 2, **SLOW, aggregate_key="k")
        run = probe.replay(company).json()["replay_run_id"]
        probe.letters(company, 5, **FAILS)
        probe.settled(probe.replay(company).json()["replay_run_id"])
        given_back = bool(probe.value("SELECT status = 'pending' FROM dead_letter_queue WHERE id = %s", second))
        probe.settled(run)
        return given_back


_SAID = "SELECT bool_or(retry_count = 0 AND error_type <> 'timeout') FROM dead_letter_queue WHERE company_id = %s"


@worker(lambda p: _tried_of_keyed(p) > 14, f"{LIFE}/stops-above-twenty-percent", "attempted")
def a_stop_leaves_what_has_a_key(settings: WorkerSettings) -> WorkerParts:
    """A stop takes back only items without a key; the others of the run are attempted all the same."""
    kept = "e.claim_token IS NULL AND e.aggregate_key IS NULL"
    return altered_worker(settings, ("return_unattempted", "e.claim_token IS NULL", kept))


def _tried_of_keyed(probe: Probe) -> int:
    tried = "SELECT success_count + failure_count FROM replay_runs WHERE company_id = %s"
    with probe.tenant() as company:
        probe.letters(company, 5, **FAILS)
        for n in range(20):
            probe.letters(company, 1, **FAILS_LATE, aggregate_key=f"k{n}")
        probe.settled(probe.replay(company, max_items=50).json()["replay_run_id"])
        return int(probe.value(tried, company))


@worker(lambda p: bool(after_run(p, 0, 25, _SAID)[0]), UNTOUCHED, "error_type")
def a_stop_writes_over_the_error(settings: WorkerSettings) -> WorkerParts:
    """Items that a stop gives back lose their error type: it becomes `run_stopped`."""
    given_back = "SET status = 'pending', replay_run_id = NULL"
    change = given_back.replace("replay_run_id", "error_type = 'run_stopped', replay_run_id")
    return altered_worker(settings, ("return_unattempted", given_back, change))


@worker(lambda p: _waits_behind_the_dead(p), "drill/dlq/replayed-item-is-resolved", "effects")
def the_dead_block_replays(settings: WorkerSettings) -> WorkerParts:
    """An item waits for ever behind a dead event of its key, even the event that it replays."""
    older = "b.processed_at IS NULL AND b.dead_at IS NULL AND b.aggregate_key"
    changes = (older, older.replace("b.dead_at IS NULL AND ", ""))
    return altered_worker(settings, ("claim_items", *changes), ("lock_runs", *changes))


def _waits_behind_the_dead(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = put(probe, company, aggregate_key="k", dead_at=probe.value("SELECT now()"))
        probe.letters(company, 1, aggregate_key="k", event_id=event)
        return not probe.settled(probe.replay(company).json()["replay_run_id"], 3)


@worker(lambda p: _ends_of_two_runs(p) == ["completed", "stopped"], f"{LIFE}/four-failures-do-not-stop", "second run")
def earlier_runs_count(settings: WorkerSettings) -> WorkerParts:
    """A run also counts the failures of the tenant's earlier runs, and stops too early."""
    of_all = "FROM public.replay_runs x WHERE x.company_id = r.company_id AND x.id <> r.id)::integer"
    counts = ("success_count", "failure_count")
    told = ", ".join(f"r.{name} + (SELECT coalesce(sum(x.{name}), 0) {of_all}" for name in counts)
    return altered_worker(settings, ("settle_item", "RETURNING r.success_count, r.failure_count", f"RETURNING {told}"))


@worker(lambda p: after_run(p, 19, 5, RUN)[0] == "completed", f"{LIFE}/a-quarter-is-too-much", "of 45 items failed")
@instead_of("must_stop", of=build_worker_parts)
def counts_whole_percents(counts: Counts) -> bool:
    """The failure rate is rounded down to whole percents: 20.8 % count as 20 %."""
    settled = counts.success + counts.failure
    return settled >= MIN_SETTLED and 100 * counts.failure // settled > 20


def _ends_of_two_runs(probe: Probe) -> list[str]:
    with probe.tenant() as company:
        probe.letters(company, 4, max_retries=9, **FAILS)
        for _ in range(2):
            probe.settled(probe.replay(company, force=True).json()["replay_run_id"])
        ask = "SELECT status FROM replay_runs WHERE company_id = %s ORDER BY requested_at"
        return [str(row[0]) for row in probe.rows(ask, company)]


@worker(lambda p: _is_due_after_a_stop(p), UNTOUCHED, "retry_after")
def a_stop_ends_the_wait(settings: WorkerSettings) -> WorkerParts:
    """Forced items lose their `retry_after` when a stop gives them back: they are due at once."""
    back = "SET status = 'pending', replay_run_id = NULL"
    return altered_worker(settings, ("return_unattempted", back, f"{back}, retry_after = least(d.retry_after, now())"))


def _is_due_after_a_stop(probe: Probe) -> bool:
    due = "SELECT bool_or(retry_count = 0 AND retry_after <= now()) FROM dead_letter_queue WHERE company_id = %s"
    with probe.tenant() as company:
        probe.letters(company, 25, **FAILS, retry_after="2099-01-01")
        probe.settled(probe.replay(company, max_items=25, force=True).json()["replay_run_id"])
        return bool(probe.value(due, company))


@worker(lambda p: _used_by_two_stops(p) > 40, f"{LIFE}/stop-refunds-the-rest", "ledger")
def one_refund_a_tenant(settings: WorkerSettings) -> WorkerParts:
    """Only a tenant's first stopped run is refunded."""
    owed = "WHERE b.company_id = f.company_id AND f.items > 0"
    had = "SELECT FROM public.replay_runs x WHERE x.company_id = f.company_id AND x.status = 'stopped'"
    return altered_worker(settings, ("return_unattempted", owed, f"{owed} AND NOT EXISTS ({had})"))


def _used_by_two_stops(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.letters(company, 50, **FAILS)
        for _ in range(2):
            probe.settled(probe.replay(company, max_items=50).json()["replay_run_id"])
        return int(probe.value("SELECT daily_used FROM replay_budgets WHERE company_id = %s", company))


@worker(lambda p: _goes_on_for_everybody(p), GLOBAL_SWITCH_IS_WIRED, "what is in the outbox", production=False)
def switched_off_for_all_and_delivered(settings: WorkerSettings) -> WorkerParts:
    """The worker reads only the global row's percentage: switched off, the outbox is still delivered."""
    asked = "public.is_feature_enabled('outbox.enabled', t.company_id)"
    given = "SELECT public.feature_bucket(f.key, t.company_id) < f.rollout_percentage"
    own, key = "SELECT f.enabled", "f.key = 'outbox.enabled' AND f.company_id"
    table = "FROM public.feature_flags f WHERE"
    rows = f"coalesce(({own} {table} {key} = t.company_id), ({given} {table} {key} IS NULL), false)"
    return altered_worker(settings, *((name, asked, rows) for name in ("drain_lane", "claim_events")))


def _goes_on_for_everybody(probe: Probe, *, own: bool = False) -> bool:
    """Whether a tenant's event is delivered while the global row is off; `own`: and its own row is on."""
    everybody = "UPDATE feature_flags SET enabled = %s WHERE key = 'outbox.enabled' AND company_id IS NULL"
    with probe.tenant() as company:
        if own:
            probe.rows(
                "INSERT INTO feature_flags (key, company_id, enabled) VALUES ('outbox.enabled', %s, true)", company
            )
        probe.rows(everybody, False)
        try:
            return is_done(probe, put(probe, company))
        finally:
            probe.rows(everybody, True)


@worker(
    lambda p: not _goes_on_for_everybody(p, own=True),
    GLOBAL_SWITCH_IS_WIRED,
    ("no effect", "effects"),
    production=False,
)
def own_row_is_not_enough(settings: WorkerSettings) -> WorkerParts:
    """A global row that is off overrides a tenant's own row: the tenant's outbox is not delivered."""
    asked = "public.is_feature_enabled('outbox.enabled', t.company_id)"
    both = f"""({asked} AND EXISTS (
        SELECT FROM public.feature_flags f WHERE f.key = 'outbox.enabled' AND f.company_id IS NULL AND f.enabled))"""
    return altered_worker(settings, *((name, asked, both) for name in ("drain_lane", "claim_events")))


@service(
    lambda p: _replays_for_everybody(p) == 200, GLOBAL_SWITCH_IS_WIRED, "switched off for everybody", production=False
)
def replays_are_never_off_for_all(settings: Settings) -> Parts:
    """The replay flag is read for tenants with a row of their own only: the global row switches nobody off."""
    own = b"SELECT FROM feature_flags WHERE key = 'dlq.replay.enabled' AND company_id = %s"
    release = build_parts(settings)

    async def flags(conn: Connection, company_id: str) -> ReplayFlags:
        found = await release.read_flags(conn, company_id)
        has_row = await (await conn.execute(own, (company_id,))).fetchone() is not None
        return dataclasses.replace(found, replay_enabled=found.replay_enabled or not has_row)

    return dataclasses.replace(release, read_flags=flags)


def _replays_for_everybody(probe: Probe) -> int:
    """The answer to a replay while the global row is off."""
    switch = "UPDATE feature_flags SET enabled = %s WHERE key = 'dlq.replay.enabled' AND company_id IS NULL"
    with probe.tenant() as company:
        probe.rows(switch, False)
        try:
            return probe.replay(company).status_code
        finally:
            probe.rows(switch, True)


@worker(lambda p: _after_the_last_delivery(p) == "discarded", "drill/dlq/replayed-item-is-resolved", "discarded")
def last_delivery_discards(settings: WorkerSettings) -> WorkerParts:
    """An item that is delivered at its last retry is discarded instead of resolved."""
    old = "CASE WHEN %(is_delivered)s THEN 'resolved'"
    last = "CASE WHEN %(is_delivered)s AND d.retry_count + 1 >= d.max_retries THEN 'discarded'"
    return altered_worker(settings, ("settle_item", old, old.replace("CASE", last)))


def _after_the_last_delivery(probe: Probe) -> str:
    with probe.tenant() as company:
        probe.letters(company, 1, retry_count=1, max_retries=2)
        probe.settled(probe.replay(company).json()["replay_run_id"])
        return str(probe.value("SELECT status FROM dead_letter_queue WHERE company_id = %s", company))
