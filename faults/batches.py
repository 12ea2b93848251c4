"""Faults that one plain row does not show: they need another tenant, key or path beside it, or an uncommon row."""

import dataclasses
import json
import uuid

from psycopg.types.json import Jsonb

from faults.altered import altered, altered_worker, around, instead_of
from faults.catalogue import service, worker
from faults.outbox import BOTH, failing, is_done, put
from faults.probe import Probe
from replay_service.database import Connection, fetch_row
from replay_service.idempotency import Outcome, Run, finish
from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.validation import EventRequest, read_event
from replay_service.worker.agents import Event, Failure, ScriptedAgent, SqlAgent
from replay_service.worker.parts import WORKER_QUERIES, WorkerParts, build_worker_parts
from replay_service.worker.settings import WorkerSettings

OUTBOX = "drill/outbox"
NOBODY = "'00000000-0000-4000-8000-0000000000aa'::uuid"
_AGAIN = b"""INSERT INTO public.event_outbox (event_id, company_id, event_type, aggregate_key, payload)
    SELECT id, company_id, event_type, aggregate_key, payload FROM public.events WHERE id = %(event)s::uuid"""
_FAILED = "SELECT 1 FROM agent_tasks WHERE event_id = %s AND company_id <> %s"


@worker(lambda p: _share_a_tenant(p), f"{OUTBOX}/effects-of-their-tenants", "another tenant")
def batch_of_one_tenant(settings: WorkerSettings) -> WorkerParts:
    """The effects of a batch are filed under the tenant of its first row."""
    first = "first_value(r.company_id) OVER (ORDER BY r.id)"
    return altered_worker(settings, ("drain_lane", "SELECT r.company_id, 'sql'", f"SELECT {first}, 'sql'"))


def _share_a_tenant(probe: Probe) -> bool:
    with probe.tenant() as one, probe.tenant() as other:
        written = """INSERT INTO event_outbox (company_id, event_type)
            SELECT CASE WHEN n %% 2 = 0 THEN %s::uuid ELSE %s::uuid END, 'witness.done' FROM generate_series(1, 64) n
            RETURNING event_id::text, company_id::text"""
        owners: dict[str, str] = {str(event): str(company) for event, company in probe.rows(written, one, other)}
        all(is_done(probe, event) for event in owners)
        found = probe.rows(
            "SELECT event_id::text, company_id::text FROM agent_tasks WHERE event_id = ANY(%s::uuid[])", list(owners)
        )
        return any(owners[event] != company for event, company in found)


@worker(lambda p: _fails_elsewhere(p), f"{OUTBOX}/failed-tasks-of-their-tenants", "another tenant")
def failures_of_nobody(settings: WorkerSettings) -> WorkerParts:
    """The failures of events and of items are filed under a tenant that does not exist."""
    return altered_worker(
        settings,
        ("settle_failed", "SELECT h.company_id, %(agent)s", f"SELECT {NOBODY}, %(agent)s"),
        ("settle_item", "h.company_id, %(agent)s", f"{NOBODY}, %(agent)s"),
    )


def _fails_elsewhere(probe: Probe) -> bool:
    with probe.tenant() as company:
        event = put(probe, company, **failing())
        return probe.within(3, lambda: bool(probe.rows(_FAILED, event, company)))


@worker(lambda p: _waits_for_another_key(p, 120), f"{OUTBOX}/poison-holds-no-other-key", "effects of")
def shards_wait_as_one(settings: WorkerSettings) -> WorkerParts:
    """Keys are hashed to sixteen shards, and a row waits for every older one of its shard, whatever its key."""
    shard = "(hashtextextended(a.aggregate_key, uuid_hash_extended(a.company_id, 0)) & 15)"
    return altered_worker(settings, ("claim_events", "b.aggregate_key = a.aggregate_key", f"b.lane = {shard}"))


def _waits_for_another_key(probe: Probe, count: int) -> bool:
    with probe.tenant() as company:
        later = probe.value("SELECT now() + interval '1 hour'")
        put(probe, company, aggregate_key="first", next_attempt_at=later)
        others = [put(probe, company, aggregate_key=str(n), **failing(0)) for n in range(count)]
        probe.within(3, lambda: all(is_done(probe, event, 0) for event in others))
        return not all(is_done(probe, event, 0) for event in others)


