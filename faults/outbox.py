"""Faults of the outbox's deliveries: events that are lost, late, reordered, held or let through."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from psycopg.types.json import Jsonb

from faults.altered import altered_worker
from faults.catalogue import worker
from faults.probe import Probe
from replay_service.worker.agents import Event, Failure, ScriptedAgent, SqlAgent
from replay_service.worker.parts import WorkerParts, build_worker_parts
from replay_service.worker.settings import WorkerSettings

OUTBOX = "drill/outbox"
_DONE = "SELECT 1 FROM agent_tasks WHERE event_id = %s AND status = 'completed'"
_PAUSE = " AND NOT public.is_company_paused(t.company_id)"
_FLAG = "public.is_feature_enabled('outbox.enabled', t.company_id) AND "
_DUE = "e.next_attempt_at <= now() AND (e.claimed_until"
_FREE = "(e.claimed_until IS NULL OR e.claimed_until <= now())"
BOTH = ("drain_lane", "claim_events")


def put(probe: Probe, company: str, **columns: Any) -> str:
    """An event put into the outbox by hand; its event id."""
    values = {"event_type": "witness.done", "payload": Jsonb({"n": 1}), **columns}
    names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
    text = f"INSERT INTO event_outbox (company_id, {names}) VALUES (%s, {marks}) RETURNING event_id::text"
    return str(probe.value(text, company, *values.values()))


def is_done(probe: Probe, event_id: str, seconds: float = 3) -> bool:
    """Whether an event has its effect in time."""
    return probe.within(seconds, lambda: bool(probe.rows(_DONE, event_id)))


def _done_of(probe: Probe, **columns: Any) -> bool:
    with probe.tenant() as company:
        return is_done(probe, put(probe, company, **columns))


def state_of(probe: Probe, ask: str, seconds: float = 3, **columns: Any) -> list[Any]:
    """The row of `ask` about a tenant's outbox some time after an event was put there."""
    with probe.tenant() as company:
        put(probe, company, **columns)
        probe.within(seconds, lambda: False)
        return list(probe.rows(ask, company)[0])


def failing(times: int = -1, **more: Any) -> dict[str, Any]:
    """The columns of an event that fails so many times."""
    return {"event_type": "drill.witness", "payload": Jsonb({"drill": {"fail_times": times}}), **more}


@worker(
    "The worker delivers events of a paused company.",
    lambda p: _delivers_to_the_paused(p),
    ("drill/pause/*", "drill/held/*"),
    names=("pause", "held"),
)
def pause_ignored(settings: WorkerSettings) -> WorkerParts:
    return altered_worker(settings, *((name, _PAUSE, "") for name in BOTH))


