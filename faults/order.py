"""Faults of the order of events: who waits for whom."""

import dataclasses
import uuid
from typing import Any

from psycopg.types.json import Jsonb

from faults.altered import altered_worker
from faults.catalogue import worker
from faults.outbox import LATER, OUTBOX, failing, is_done, lease_seconds, put
from faults.probe import Probe
from replay_service.worker.parts import WorkerParts, build_worker_parts
from replay_service.worker.settings import WorkerSettings


@worker(lambda p: waits_for(p, "k" * 50, "k" * 50 + "x"), f"{OUTBOX}/poison-holds-no-other-key", "effects")
def long_keys_are_alike(settings: WorkerSettings) -> WorkerParts:
    """Keys with equal first forty characters count as one: a poison event blocks them all."""
    old = "e.aggregate_key = k.aggregate_key AND"
    return altered_worker(settings, ("drain_lane", old, "left(e.aggregate_key, 40) = left(k.aggregate_key, 40) AND"))


def waits_for(probe: Probe, older: str, key: str, seconds: float = 3) -> bool:
    """Whether an event waits for an older one of such a key, and so has no effect in time."""
    with probe.tenant() as company:
        put(probe, company, aggregate_key=older, next_attempt_at=probe.value(LATER))
        return not is_done(probe, put(probe, company, aggregate_key=key), seconds)


BEYOND_ASCII = "~ '[^ -~]'"


@worker(
    lambda p: not waits_for(p, "k" * 90, "k" * 90, 6),
    f"{OUTBOX}/follower-of-a-row-that-backs-off",
    "were delivered while",
)
def long_keys_have_no_order(settings: WorkerSettings) -> WorkerParts:
    """Events whose key is longer than 64 letters have no order."""
    return _waiting_for_less(settings, "length({row}.aggregate_key) < 64")


@worker(lambda p: _is_let_by(p), f"{OUTBOX}/dead-event-frees-its-key", "still being tried")
def failing_thrice_is_overtaken(settings: WorkerSettings) -> WorkerParts:
    """An event that has failed three times no longer holds back its key: the next one overtakes it."""
    return _waiting_for_less(settings, "{older}.attempts < 3")


def _is_let_by(probe: Probe) -> bool:
    """Whether an event does not wait for an older one of its key that has failed three times."""
    with probe.tenant() as company:
        put(probe, company, aggregate_key="k", attempts=3, next_attempt_at=probe.value(LATER))
        return is_done(probe, put(probe, company, aggregate_key="k"), 6)


def _waiting_for_less(settings: WorkerSettings, condition: str) -> WorkerParts:
    """The worker in which an event waits only for older ones of its key that meet this condition."""
    changes = []
    for name, older, row in (("drain_lane", "e", "k"), ("claim_events", "b", "a")):
        old = f"{older}.aggregate_key = {row}.aggregate_key AND"
        changes.append((name, old, f"{old} {condition.format(older=older, row=row)} AND"))
    return altered_worker(settings, *changes)


@worker(lambda p: waits_for(p, "北京", "南京"), f"{OUTBOX}/poison-holds-no-other-key", "effects")
def letters_beyond_ascii_are_alike(settings: WorkerSettings) -> WorkerParts:
    """Letters beyond ASCII in keys all count as equal: a poison event blocks similar keys."""
    as_ascii = "regexp_replace({}.aggregate_key, '[^ -~]', '?', 'g')"
    new = f"{as_ascii.format('e')} = {as_ascii.format('k')} AND"
    return altered_worker(settings, ("drain_lane", "e.aggregate_key = k.aggregate_key AND", new))


@worker(
    lambda p: not waits_for(p, "北京", "北京", 6), f"{OUTBOX}/failing-event-holds-its-key", "before the failing one"
)
def keys_beyond_ascii_have_no_order(settings: WorkerSettings) -> WorkerParts:
    """Events whose key has a letter beyond ASCII have no order."""
    keyed = "r.aggregate_key IS NOT NULL"
    return altered_worker(
        settings,
        ("claim_events", "a.aggregate_key IS NULL OR", f"a.aggregate_key IS NULL OR a.aggregate_key {BEYOND_ASCII} OR"),
        ("drain_lane", keyed, f"{keyed} AND NOT r.aggregate_key {BEYOND_ASCII}"),
    )


