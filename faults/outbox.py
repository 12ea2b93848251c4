"""Faults of the outbox's deliveries: events that are lost, late, reordered, held or let through."""

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
LATER = "SELECT now() + interval '1 hour'"
_PAUSE = " AND NOT public.is_company_paused(t.company_id)"
_FLAG = "public.is_feature_enabled('outbox.enabled', t.company_id) AND "
_DUE = "e.next_attempt_at <= now() AND (e.claimed_until"
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


def state_of(probe: Probe, ask: str, seconds: float = 3, **columns: Any) -> list[Any]:
    """The row of `ask` about a tenant's outbox some time after an event was put there."""
    with probe.tenant() as company:
        put(probe, company, **columns)
        probe.within(seconds, lambda: False)
        return list(probe.rows(ask, company)[0])


def failing(times: int = -1, **more: Any) -> dict[str, Any]:
    """The columns of an event that fails so many times."""
    return {"event_type": "drill.witness", "payload": Jsonb({"drill": {"fail_times": times}}), **more}


@worker(lambda p: _delivers_at_zero(p), "drill/held/switched-off-is-not-delivered", "left out at")
def own_percentage_ignored(settings: WorkerSettings) -> WorkerParts:
    """The worker reads only `enabled` of a tenant's own flag row, not its percentage."""
    own = "SELECT f.enabled FROM public.feature_flags f WHERE f.key = 'outbox.enabled' AND f.company_id = t.company_id"
    asked = _FLAG.removesuffix(" AND ")
    return altered_worker(settings, *((name, asked, f"coalesce(({own}), {asked})") for name in BOTH))


def _delivers_at_zero(probe: Probe) -> bool:
    with probe.tenant() as company:
        row = "INSERT INTO feature_flags (key, company_id, enabled, rollout_percentage) VALUES (%s, %s, true, 0)"
        probe.rows(row, "outbox.enabled", company)
        return is_done(probe, put(probe, company))


@worker(lambda p: _is_left(p, "witness"), f"{OUTBOX}/any-text-is-delivered", "effect")
def types_without_a_dot_are_left(settings: WorkerSettings) -> WorkerParts:
    """The worker selects events by a pattern of their types: a type without a dot is never delivered."""
    some = "e.processed_at IS NULL AND e.dead_at IS NULL\n    AND (e.lane, e.id) >"
    return altered_worker(settings, *((name, some, f"e.event_type LIKE '%%.%%' AND {some}") for name in BOTH))


def _is_left(probe: Probe, event_type: str) -> bool:
    with probe.tenant() as company:
        return not is_done(probe, put(probe, company, event_type=event_type))


@worker(
    lambda p: _delivers_to_the_paused(p),
    ("drill/pause/events-go-to-the-outbox", "drill/pause/fleet"),
    ("pause", "held"),
)
def pause_ignored(settings: WorkerSettings) -> WorkerParts:
    """The worker delivers events of a paused company."""
    return altered_worker(settings, *((name, _PAUSE, "") for name in BOTH))


@worker(lambda p: _forgets_what_is_old(p), "drill/outbox/old-rows-are-delivered", "effects of 14 events")
def looks_back_for_an_hour(settings: WorkerSettings) -> WorkerParts:
    """The worker reads only the last hour: older rows are never delivered."""
    recent = "e.inserted_at > now() - interval '1 hour' AND "
    due = (*BOTH, "claim_items")
    return altered_worker(
        settings, *((n, "e.next_attempt_at <= now()", f"{recent}e.next_attempt_at <= now()") for n in due)
    )


def _forgets_what_is_old(probe: Probe) -> bool:
    with probe.tenant() as company:
        return not is_done(probe, put(probe, company, inserted_at=probe.value("SELECT now() - interval '2 hours'")))


@worker(
    lambda p: _waits_for_another_companys_key(p),
    "drill/held/holds-no-other-tenants-key",
    ("effects of 1 event", "paused"),
)
def keys_are_everybodys(settings: WorkerSettings) -> WorkerParts:
    """A row waits for an older one of any company that has the same key."""
    return altered_worker(
        settings,
        ("drain_lane", "e.company_id = ANY(ARRAY[k.company_id, NULL]) AND ", ""),
        ("claim_events", "b.company_id = ANY(ARRAY[a.company_id, NULL]) AND ", ""),
    )


def _waits_for_another_companys_key(probe: Probe) -> bool:
    with probe.tenant() as paused, probe.tenant() as company:
        probe.pause(paused)
        put(probe, paused, aggregate_key="everybodys")
        return not is_done(probe, put(probe, company, aggregate_key="everybodys"))