@worker(lambda p: _waits_for_the_small_letter(p), f"{OUTBOX}/poison-holds-no-other-key", "effects of")
def keys_without_case(settings: WorkerSettings) -> WorkerParts:
    """Keys are compared without their case: `A` waits for `a`."""
    return altered_worker(
        settings,
        ("drain_lane", "e.aggregate_key = k.aggregate_key", "lower(e.aggregate_key) = lower(k.aggregate_key)"),
        ("claim_events", "b.aggregate_key = a.aggregate_key", "lower(b.aggregate_key) = lower(a.aggregate_key)"),
    )


def _waits_for_the_small_letter(probe: Probe) -> bool:
    with probe.tenant() as company:
        put(probe, company, aggregate_key="a", next_attempt_at=probe.value("SELECT now() + interval '1 hour'"))
        return not is_done(probe, put(probe, company, aggregate_key="A"))


@worker(lambda p: _counts_too_little(p), "drill/lifecycle/a-success-stops-it-too", "resolved")
def counts_end_with_the_brake(settings: WorkerSettings) -> WorkerParts:
    """Items that succeed after a run was told to stop are not counted."""
    counted = "success_count = r.success_count + CASE WHEN"
    return altered_worker(settings, ("settle_item", counted, f"{counted} r.stopping_at IS NULL AND"))


def _counts_too_little(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 5, **failing())
        probe.letters(company, 8, **{**failing(), "payload": Jsonb({"drill": {"delay_ms": 700}})})
        run = probe.replay(company, max_items=13).json()["replay_run_id"]
        probe.settled(run)
        done = "SELECT count(*) FROM dead_letter_queue WHERE company_id = %s AND status = 'resolved'"
        counted = probe.value("SELECT success_count FROM replay_runs WHERE id = %s", run)
        return int(probe.value(done, company)) > int(counted)


@worker(lambda p: _gives_up_lists(p), f"{OUTBOX}/any-payload-is-delivered", "effects of 5 events")
def only_objects(settings: WorkerSettings) -> WorkerParts:
    """An event whose payload is not an object is treated as failed."""

    class Strict(ScriptedAgent):
        async def deliver(self, event: Event) -> Failure | None:
            if not isinstance(json.loads(event.payload_text), dict):
                return Failure("bad_payload", "the payload is no object")
            return await super().deliver(event)

    return dataclasses.replace(build_worker_parts(settings), agent=Strict(SqlAgent()))


def _gives_up_lists(probe: Probe) -> bool:
    with probe.tenant() as company:
        return not is_done(probe, put(probe, company, event_type="drill.witness", payload=Jsonb(["drill"])))


@worker(lambda p: _obeys_a_customer(p), f"{OUTBOX}/only-drill-events-obey", "effects of 2 events")
def any_type_obeys(settings: WorkerSettings) -> WorkerParts:
    """The drill agent obeys the `drill` member of any payload, not only of `drill.` events."""
    of_drills = "event_type LIKE 'drill.%%' AND"
    return altered_worker(settings, *((name, of_drills, "event_type LIKE '%%drill%%' AND") for name in BOTH))


def _obeys_a_customer(probe: Probe) -> bool:
    with probe.tenant() as company:
        return not is_done(probe, put(probe, company, **{**failing(), "event_type": "drilled"}))


@service(lambda p: _loses_a_large_item(p), "drill/dlq/large-item-is-replayed", ("items", "ends it"))
def large_items_are_lost(settings: Settings) -> Parts:
    """An item over eight kilobytes is moved without its outbox row."""
    return altered(settings, "move_items", ("FROM moved\n", "FROM moved WHERE length(payload::text) < 8000\n"))


def _loses_a_large_item(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 1, payload=Jsonb({"text": "x" * 9000}))
        probe.replay(company)
        return not probe.rows("SELECT 1 FROM event_outbox WHERE company_id = %s", company)


@service(lambda p: lag_of_a_minute(p) > 3600, "drill/observability/waiting-events-show", "lag")
def lag_in_milliseconds(settings: Settings) -> Parts:
    """The lag metric is named in seconds and shows milliseconds."""
    lag = "extract(epoch FROM clock_timestamp() - min(oldest) FILTER (WHERE NOT held))"
    return altered(settings, "count_outbox", (lag, f"1000 * {lag}"))


