"""Faults of one state of the data: a promise that is kept but for rows of some age, tenant, key or switch."""

import dataclasses
import uuid
from collections.abc import Sequence
from typing import Any

from faults.altered import altered, altered_worker
from faults.catalogue import service, worker
from faults.effects import moving_apart
from faults.lifecycle import FAILS
from faults.outbox import BOTH, is_late
from faults.probe import Probe
from faults.requests import is_forced, remembering
from faults.trigger.planting import function, released
from replay_service.audit import RefusalLog, RefusalNote
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.validation import EventRequest
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings

DEPTH = "drill/observability/dlq-depth-is-the-tables"
HELD_LAG, LAG = "drill/held/does-not-count-as-lag", "drill/observability/waiting-events-show"


@service(lambda p: _first_taken(p) == "k", "drill/safety-rails/oldest-first", "oldest")
def items_of_a_key_come_first(settings: Settings) -> Parts:
    """Items of a key are taken before those of none, whatever their age."""
    selected = ("SELECT id, created_at\n", "SELECT id, created_at, aggregate_key\n")
    return altered(
        settings,
        "pick_items",
        selected,
        ("  ORDER BY created_at, id\n", "  ORDER BY aggregate_key IS NULL, created_at, id\n"),
    )


def _first_taken(probe: Probe) -> Any:
    with probe.tenant() as company:
        probe.letters(company, 1)
        probe.letters(company, 1, aggregate_key="k", retry_count=0)
        probe.rows("UPDATE dead_letter_queue SET created_at = now() WHERE aggregate_key = 'k'")
        taken = probe.replay(company, dry_run=True, max_items=1).json()["items"]
        return probe.value("SELECT aggregate_key FROM dead_letter_queue WHERE id::text = %s", taken[0])


@service(None, HELD_LAG, "held")
def held_at_zero_percent_is_lag(settings: Settings) -> Parts:
    """The lag counts what is held for a tenant whose own row says 0 %: it reads `enabled` alone."""
    asked = "NOT public.is_feature_enabled('outbox.enabled', p.company_id)"
    own = "SELECT NOT f.enabled FROM public.feature_flags f WHERE f.key = 'outbox.enabled'"
    return altered(settings, "count_outbox", (asked, f"coalesce(({own} AND f.company_id = p.company_id), {asked})"))


@service(None, DEPTH, "dlq_items")
def letters_that_no_replay_takes_are_not_shown(settings: Settings) -> Parts:
    """What is shown as dead letters is what a replay would take: those whose retries are used up are not counted."""
    shown = "status IN ('pending', 'replaying')"
    return altered(settings, "count_dead_letters", (shown, f"{shown} AND retry_count < max_retries"))


@service(None, DEPTH, "dlq_items")
def old_letters_are_not_shown(settings: Settings) -> Parts:
    """What is shown as dead letters is what came within a day: those that nobody looks after are not counted."""
    shown = "status IN ('pending', 'replaying')"
    return altered(settings, "count_dead_letters", (shown, f"{shown} AND created_at > now() - interval '1 day'"))


@service(None, LAG, "outbox_pending")
def a_row_that_says_no_is_held(settings: Settings) -> Parts:
    """A tenant with a row that says it is not paused counts as held: its events are neither pending nor lag."""
    own = "EXISTS (SELECT FROM public.agent_controls a WHERE a.company_id = p.company_id)"
    return altered(settings, "count_outbox", ("public.is_company_paused(p.company_id)", own))


@worker(None, "drill/lifecycle/stops-above-twenty-percent", "completed_at")
def stops_are_not_stamped(settings: WorkerSettings) -> WorkerParts:
    """The end of a run that was stopped is not stamped."""
    stamp = "completed_at = clock_timestamp()"
    only_completed = "completed_at = CASE WHEN %(status)s <> 'stopped' THEN clock_timestamp() END"
    return altered_worker(settings, ("finish_run", stamp, only_completed))