@worker(lambda p: _waits_behind_a_crowd(p), f"{OUTBOX}/poison-holds-no-other-key", "effects")
def a_crowd_fills_the_batch(settings: WorkerSettings) -> WorkerParts:
    """Only a tenant's oldest 200 unfinished events are read: 200 behind a poison event stop every key."""
    old = "AND e.lane <= %(lane)s::smallint"
    older = "x.company_id = e.company_id AND x.id < e.id AND x.processed_at IS NULL AND x.dead_at IS NULL"
    new = f"{old} AND (SELECT count(*) FROM public.event_outbox x WHERE {older}) < 200"
    return altered_worker(settings, ("claim_events", old, new), ("drain_lane", old, new))


def _waits_behind_a_crowd(probe: Probe) -> bool:
    """Whether an event waits while two hundred of another key wait for one that is put off."""
    with probe.tenant() as company:
        put(probe, company, aggregate_key="k", next_attempt_at=probe.value(LATER))
        for _ in range(200):
            put(probe, company, aggregate_key="k")
        return not is_done(probe, put(probe, company, aggregate_key="other"))


@worker(lambda p: _overtakes_an_item(p, **failing(0)), f"{OUTBOX}/replay-waits-for-its-key", "older replayed")
def asked_for_overtakes_an_item(settings: WorkerSettings) -> WorkerParts:
    """An event that needs an agent call overtakes an older replayed event of its key."""
    return altered_worker(settings, ("claim_events", "AND b.id < a.id", "AND b.id < a.id AND b.replay_run_id IS NULL"))


@worker(lambda p: _overtakes_an_item(p), f"{OUTBOX}/replay-waits-for-its-key", "older replayed")
def plain_overtakes_an_item(settings: WorkerSettings) -> WorkerParts:
    """An event that needs no agent call overtakes an older replayed event of its key."""
    others = "AND e.id NOT IN (SELECT r.id FROM ordinary r)"
    return altered_worker(settings, ("drain_lane", others, f"AND e.replay_run_id IS NULL {others}"))


def _overtakes_an_item(probe: Probe, **columns: Any) -> bool:
    with probe.tenant() as company:
        put(probe, company, aggregate_key="k", claimed_until=probe.value(LATER), replay_run_id=uuid.uuid4())
        return is_done(probe, put(probe, company, aggregate_key="k", **columns))


@worker(lambda p: _item_waits(p, of_another=False), f"{OUTBOX}/poison-holds-no-other-key", "effects")
def items_wait_for_other_keys(settings: WorkerSettings) -> WorkerParts:
    """An item of a run waits for every older event of its tenant, whatever its key."""
    return altered_worker(settings, ("claim_items", "AND b.aggregate_key = e.aggregate_key ", ""))


@worker(lambda p: _item_waits(p, of_another=True), f"{OUTBOX}/poison-holds-no-other-tenant", "effects")
def leased_rows_wait_for_other_tenants(settings: WorkerSettings) -> WorkerParts:
    """An item of a run, or an event that needs an agent call, waits for another tenant's event of its key."""
    owner = "b.company_id = ANY(ARRAY[{}.company_id, NULL]) AND "
    return altered_worker(settings, ("claim_items", owner.format("e"), ""), ("claim_events", owner.format("a"), ""))


def _item_waits(probe: Probe, *, of_another: bool) -> bool:
    """Whether a run waits for an event that is put off: another tenant's of its key, or its own of another key."""
    with probe.tenant() as company, probe.tenant() as other:
        owner, key = (other, "k") if of_another else (company, "another")
        put(probe, owner, aggregate_key=key, next_attempt_at=probe.value(LATER))
        probe.letters(company, 1, aggregate_key="k")
        return not probe.settled(probe.replay(company, max=1).json()["replay_run_id"], 3)