@service(
    lambda p: lag_of_a_minute(p, claimed_until="2999-01-01T00:00:00Z") < 30,
    "drill/observability/waiting-events-show",
    "claimed",
)
def claimed_is_no_lag(settings: Settings) -> Parts:
    """The lag leaves out what a relay has claimed: while agents hang it shows nothing."""
    waits = "AND dead_at IS NULL"
    return altered(settings, "count_outbox", (waits, f"{waits} AND coalesce(claimed_until <= now(), true)"))


@service(
    lambda p: lag_of_a_minute(p, claimed_until=p.value("SELECT now() - interval '1 s'")) < 30,
    "drill/observability/waiting-events-show",
    "pending",
)
def ended_claims_are_no_lag(settings: Settings) -> Parts:
    """The lag and what is pending leave out events whose claim has ended: those of a relay that died."""
    waits = "AND dead_at IS NULL"
    return altered(settings, "count_outbox", (waits, f"{waits} AND coalesce(claimed_until > now(), true)"))


def lag_of_a_minute(probe: Probe, is_off: bool = False, **columns: object) -> float:
    with probe.tenant() as company:
        if is_off:
            probe.switch_off(company)
        old, later = probe.rows("SELECT now() - interval '1 minute', now() + interval '1 hour'")[0]
        put(probe, company, inserted_at=old, next_attempt_at=later, **columns)
        probe.within(1, lambda: False)
        lines = probe.get("/metrics").text.splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith("outbox_lag_seconds")))


@service(lambda p: lag_of_a_minute(p, is_off=True) > 30, "drill/held/does-not-count-as-lag", "held")
def switched_off_is_lag(settings: Settings) -> Parts:
    """The lag counts what is held for tenants that are switched off: after each rollback somebody is paged."""
    off = "OR NOT public.is_feature_enabled('outbox.enabled', p.company_id)"
    return altered(settings, "count_outbox", (off, ""))


@service(lambda p: _takes_two_for_one(p), f"{OUTBOX}/equal-events-are-two", "equal")
@instead_of("read_event")
def an_id_of_the_content(raw: bytes) -> EventRequest:
    """An event without an id gets a hash of its content as id: of two equal orders one is lost."""
    event = read_event(raw)
    content = f"{event.company_id} {event.event_type} {event.aggregate_key} {json.dumps(event.payload)}"
    return dataclasses.replace(event, event_id=event.event_id or str(uuid.uuid5(uuid.NAMESPACE_OID, content)))


def _takes_two_for_one(probe: Probe) -> bool:
    with probe.tenant() as company:
        return len({probe.event(company).json()["event_id"] for _ in range(2)}) == 1