@worker(None, "drill/held/switched-off-is-not-delivered", "left out at")
def who_is_left_out_is_delivered(settings: WorkerSettings) -> WorkerParts:
    """A tenant's rows are delivered while any percentage is on, be the tenant left out at it."""
    rows = "SELECT f.enabled AND f.rollout_percentage > 0 FROM public.feature_flags f WHERE f.key = 'outbox.enabled'"
    own = "(f.company_id = t.company_id OR f.company_id IS NULL) ORDER BY f.company_id NULLS LAST LIMIT 1"
    asked = "public.is_feature_enabled('outbox.enabled', t.company_id)"
    return altered_worker(settings, *((name, asked, f"coalesce(({rows} AND {own}), false)") for name in BOTH))


@service(lambda p: _is_dated_as_its_letter(p), "drill/dlq/letter-is-kept", "is_new")
def replays_are_as_old_as_their_letters(settings: Settings) -> Parts:
    """The outbox row of a replayed item is dated as the item: each replay of old items shows as a lag."""
    columns, values = "replay_run_id, dlq_id)", "%(run_id)s::uuid, id\nFROM moved"
    added = (columns, columns.replace(")", ", inserted_at)"))
    return altered(settings, "move_items", added, (values, values.replace(", id", ", id, moved.created_at")))


def _is_dated_as_its_letter(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 1)
        probe.replay(company)
        old = "SELECT inserted_at < now() - interval '10 minutes' FROM event_outbox WHERE company_id = %s"
        return bool(probe.value(old, company))


@service(None, "drill/idempotency/old-key-is-known", "404")
def runs_of_yesterday_are_not_found(settings: Settings) -> Parts:
    """A run of an earlier day is not found."""
    which = "WHERE id = %(run_id)s::uuid"
    return altered(settings, "read_run", (which, f"{which} AND requested_at > now() - interval '1 day'"))


@service(None, "drill/outbox/same-event-id-once", "404")
def events_of_yesterday_are_not_found(settings: Settings) -> Parts:
    """An event of an earlier day is not found."""
    which = "WHERE e.id = %(event_id)s::uuid"
    return altered(settings, "read_event", (which, f"{which} AND e.created_at > now() - interval '1 day'"))


@service(None, "drill/rate-limit/row-is-the-limit", "another address")
def addresses_that_begin_alike_are_one(settings: Settings) -> Parts:
    """Calls from an address count those from every address that begins alike."""
    every = (
        "SELECT %(key)s::text AS key, array_agg(x.h) AS hits FROM public.edge_rate_limits e, unnest(e.hits) AS x (h)"
    )
    seen = "FROM public.edge_rate_limits r,\n"
    return altered(settings, "admit_request", (seen, f"FROM ({every} WHERE starts_with(e.key, %(key)s)) r,\n"))


@service(None, "drill/pause/fleet", "audit rows", production=False)
def the_pause_of_everybody_leaves_no_rows(settings: Settings) -> Parts:
    """Refusals by the pause of everybody are not audited."""

    class Log(RefusalLog):
        async def note(self, conn: Connection, note: RefusalNote) -> None:
            asked = b"SELECT 1 FROM public.agent_controls WHERE company_id IS NULL AND agents_paused"
            if note.code != "agents_paused" or not await (await conn.execute(asked)).fetchone():
                await super().note(conn, note)

    parts = build_parts(settings)
    return dataclasses.replace(parts, refusals=Log(parts.database))


@service(lambda p: _path_beside_a_row(p) == "outbox", "drill/pause/a-row-that-says-no-is-no-pause", "took the path")
def a_row_that_says_no_sends_to_the_outbox(settings: Settings) -> Parts:
    """Events of a tenant whose own row says no pause wait in the outbox, though it is switched off."""
    own = "EXISTS (SELECT FROM public.agent_controls a WHERE a.company_id = %(company_id)s::uuid)"
    asked = "public.is_company_paused(%(company_id)s::uuid)"
    return altered(settings, "emit_event", (asked, f"{asked} OR {own}"))


def _path_beside_a_row(probe: Probe) -> Any:
    with probe.tenant() as company:
        probe.switch_off(company)
        probe.rows("INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, false)", company)
        return probe.event(company).json()["path"]


@worker(None, "drill/lifecycle/failed-item-is-pending-again", "aggregate_key")
def failed_items_lose_their_key(settings: WorkerSettings) -> WorkerParts:
    """An item of a key that fails loses its key: replayed again, it is out of order."""
    kept = "error_type = coalesce(%(error_type)s, d.error_type),"
    lost = "aggregate_key = CASE WHEN %(is_delivered)s THEN d.aggregate_key END,"
    return altered_worker(settings, ("settle_item", kept, f"{kept} {lost}"))