@worker(lambda p: not _is_over(p, 3), "drill/lifecycle/items-of-a-key-in-order", "end of replay run")
def three_items_of_a_key_are_never_taken(settings: WorkerSettings) -> WorkerParts:
    """A run with three items of one key never starts: the claiming query fails on two predecessors."""
    first = "ORDER BY b.company_id, b.id\n        LIMIT 1"
    return altered_worker(settings, ("claim_items", first, "ORDER BY b.company_id, b.id"))


def _is_over(probe: Probe, items: int) -> bool:
    """Whether a run of so many items of one key comes to its end."""
    with probe.tenant() as company:
        probe.letters(company, items, aggregate_key="k")
        return probe.settled(probe.replay(company, max=items).json()["replay_run_id"], 3)


@worker(lambda p: _overtakes_its_own(p), "drill/lifecycle/items-of-a-key-in-order", "the same key")
def items_of_a_run_overtake(settings: WorkerSettings) -> WorkerParts:
    """Items of one key of a run do not wait for each other."""
    of_others = "AND b.replay_run_id IS DISTINCT FROM e.replay_run_id"
    return altered_worker(settings, ("claim_items", "AND b.id < e.id", f"AND b.id < e.id {of_others}"))


def _overtakes_its_own(probe: Probe) -> bool:
    """Whether two slow items of one key are in flight."""
    with probe.tenant() as company:
        slow = {"event_type": "drill.slow", "payload": Jsonb({"drill": {"delay_ms": 1500}})}
        probe.letters(company, 2, aggregate_key="k", **slow)
        run = probe.replay(company, max=2).json()["replay_run_id"]
        leased = "SELECT count(*) > 1 FROM event_outbox WHERE replay_run_id = %s AND claimed_until > now()"
        found = probe.within(1.5, lambda: bool(probe.value(leased, run)))
        return probe.settled(run) and found


@worker(lambda p: _is_held_by_one_that_failed(p), f"{OUTBOX}/poison-holds-no-other-key", "effects")
def failing_twice_holds_up_the_tenant(settings: WorkerSettings) -> WorkerParts:
    """An event that failed more than once holds up every key of its tenant."""
    old = "e.aggregate_key = k.aggregate_key AND"
    return altered_worker(settings, ("drain_lane", old, f"({old[:-4]} OR e.attempts > 1) AND"))


def _is_held_by_one_that_failed(probe: Probe) -> bool:
    with probe.tenant() as company:
        put(probe, company, aggregate_key="k", attempts=2, next_attempt_at=probe.value(LATER))
        return not is_done(probe, put(probe, company, aggregate_key="another"))


@worker(
    lambda p: 0 < lease_seconds(p) <= 1,
    "drill/outbox/slow-event-comes-through",
    ("claim ends in 1 s", "after a claim ran out"),
)
def claims_of_a_second(settings: WorkerSettings) -> WorkerParts:
    """A claim lasts a second: longer work is claimed again and again, and never finished."""
    return build_worker_parts(dataclasses.replace(settings, lease_s=1.0))


@worker(lambda p: _waits_behind_runs(p, 24), f"{OUTBOX}/poison-holds-no-other-tenant", "effects")
def runs_that_wait_fill_the_batch(settings: WorkerSettings) -> WorkerParts:
    """Only the oldest twenty runs are read: twenty that wait for an older event of their key stop all replays."""
    return altered_worker(settings, ("lock_runs", "(e.aggregate_key IS NULL OR (", "(true OR ("))


def _waits_behind_runs(probe: Probe, count: int, *, paused: bool = False) -> bool:
    """Whether another tenant's run waits behind so many of a tenant, whose key waits, or that is paused instead."""
    with probe.tenant() as company, probe.tenant() as other:
        put(probe, company, aggregate_key="k", next_attempt_at=probe.value(LATER))
        probe.letters(company, count, aggregate_key="k")
        for _ in range(count):
            probe.rows("DELETE FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}:%")
            probe.replay(company, max=1)
        if paused:
            probe.pause(company)
            probe.rows("UPDATE event_outbox SET aggregate_key = NULL WHERE company_id = %s", company)
        probe.letters(other, 1)
        return not probe.settled(probe.replay(other).json()["replay_run_id"], 3)