@worker(lambda p: _mends_a_strangers_task(p), "drill/outbox/effect-touches-only-its-event", "tasks of other events")
def every_task_is_completed(settings: WorkerSettings) -> WorkerParts:
    """The effect of one event marks the failed tasks of all events as completed."""
    return altered_worker(
        settings, ("drain_lane", "t.event_id = r.event_id AND t.status <> 'completed'", "t.status <> 'completed'")
    )


def _mends_a_strangers_task(probe: Probe) -> bool:
    task = """INSERT INTO agent_tasks (company_id, agent_name, event_id, status)
        VALUES (%s, 'witness', gen_random_uuid(), 'failed') RETURNING event_id"""
    with probe.tenant() as company, probe.tenant() as other:
        event, foreign = probe.value(task, company), probe.value(task, other)
        is_done(probe, put(probe, company, event_id=event))
        return bool(probe.value("SELECT status <> 'failed' FROM agent_tasks WHERE event_id = %s", foreign))


@worker(lambda p: _is_still_claimed(p), "drill/outbox/slow-event-comes-through", "in flight")
def delivered_rows_keep_their_claim(settings: WorkerSettings) -> WorkerParts:
    """A delivered row keeps its claim: it is processed and still in flight for some seconds."""
    return altered_worker(settings, ("settle_delivered", "claimed_until = NULL, ", ""))