_GLOBAL = "  IF NOT FOUND THEN\n    SELECT"
function(
    "states/zero-percent-of-a-tenant-is-all",
    "is_feature_enabled",
    released("is_feature_enabled", (_GLOBAL, f"  IF FOUND AND percentage = 0 THEN RETURN is_on; END IF;\n{_GLOBAL}")),
    ("drill/flags/tenant-row-wins",),
    "A tenant's own row at 0 % counts as one at 100 %: zero is taken for no value.",
)


@service(None, LAG, "outbox_lag_seconds")
def what_was_tried_twice_is_no_lag(settings: Settings) -> Parts:
    """Events that were tried more than once are no lag: those that fail for long show nothing."""
    oldest = "min(inserted_at) AS oldest"
    return altered(settings, "count_outbox", (oldest, "min(inserted_at) FILTER (WHERE attempts < 2) AS oldest"))


@service(None, LAG, "outbox_lag_seconds", production=False)
def what_is_older_than_an_hour_is_no_lag(settings: Settings) -> Parts:
    """Events that have waited for over an hour are no lag: while nothing is delivered, it falls to 0 again."""
    waits = "WHERE processed_at IS NULL AND dead_at IS NULL"
    return altered(settings, "count_outbox", (waits, f"{waits} AND inserted_at > now() - interval '1 hour'"))


@worker(None, "drill/lifecycle/one-attempt", "retry_count")
def failures_in_a_pause_are_not_counted(settings: WorkerSettings) -> WorkerParts:
    """An item that fails while its tenant is paused does not count its retry."""
    counts = "CASE WHEN %(is_delivered)s THEN 0 ELSE 1 END,\n    retry_after"
    held = counts.replace("%(is_delivered)s", "%(is_delivered)s OR public.is_company_paused(h.company_id)")
    return altered_worker(settings, ("settle_item", counts, held))


@worker(None, "drill/lifecycle/run-counts-add-up", "completed_at")
def ends_are_dated_as_requests(settings: WorkerSettings) -> WorkerParts:
    """The end of a run is dated as its request: no run ever takes any time."""
    return altered_worker(settings, ("finish_run", "completed_at = clock_timestamp()", "completed_at = r.requested_at"))


@worker(None, "drill/dlq/replayed-item-is-resolved", "effect")
def long_keys_have_no_effect(settings: WorkerSettings) -> WorkerParts:
    """A replayed item with a long key is resolved, and has no effect: the key is too long for the effect's row."""
    recorded = "  WHERE %(record_task)s\n"
    short = "length(o.aggregate_key) > 64 FROM public.event_outbox o WHERE o.id = h.id"
    change = ("settle_item", recorded, f"{recorded} AND NOT coalesce((SELECT {short}), false)\n")
    return altered_worker(settings, change)


_TAKEN = "jsonb_array_elements_text(response -> 'items') WITH ORDINALITY AS told (id, place)"
_THERE = "JOIN public.dead_letter_queue letter ON letter.id = told.id::uuid"


@service(None, "drill/idempotency/duplicate-same-answer", "items")
def duplicates_list_what_is_there(settings: Settings) -> Parts:
    """A duplicate lists the items that are still there: what was cleared away since is missing in its answer."""
    items = f"(SELECT coalesce(jsonb_agg(told.id ORDER BY place), '[]') FROM {_TAKEN} {_THERE})"
    change = ("payload_hash, response,", f"payload_hash, response || jsonb_build_object('items', {items}),")
    return altered(settings, "find_run", change)


@worker(
    lambda p: _replayed_beside_a_task(p) == [("resolved", "queued")],
    "drill/outbox/unfinished-task-becomes-the-effect",
    "effects",
)
def open_tasks_hide_the_effect(settings: WorkerSettings) -> WorkerParts:
    """A task that is queued or running prevents the effect of a replay of its event: the item is resolved
    without one.
    """
    return altered_worker(settings, ("settle_item", "WHERE t.status <> 'completed'", "WHERE t.status = 'failed'"))