def _delivers_to_the_paused(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.rows("INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, true)", company)
        return is_done(probe, put(probe, company))


@worker(
    "The worker delivers events of a company whose outbox is switched off.",
    lambda p: _delivers_to_the_switched_off(p),
    ("drill/held/switched-off-is-not-delivered",),
    names=("off", "held"),
)
def flag_ignored(settings: WorkerSettings) -> WorkerParts:
    return altered_worker(settings, *((name, _FLAG, "") for name in BOTH))


def _delivers_to_the_switched_off(probe: Probe) -> bool:
    with probe.tenant() as company:
        off = "INSERT INTO feature_flags (key, company_id, enabled) VALUES ('outbox.enabled', %s, false)"
        probe.rows(off, company)
        return is_done(probe, put(probe, company))


@worker(
    "`next_attempt_at` is ignored: events are delivered before they are due.",
    lambda p: _done_of(p, next_attempt_at="2099-01-01"),
    (f"{OUTBOX}/not-before-it-is-due",),
    names=("next_attempt_at", "due"),
)
def delivered_before_due(settings: WorkerSettings) -> WorkerParts:
    return altered_worker(settings, *((name, _DUE, "true AND (e.claimed_until") for name in BOTH))


@worker(
    "A claim of another worker is ignored: two work on one event.",
    lambda p: _done_of(p, claimed_until="2099-01-01"),
    (f"{OUTBOX}/claimed-by-another",),
    names=("claim",),
)
def claims_ignored(settings: WorkerSettings) -> WorkerParts:
    return altered_worker(settings, *((name, _FREE, "true") for name in BOTH))


@worker(
    "A claim never expires: what a killed worker held is never delivered.",
    lambda p: not _done_of(p, claimed_until="2020-01-01"),
    (f"{OUTBOX}/expired-claim-is-taken-up",),
    names=("effects of", "claim"),
)
def claims_never_expire(settings: WorkerSettings) -> WorkerParts:
    return altered_worker(settings, *((name, _FREE, "e.claimed_until IS NULL") for name in BOTH))


@worker(
    "Claims last an hour instead of seconds: what a killed worker held waits so long.",
    lambda p: _lease_seconds(p) > 600,
    ("drill/recovery/*",),
    names=("claim",),
    production=False,
)
def claims_of_an_hour(settings: WorkerSettings) -> WorkerParts:
    return build_worker_parts(dataclasses.replace(settings, lease_s=3600.0))


def _lease_seconds(probe: Probe) -> float:
    left = "SELECT extract(epoch FROM claimed_until - now()) FROM event_outbox WHERE company_id = %s"
    slow = {"event_type": "drill.witness", "payload": Jsonb({"drill": {"delay_ms": 3000}})}
    found = state_of(probe, left, 1, **slow)[0]
    return float(found or 0)


@worker(
    "One event in ten is marked as processed without its effect.",
    lambda p: _without_effect(p, 60),
    (f"{OUTBOX}/delivered-once", f"{OUTBOX}/crowd-once-each", "sql/spot/processed-has-effect"),
    names=("effect", "processed"),
)
def effects_lost(settings: WorkerSettings) -> WorkerParts:
    ready = "FROM ready r CROSS JOIN (SELECT clock_timestamp() AS at) c\n  ORDER BY r.id"
    some = ready.replace("ORDER BY", "WHERE hashtext(r.event_id::text) %% 10 <> 0 ORDER BY")
    fence = " AND ((SELECT y.is_clean FROM tally y) OR r.event_id IN (SELECT f.event_id FROM effects f))"
    return altered_worker(settings, ("drain_lane", ready, some), ("drain_lane", fence, ""))


def _without_effect(probe: Probe, count: int) -> bool:
    ask = """SELECT count(*) FROM event_outbox o WHERE o.company_id = %s AND o.processed_at IS NOT NULL
        AND NOT EXISTS (SELECT FROM agent_tasks t WHERE t.event_id = o.event_id)"""
    with probe.tenant() as company:
        for _ in range(count):
            put(probe, company)
        return probe.within(3, lambda: probe.value(ask, company) > 0)


@worker(
    "Events are delivered 3 s after they are due.",
    lambda p: _done_late(p),
    (f"{OUTBOX}/effect-within-two-seconds", "load/outbox_lag_ms/avg"),
    names=("2 s", "lag", "effect"),
)
def three_seconds_late(settings: WorkerSettings) -> WorkerParts:
    late = "e.next_attempt_at <= now() - interval '3 s' AND (e.claimed_until"
    return altered_worker(settings, *((name, _DUE, late) for name in BOTH))


def _done_late(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = put(probe, company)
        return not is_done(probe, event, 2) and is_done(probe, event, 6)


@worker(
    "Events of one key are delivered in any order.",
    lambda p: _overtaken(p),
    (f"{OUTBOX}/order-within-a-key", f"{OUTBOX}/failing-event-holds-its-key", f"{OUTBOX}/order-of-interleaved-keys"),
    names=("order", "key"),
)
def order_not_kept(settings: WorkerSettings) -> WorkerParts:
    return altered_worker(
        settings,
        ("drain_lane", "WHERE u.id > first.id", "WHERE u.id > first.id AND false"),
        ("claim_events", "(a.aggregate_key IS NULL OR (", "(true OR ("),
    )


def _overtaken(probe: Probe) -> bool:
    with probe.tenant() as company:
        put(probe, company, aggregate_key="k", next_attempt_at="2099-01-01")
        return is_done(probe, put(probe, company, aggregate_key="k"))


@worker(
    "A waiting event of one key holds up all keys of its company.",
    lambda p: _held_up(p, "other"),
    (f"{OUTBOX}/poison-holds-no-other-key", f"{OUTBOX}/slow-event-holds-nobody"),
    names=("key", "poison"),
)
def poison_holds_the_company(settings: WorkerSettings) -> WorkerParts:
    return altered_worker(
        settings,
        ("drain_lane", " AND e.aggregate_key = k.aggregate_key", ""),
        ("claim_events", " AND b.aggregate_key = a.aggregate_key", ""),
    )


def _held_up(probe: Probe, key: str) -> bool:
    with probe.tenant() as company:
        put(probe, company, aggregate_key="k", next_attempt_at="2099-01-01")
        return not is_done(probe, put(probe, company, aggregate_key=key))


@worker(
    "A dead event holds its key for ever.",
    lambda p: _behind_the_dead(p),
    (f"{OUTBOX}/dead-event-frees-its-key",),
    names=("effects of", "key"),
)
def dead_holds_its_key(settings: WorkerSettings) -> WorkerParts:
    fine = "b.processed_at IS NULL AND b.dead_at IS NULL AND b.aggregate_key IS NOT NULL"
    return altered_worker(
        settings,
        ("claim_events", fine, "b.processed_at IS NULL AND b.aggregate_key IS NOT NULL"),
        (
            "drain_lane",
            "WHERE e.processed_at IS NULL AND e.dead_at IS NULL AND e.aggregate_key IS NOT NULL",
            "WHERE e.processed_at IS NULL AND e.aggregate_key IS NOT NULL",
        ),
    )


def _behind_the_dead(probe: Probe) -> bool:
    with probe.tenant() as company:
        put(probe, company, aggregate_key="k", dead_at="2020-01-01")
        return not is_done(probe, put(probe, company, aggregate_key="k"))


@worker(
    "The worker looks only at rows above the last one it saw: what commits late is never delivered.",
    lambda p: _late_commit_lost(p),
    (f"{OUTBOX}/late-commit-is-delivered",),
    names=("effects of", "late"),
)
def watermark(settings: WorkerSettings) -> WorkerParts:
    seen = "f.processed_at IS NOT NULL AND f.lane = %(lane)s::smallint"
    last = f"(SELECT max(f.id) - 1 FROM public.event_outbox f WHERE {seen})"
    below = f"(e.lane, e.id) > (%(lane)s::smallint, greatest(%(after)s::bigint, {last}))"
    plain = "(e.lane, e.id) > (%(lane)s::smallint, %(after)s::bigint)"
    return altered_worker(settings, *((name, plain, below) for name in BOTH))


def _late_commit_lost(probe: Probe) -> bool:
    with probe.tenant() as company:
        late = put(probe, company, aggregate_key="late", next_attempt_at="2099-01-01")
        lane = probe.value("SELECT lane FROM event_outbox WHERE event_id = %s", late)
        for _ in range(200):
            event = put(probe, company)
            if probe.value("SELECT lane FROM event_outbox WHERE event_id = %s", event) == lane:
                is_done(probe, event)
                break
        probe.rows("UPDATE event_outbox SET next_attempt_at = now() WHERE event_id = %s", late)
        return not is_done(probe, late)


@worker(
    "Held rows of one company hold up everybody: the window is full of them.",
    lambda p: _nothing_moves_beside_the_paused(p),
    ("drill/held/others-do-not-wait", f"{OUTBOX}/*"),
    names=("other", "wait", "effect"),
)
def held_rows_block(settings: WorkerSettings) -> WorkerParts:
    every = "WHERE w.is_due AND w.company_id NOT IN (SELECT t.company_id FROM tenants t WHERE NOT t.is_on)"
    none = f"{every} AND NOT EXISTS (SELECT FROM tenants t WHERE NOT t.is_on)"
    return altered_worker(settings, *((name, every, none) for name in BOTH))


def _nothing_moves_beside_the_paused(probe: Probe) -> bool:
    with probe.tenant() as paused, probe.tenant() as company:
        probe.rows("INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, true)", paused)
        for _ in range(100):
            put(probe, paused)
        events = [put(probe, company) for _ in range(16)]
        return not all(is_done(probe, event, 2) for event in events)


@worker(
    "A frozen agent holds up all deliveries: one event at a time.",
    lambda p: _behind_a_slow_one(p),
    (f"{OUTBOX}/slow-event-holds-nobody", f"{OUTBOX}/*", "drill/lifecycle/*"),
    names=("delivered only after", "effects of"),
)
def one_at_a_time(settings: WorkerSettings) -> WorkerParts:
    lock = asyncio.Lock()

    class Single(ScriptedAgent):
        async def deliver(self, event: Event) -> Failure | None:
            async with lock:
                return await super().deliver(event)

    return dataclasses.replace(build_worker_parts(settings), agent=Single(SqlAgent()), has_fast_path=False)


def _behind_a_slow_one(probe: Probe) -> bool:
    with probe.tenant() as company:
        for _ in range(2):
            put(probe, company, event_type="drill.witness", payload=Jsonb({"drill": {"delay_ms": 2500}}))
        probe.within(0.5, lambda: False)
        return not is_done(probe, put(probe, company), 2)