def _is_still_claimed(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = put(probe, company, event_type="drill.witness", payload=Jsonb({"drill": {"delay_ms": 10}}))
        is_done(probe, event)
        return bool(probe.value("SELECT claimed_until > now() FROM event_outbox WHERE event_id = %s", event))


@worker(lambda p: _is_tried_while_off(p), "drill/held/switched-off-is-not-delivered", ("delivered", "held"))
def a_retry_is_not_held(settings: WorkerSettings) -> WorkerParts:
    """Rows that were tried before are tried again although their tenant is switched off."""
    is_due, off = "e.next_attempt_at <= now()", "NOT t.is_on"
    tried = "(SELECT t.company_id FROM tenants t WHERE NOT t.is_on AND NOT w.was_tried)"
    changes = [
        change
        for name in ("drain_lane", "claim_events")
        for change in (
            (name, f"    {is_due} AND", f"    e.attempts > 0 AS was_tried, {is_due} AND"),
            (name, f"(SELECT t.company_id FROM tenants t WHERE {off})", tried),
        )
    ]
    return altered_worker(settings, *changes)


def _is_tried_while_off(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.switch_off(company)
        return is_done(probe, put(probe, company, attempts=1))


@worker(lambda p: _item_overtakes(p), "drill/outbox/replay-waits-for-its-key", "older event")
def items_wait_for_their_run_alone(settings: WorkerSettings) -> WorkerParts:
    """An item of a run waits for those of its run alone: it overtakes the older events of its key."""
    change = ("AND b.id < e.id", "AND b.id < e.id AND b.replay_run_id = e.replay_run_id")
    return altered_worker(settings, ("lock_runs", *change), ("claim_items", *change))


def _item_overtakes(probe: Probe) -> bool:
    with probe.tenant() as company:
        put(probe, company, aggregate_key="k", claimed_until=probe.value("SELECT now() + interval '1 hour'"))
        probe.letters(company, 1, aggregate_key="k")
        return probe.settled(probe.replay(company).json()["replay_run_id"], 3.0)


@worker(lambda p: _overtakes(p, claimed_until=p.value(LATER)), f"{OUTBOX}/follower-of-a-claimed-row", "another relay")
def overtakes_a_claimed_row(settings: WorkerSettings) -> WorkerParts:
    """A row overtakes an older one of its key that another relay has claimed."""
    return _overtaking(settings, "({row}.claimed_until IS NULL OR {row}.claimed_until <= now())")


def _overtaking(settings: WorkerSettings, which: str) -> WorkerParts:
    """A worker for which only rows with this condition hold back later ones of their key."""
    places = (("drain_lane", "e", "k.last_id"), ("claim_events", "b", "a.id"))
    return altered_worker(
        settings,
        *((name, old := f"AND {row}.id < {last}", f"{old} AND {which.format(row=row)}") for name, row, last in places),
    )


def _overtakes(probe: Probe, **columns: Any) -> bool:
    with probe.tenant() as company:
        put(probe, company, aggregate_key="k", **columns)
        return is_done(probe, put(probe, company, aggregate_key="k"))


@worker(
    lambda p: _overtakes(p, next_attempt_at=p.value(LATER)), "drill/outbox/follower-of-a-row-that-backs-off", "attempt"
)
def overtakes_a_row_that_backs_off(settings: WorkerSettings) -> WorkerParts:
    """A row overtakes an older one of its key that waits for its next attempt."""
    return _overtaking(settings, "{row}.next_attempt_at <= now()")


@worker(lambda p: _is_stuck_behind_its_task(p), "drill/outbox/unfinished-task-becomes-the-effect", "effect")
def unfinished_task_in_the_way(settings: WorkerSettings) -> WorkerParts:
    """An event whose task is queued or running already never has its effect."""
    return altered_worker(settings, ("drain_lane", "t.status <> 'completed'", "t.status = 'failed'"))


def _is_stuck_behind_its_task(probe: Probe) -> bool:
    queued = "INSERT INTO agent_tasks (company_id, agent_name, event_id, status) VALUES (%s, 'a', %s, 'queued')"
    with probe.tenant() as company:
        event = put(probe, company, next_attempt_at=probe.value(LATER))
        probe.rows(queued, company, event)
        probe.rows("UPDATE event_outbox SET next_attempt_at = now() WHERE company_id = %s", company)
        return not is_done(probe, event)


@worker(lambda p: _never_takes_odd_letters(p), "drill/outbox/any-text-is-delivered", "effects of 7 event")
def odd_letters_are_never_taken(settings: WorkerSettings) -> WorkerParts:
    """Rows whose payload has a character beyond ASCII are never taken."""
    plain = "octet_length(e.payload::text) = char_length(e.payload::text) AND "
    return altered_worker(settings, *((name, _DUE, f"{plain}{_DUE}") for name in BOTH))


def _never_takes_odd_letters(probe: Probe) -> bool:
    with probe.tenant() as company:
        return not is_done(probe, put(probe, company, payload=Jsonb({"name": "Größe"})))


def _delivers_to_the_paused(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.pause(company)
        return is_done(probe, put(probe, company))


@worker(lambda p: _delivers_to_the_switched_off(p), "drill/held/switched-off-is-not-delivered", ("off", "held"))
def flag_ignored(settings: WorkerSettings) -> WorkerParts:
    """The worker delivers events of a company whose outbox is switched off."""
    return altered_worker(settings, *((name, _FLAG, "") for name in BOTH))


def _delivers_to_the_switched_off(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.switch_off(company)
        return is_done(probe, put(probe, company))


@worker(lambda p: lease_seconds(p) > 600, "drill/recovery/worker-clock-skewed", "claim", production=False)
def claims_of_an_hour(settings: WorkerSettings) -> WorkerParts:
    """A claim lasts an hour instead of seconds: the rows of a killed worker wait that long."""
    return build_worker_parts(dataclasses.replace(settings, lease_s=3600.0))


def lease_seconds(probe: Probe) -> float:
    """How long a claim lasts: the longest seen, as one that ran out is soon renewed."""
    left, seen = "SELECT extract(epoch FROM claimed_until - now()) FROM event_outbox WHERE company_id = %s", [0.0]
    with probe.tenant() as company:
        put(probe, company, event_type="drill.witness", payload=Jsonb({"drill": {"delay_ms": 3000}}))

        def over() -> bool:
            seen.append(float(probe.value(left, company) or 0))
            return False

        probe.within(1.5, over)
    return max(seen)


@worker(
    lambda p: _without_effect(p, 60),
    (f"{OUTBOX}/crowd-once-each", "sql/spot/processed-has-effect"),
    ("effect", "processed"),
)
def effects_lost(settings: WorkerSettings) -> WorkerParts:
    """One event in ten is marked as processed without its effect."""
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
    lambda p: is_late(p), (f"{OUTBOX}/effect-within-two-seconds", "load/outbox_lag_ms/avg"), ("2 s", "lag", "effect")
)
def three_seconds_late(settings: WorkerSettings) -> WorkerParts:
    """Events are delivered 3 s after they are due."""
    late = "e.next_attempt_at <= now() - interval '3 s' AND (e.claimed_until"
    return altered_worker(settings, *((name, _DUE, late) for name in BOTH))


def is_late(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = put(probe, company)
        return not is_done(probe, event, 2) and is_done(probe, event, 6)


@worker(lambda p: _behind_a_slow_one(p), f"{OUTBOX}/slow-event-holds-nobody", ("delivered only after", "effects of"))
def one_at_a_time(settings: WorkerSettings) -> WorkerParts:
    """A frozen agent holds up all deliveries: one event at a time."""
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
        taken = "SELECT count(*) = 2 FROM event_outbox WHERE company_id = %s AND claimed_until IS NOT NULL"
        probe.within(3, lambda: bool(probe.value(taken, company)))
        return not is_done(probe, put(probe, company), 2)