def _replayed_beside_a_task(probe: Probe) -> list[Any]:
    """An item and the task of its event, which was queued when the item was replayed."""
    states = """SELECT d.status, t.status FROM dead_letter_queue d JOIN agent_tasks t USING (company_id, event_id)
        WHERE company_id = %s"""
    with probe.tenant() as company:
        event = str(uuid.uuid4())
        probe.rows("INSERT INTO agent_tasks (company_id, event_id) VALUES (%s, %s)", company, event)
        probe.letters(company, 1, event_id=event)
        probe.settled(probe.replay(company).json()["replay_run_id"])
        return probe.rows(states, company)


@worker(is_late, "drill/outbox/effect-within-two-seconds", ("2 s", "2000 ms"))
def events_of_no_order_wait(settings: WorkerSettings) -> WorkerParts:
    """An event without a key waits for four seconds: only those of a key are delivered when they are written."""
    due = "e.next_attempt_at <= now() AND (e.claimed_until"
    wait = f"(e.aggregate_key IS NOT NULL OR e.inserted_at < now() - interval '4 s') AND {due}"
    return altered_worker(settings, ("drain_lane", due, wait))


@service(lambda p: _by_its_id_again(p) == [], "drill/lifecycle/failed-item-is-pending-again", "by its id")
def taken_items_have_no_name(settings: Settings) -> Parts:
    """An item that a run has taken once is not replayed by its id again: it still bears that run."""
    return altered(settings, "pick_items_by_id", ("AND retry_count", "AND replay_run_id IS NULL AND retry_count"))


def _by_its_id_again(probe: Probe) -> Any:
    """What a dry run shows of a named item whose replay failed."""
    with probe.tenant() as company:
        ids = probe.letters(company, 1, **FAILS)
        probe.settled(probe.replay(company).json()["replay_run_id"])
        return probe.replay(company, dry_run=True, force=True, dlq_ids=ids).json()["items"]


@service(lambda p: _apart(p) == [(False,)], "drill/outbox/event-and-row-together", "transactions")
def events_of_no_order_in_two_steps(settings: Settings) -> Parts:
    """The outbox row of an event without a key is written after its event has committed: a crash between loses it."""
    queued = "FROM stored WHERE path = 'outbox'"
    release = altered(settings, "emit_event", (queued, f"{queued} AND aggregate_key IS NOT NULL"))
    add = b"""INSERT INTO event_outbox (event_id, company_id, event_type, payload)
        SELECT id, company_id, event_type, payload FROM events WHERE id = %s"""

    async def emit(conn: Connection, request: EventRequest, event_id: str) -> tuple[str, bool]:
        path, is_duplicate = await release.emit(conn, request, event_id)
        if (path, is_duplicate, request.aggregate_key) == ("outbox", False, None):
            await conn.execute(add, (event_id,))
        return path, is_duplicate

    return dataclasses.replace(release, emit=emit)


def _apart(probe: Probe) -> list[Any]:
    """Whether one transaction wrote an event without a key and its outbox row."""
    joined = "events e JOIN event_outbox o ON o.event_id = e.id WHERE e.company_id = %s"
    with probe.tenant() as company:
        probe.event(company, aggregate_key=None)
        return probe.rows(f"SELECT e.txid = o.txid FROM {joined}", company)


@service(lambda p: _moved_apart(p) == [(False,)], "drill/dlq/run-and-items-together", "transactions")
def forced_items_are_moved_apart(settings: Settings) -> Parts:
    """The items of a forced replay are moved after its transaction: a crash between leaves a run that does nothing."""
    release, apart = remembering(settings), moving_apart(settings, 0)

    async def move(conn: Connection, run_id: str, items: Sequence[str]) -> None:
        await (apart if is_forced() else release).move(conn, run_id, items)

    return dataclasses.replace(release, move=move, replay=apart.replay)


def _moved_apart(probe: Probe) -> list[Any]:
    """Whether one transaction wrote a forced run and the outbox row of its item."""
    joined = "replay_runs r JOIN event_outbox o ON o.replay_run_id = r.id WHERE r.company_id = %s"
    with probe.tenant() as company:
        probe.letters(company, 1)
        probe.replay(company, force=True)
        return probe.rows(f"SELECT r.txid = o.txid FROM {joined}", company)