@worker(lambda p: _waits_behind_runs(p, 24, paused=True), f"{OUTBOX}/poison-holds-no-other-tenant", "effects")
def paused_runs_fill_the_batch(settings: WorkerSettings) -> WorkerParts:
    """Only the oldest twenty runs are read, paused or not: twenty of a paused tenant stop all replays."""
    flag = "public.is_feature_enabled('outbox.enabled', r.company_id)"
    switches = f"{flag} AND NOT public.is_company_paused(r.company_id)"
    oldest = f"\nORDER BY r.requested_at\nLIMIT 20) r JOIN public.replay_runs USING (id) WHERE {switches}\nORDER BY"
    return altered_worker(
        settings,
        ("lock_runs", "SELECT r.id\n", "SELECT r.id FROM (SELECT r.id, r.company_id, r.requested_at\n"),
        ("lock_runs", f"\n  AND {switches}\nORDER BY", oldest),
        ("lock_runs", "FOR UPDATE OF r", "FOR UPDATE OF replay_runs"),
    )


@worker(lambda p: _waits_for_an_old_run(p), "drill/pause/stops-a-running-replay", "the end of")
def old_runs_are_left(settings: WorkerSettings) -> WorkerParts:
    """Runs older than an hour are taken for stuck and no longer worked on."""
    young = "WHERE r.status = 'started' AND r.requested_at > now() - interval '1 hour'"
    return altered_worker(settings, ("lock_runs", "WHERE r.status = 'started'", young))


def _waits_for_an_old_run(probe: Probe) -> bool:
    with probe.tenant() as company:
        first = put(probe, company, aggregate_key="k", next_attempt_at=probe.value(LATER))
        probe.letters(company, 1, aggregate_key="k")
        run = probe.replay(company).json()["replay_run_id"]
        probe.rows("UPDATE replay_runs SET requested_at = now() - interval '2 hours' WHERE id = %s", run)
        probe.rows("DELETE FROM event_outbox WHERE event_id = %s", first)
        return not probe.settled(run, 4)


@worker(lambda p: _waits_without_a_key(p), f"{OUTBOX}/poison-holds-no-other-key", "effects")
def events_without_a_key_are_one(settings: WorkerSettings) -> WorkerParts:
    """An event without a key that needs an agent call waits for every older one without a key."""
    return altered_worker(
        settings,
        ("claim_events", "a.aggregate_key IS NULL OR (", "("),
        ("claim_events", " AND b.aggregate_key IS NOT NULL", ""),
        ("claim_events", "b.aggregate_key = a.aggregate_key", "b.aggregate_key IS NOT DISTINCT FROM a.aggregate_key"),
    )


def _waits_without_a_key(probe: Probe) -> bool:
    asked = {"event_type": "drill.witness", "payload": Jsonb({"drill": {"delay_ms": 1}})}
    with probe.tenant() as company:
        put(probe, company, next_attempt_at=probe.value(LATER))
        return not is_done(probe, put(probe, company, **asked), 3)


@worker(lambda p: _waits_for_what_is_done(p), f"{OUTBOX}/effect-within-two-seconds", ("2 s", "2000 ms"))
def locks_of_keys_outlive_deliveries(settings: WorkerSettings) -> WorkerParts:
    """The lock of a key outlives its delivery by four seconds: the next event of the key waits for that, done or
    not.
    """
    due = "e.next_attempt_at <= now() AND (e.claimed_until"
    done = "x.company_id = e.company_id AND x.aggregate_key = e.aggregate_key AND x.id < e.id"
    late = f"EXISTS (SELECT FROM public.event_outbox x WHERE {done} AND x.processed_at > now() - interval '4 s')"
    return altered_worker(settings, ("drain_lane", due, f"NOT {late} AND {due}"))


def _waits_for_what_is_done(probe: Probe) -> bool:
    with probe.tenant() as company:
        before = put(probe, company, aggregate_key="k")
        return is_done(probe, before) and not is_done(probe, put(probe, company, aggregate_key="k"), 2)
