"""Faults of rows beside others: one that is locked, one of an event that is done, thousands that are over."""

import psycopg

from faults.altered import altered, altered_worker
from faults.catalogue import service, worker
from faults.lifecycle import FAILS
from faults.outbox import BOTH, is_done, put
from faults.probe import Probe
from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings


@worker(lambda p: _row_of_a_done_event_waits(p), "drill/outbox/second-row-of-an-event", "processed")
def row_of_a_done_event_waits(settings: WorkerSettings) -> WorkerParts:
    """A second outbox row of an event that already has its effect is never marked as processed."""
    done = "JOIN ready r USING (event_id) WHERE t.status = 'completed'"
    return altered_worker(settings, ("drain_lane", done, f"{done} AND false"))


def _row_of_a_done_event_waits(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = put(probe, company)
        again = is_done(probe, event) and put(probe, company, event_id=event)
        waiting = "SELECT count(*) FROM event_outbox WHERE event_id = %s AND processed_at IS NULL"
        return bool(again) and not probe.within(3, lambda: not probe.value(waiting, event))


@worker(lambda p: _old_claim_stands(p), "drill/outbox/expired-claim-is-taken-up", "effects")
def old_claims_stand(settings: WorkerSettings) -> WorkerParts:
    """A row whose claim ran out over an hour ago is left to whoever claimed it."""
    recent = "e.claimed_until BETWEEN now() - interval '1 hour' AND now()"
    return altered_worker(settings, ("drain_lane", "e.claimed_until <= now()", recent))


def _old_claim_stands(probe: Probe) -> bool:
    with probe.tenant() as company:
        return not is_done(probe, put(probe, company, claimed_until=probe.value("SELECT now() - interval '2 days'")))


@worker(lambda p: _claimed_row_comes_early(p), "drill/outbox/not-before-it-is-due", "before they are due")
def a_claim_that_ran_out_is_due(settings: WorkerSettings) -> WorkerParts:
    """A row whose claim ran out is taken again before its next attempt is due."""
    due = "e.next_attempt_at <= now() AND (e.claimed_until IS NULL OR e.claimed_until <= now())"
    unbound = "(e.next_attempt_at <= now() AND e.claimed_until IS NULL OR e.claimed_until <= now())"
    return altered_worker(settings, *((name, due, unbound) for name in ("drain_lane", "claim_events")))


def _claimed_row_comes_early(probe: Probe) -> bool:
    with probe.tenant() as company:
        later, over = probe.rows("SELECT now() + interval '1 hour', now() - interval '1 minute'")[0]
        scripted = {"event_type": "drill.witness", "payload": '{"drill": {"delay_ms": 1}}'}
        return is_done(probe, put(probe, company, next_attempt_at=later, claimed_until=over, **scripted))


@worker(lambda p: _early_beside_a_due_row(p), "drill/outbox/follower-of-a-row-that-backs-off", "a next attempt")
def backs_off_until_the_next_of_its_key(settings: WorkerSettings) -> WorkerParts:
    """An event that needs an agent call is retried in its back-off, once the next row of its key is due."""
    return altered_worker(settings, ("claim_events", "e.next_attempt_at <= now() AND", "true AND"))


def _early_beside_a_due_row(probe: Probe) -> bool:
    columns = {"event_type": "drill.witness", "payload": '{"drill": {"delay_ms": 1}}', "aggregate_key": "k"}
    with probe.tenant() as company:
        put(probe, company, **columns, next_attempt_at="2999-01-01T00:00:00Z")
        return is_done(probe, put(probe, company, **columns))


@worker(
    lambda p: _stalls_behind_rows_that_are_over(p),
    "drill/outbox/old-rows-are-delivered",
    ("effects of 14 events", "effects of 1 events"),
)
def rows_that_are_over_fill_the_window(settings: WorkerSettings) -> WorkerParts:
    """A worker reads a fixed number of rows, finished or not: behind that many finished ones it delivers nothing."""
    after = "AND (e.lane, e.id) > (%(lane)s::smallint, %(after)s::bigint) AND e.lane"
    return altered_worker(settings, ("drain_lane", after, after.replace(") AND e.lane", ") OR e.lane")))


def _stalls_behind_rows_that_are_over(probe: Probe) -> bool:
    over = """INSERT INTO event_outbox (company_id, event_type, processed_at)
        SELECT %s, 'drill.witness', now() FROM generate_series(1, 4000)"""
    with probe.tenant() as company:
        probe.rows(over, company)
        return not all(is_done(probe, put(probe, company), 2) for _ in range(4))


_SWEPT = "AND (e.lane, e.id) > (%(lane)s::smallint, %(after)s::bigint) AND e.lane <= %(lane)s::smallint"


@worker(lambda p: _stalls_behind_rows_of_nobody(p), "drill/held/others-do-not-wait", "effects")
def switched_off_rows_fill_the_batch(settings: WorkerSettings) -> WorkerParts:
    """A batch is filled without a look at `outbox.enabled`: behind a rollback's many held rows nothing is delivered."""
    batch = """AND e.id IN (
        SELECT x.id FROM public.event_outbox x
        WHERE x.processed_at IS NULL AND x.dead_at IS NULL AND NOT public.is_company_paused(x.company_id)
        ORDER BY x.id LIMIT 500
      )"""
    return altered_worker(settings, *((name, _SWEPT, f"{batch} {_SWEPT}") for name in BOTH))


def _stalls_behind_rows_of_nobody(probe: Probe) -> bool:
    held = "INSERT INTO event_outbox (company_id, event_type) SELECT %s, 'witness.done' FROM generate_series(1, 600)"
    with probe.tenant() as off, probe.tenant() as company:
        probe.switch_off(off)
        probe.rows(held, off)
        return not is_done(probe, put(probe, company))


@worker(lambda p: _effect_is_taken_back(p), "drill/dlq/effect-outlives-a-failure", "second row")
def failed_attempt_takes_the_effect_back(settings: WorkerSettings) -> WorkerParts:
    """A failed attempt takes an effect back that was there, where the outbox has an event twice."""
    return altered_worker(settings, ("settle_failed", "\n  WHERE t.status <> 'completed'", ""))


def _effect_is_taken_back(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = put(probe, company)
        again = is_done(probe, event) and put(probe, company, event_id=event, **FAILS)
        state = "SELECT status FROM agent_tasks WHERE event_id = %s"
        return bool(again) and probe.within(3, lambda: probe.value(state, event) == "failed")


@worker(lambda p: _overtakes_a_locked_row(p), "drill/outbox/follower-of-a-locked-row", "locked a row before them")
def overtakes_a_locked_row(settings: WorkerSettings) -> WorkerParts:
    """A row overtakes an older one of its key that another session has locked."""
    return altered_worker(settings, ("drain_lane", "AND e.id NOT IN (SELECT r.id FROM locked r)", "AND false"))


@worker(lambda p: _overtakes_a_locked_row(p), "drill/outbox/follower-of-a-locked-row", "locked a row before them")
def takes_another_tenants_row_for_the_first(settings: WorkerSettings) -> WorkerParts:
    """A row overtakes an older one of its key that another session has locked, where another tenant's row waits."""
    ours = "AND e.id NOT IN (SELECT r.id FROM locked r)"
    anybodys = "e.processed_at IS NULL AND e.dead_at IS NULL AND e.aggregate_key = k.aggregate_key"
    return altered_worker(settings, ("drain_lane", ours, f"{ours} OR {anybodys}"))


def _overtakes_a_locked_row(probe: Probe) -> bool:
    """Whether it does, while a row of another tenant waits, whose id is less."""
    with probe.tenant() as one, probe.tenant() as two, psycopg.connect(probe.environ["DATABASE_URL"]) as other:
        neighbour, company = sorted((one, two))
        key = f"witness {company}"
        probe.pause(company)
        head = put(probe, company, aggregate_key=key)
        follower = put(probe, company, aggregate_key=key)
        put(probe, neighbour, aggregate_key=key, next_attempt_at=probe.value("SELECT now() + interval '1 hour'"))
        other.execute("SELECT FROM event_outbox WHERE event_id = %s FOR UPDATE", (head,))
        probe.rows("UPDATE agent_controls SET agents_paused = false WHERE company_id = %s", company)
        put(probe, company)  # wakes the worker
        return is_done(probe, follower)


@service(lambda p: _is_dated_elsewhere(p), "drill/outbox/event-and-row-together", "inserted_at")
def rows_are_dated_elsewhere(settings: Settings) -> Parts:
    """A new outbox row is dated by the clock on the wall of a zone five hours west."""
    columns, values = "aggregate_key, payload)\n  SELECT id", "aggregate_key, payload FROM stored"
    return altered(
        settings,
        "emit_event",
        (columns, columns.replace(")", ", inserted_at)")),
        (values, values.replace(" FROM", ", now() - interval '5 hours' FROM")),
    )


def _is_dated_elsewhere(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = probe.event(company).json()["event_id"]
        late = "SELECT inserted_at < now() - interval '1 hour' FROM event_outbox WHERE event_id = %s"
        return bool(probe.value(late, event))