@service(lambda p: _goes_both_ways(p), "drill/flags/sent-again-on-the-other-path", "outbox rows")
@around("emit")
async def known_on_its_path_alone(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """An event that took the direct path and is sent again goes through the outbox, too."""
    path, is_known = await release.emit(conn, request, event_id)
    now = await fetch_row(conn, "event_path", company_id=request.company_id)
    if is_known and path == "direct" and now is not None and now[0] == "outbox":
        await conn.execute(_AGAIN, {"event": event_id})
    return path, is_known


def _goes_both_ways(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.switch_off(company)
        event = probe.event(company).json()["event_id"]
        probe.rows("UPDATE feature_flags SET enabled = true WHERE company_id = %s", company)
        probe.event(company, event_id=event)
        return bool(probe.rows("SELECT 1 FROM event_outbox WHERE event_id = %s", event))


@worker(lambda p: _resolves_for_all(p), "drill/dlq/other-tenants-item-of-the-event", "another tenant")
def letters_by_event_alone(settings: WorkerSettings) -> WorkerParts:
    """A replayed item is found by its event id alone: the items of other tenants are resolved, too."""
    text = WORKER_QUERIES["settle_item"].decode()
    own = text[text.index("WHERE d.status = 'replaying' AND") : text.index(")\nUPDATE public.replay_runs")]
    return altered_worker(settings, ("settle_item", own, "WHERE d.event_id = h.event_id\n"))


def _resolves_for_all(probe: Probe) -> bool:
    event = str(uuid.uuid4())
    with probe.tenant() as one, probe.tenant() as other:
        for company in (one, other):
            probe.letters(company, 1, event_id=event)
        probe.settled(probe.replay(one).json()["replay_run_id"])
        return bool(probe.value("SELECT status FROM dead_letter_queue WHERE company_id = %s", other) != "pending")


@worker(lambda p: _drops_the_second(p), f"{OUTBOX}/dead-letter-once", "dead events")
def one_letter_a_key(settings: WorkerSettings) -> WorkerParts:
    """The dead letter queue keeps one letter for each key: the next dead event of the key is dropped."""
    waits = """SELECT FROM public.dead_letter_queue x
        WHERE x.company_id = h.company_id AND x.aggregate_key = h.aggregate_key AND x.status = 'pending'"""
    return altered_worker(
        settings, ("settle_failed", "WHERE h.is_last\n", f"WHERE h.is_last AND NOT EXISTS ({waits})\n")
    )


def _drops_the_second(probe: Probe) -> bool:
    with probe.tenant() as company:
        for _ in range(2):
            put(probe, company, aggregate_key="k", attempts=4, **failing())
        dead = "SELECT count(*) FROM event_outbox WHERE company_id = %s AND dead_at IS NOT NULL"
        probe.within(5, lambda: int(probe.value(dead, company)) == 2)
        return int(probe.value("SELECT count(*) FROM dead_letter_queue WHERE company_id = %s", company)) == 1


@service(lambda p: _leaves_what_is_old(p), "drill/safety-rails/oldest-first", "oldest")
def old_items_are_left(settings: Settings) -> Parts:
    """Items older than a week are never replayed."""
    return altered(
        settings,
        "pick_items",
        ("AND status = 'pending'", "AND created_at > now() - interval '7 days' AND status = 'pending'"),
    )


def _leaves_what_is_old(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 1)
        probe.rows("UPDATE dead_letter_queue SET created_at = now() - interval '9 days' WHERE company_id = %s", company)
        return not probe.replay(company, dry_run=True).json()["items"]


@service(lambda p: _forgets_items(p), "drill/idempotency/duplicate-same-answer", "items")
@instead_of("finish_run")
async def items_of_a_usual_batch_are_stored(conn: Connection, run: Run, outcome: Outcome) -> None:
    """The stored answer keeps 25 items only: the duplicate of a larger batch lacks the rest."""
    body = json.loads(outcome.response)
    stored = json.dumps(body | {"items": body["items"][:25]})
    await finish(conn, run, dataclasses.replace(outcome, response=stored))


def _forgets_items(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 26)
        first, again = (probe.replay(company, idempotency_key="w", max=26).json()["items"] for _ in range(2))
        return bool(first != again)


@service(lambda p: _direct_while_everybody_is_paused(p), "drill/pause/fleet", "direct")
def pause_of_everybody_is_not_asked(settings: Settings) -> Parts:
    """While everybody is paused, events of a tenant without outbox take the direct path: only its own row is read."""
    own = "EXISTS (SELECT FROM agent_controls a WHERE a.agents_paused AND a.company_id = %(company_id)s::uuid)"
    return altered(settings, "emit_event", ("public.is_company_paused(%(company_id)s::uuid)", own))


def _direct_while_everybody_is_paused(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.switch_off(company)
        probe.rows("UPDATE agent_controls SET agents_paused = true WHERE company_id IS NULL")
        try:
            return bool(probe.event(company).json()["path"] == "direct")
        finally:
            probe.rows("UPDATE agent_controls SET agents_paused = false WHERE company_id IS NULL")


@service(lambda p: _takes_early(p), "drill/dlq/not-before-retry-after", "retry_after")
def a_minute_is_soon_enough(settings: Settings) -> Parts:
    """An item is replayed up to a minute before its `retry_after`."""
    return altered(settings, "pick_items", ("retry_after <= now()", "retry_after <= now() + interval '1 minute'"))


def _takes_early(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 1, retry_after=probe.value("SELECT now() + interval '40 seconds'"))
        return bool(probe.replay(company, dry_run=True).json()["items"])
