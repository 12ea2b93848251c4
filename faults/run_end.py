"""Faults of how a replay ends: its counts, its status, its effects and what the audit says of it."""

from typing import Any

from faults.altered import altered, altered_worker
from faults.catalogue import service, worker
from faults.lifecycle import FAILS, FAILS_LATE, LIFE, RUN, SLOW, after_run
from faults.probe import Probe
from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings

_EFFECTS = "SELECT count(*) FROM agent_tasks WHERE company_id = %s AND status = 'completed'"
_YOUNG = """SELECT max(d.created_at) > max(r.requested_at)
    FROM dead_letter_queue d JOIN replay_runs r USING (company_id) WHERE company_id = %s"""
_TARGET = "SELECT target_count FROM replay_runs WHERE company_id = %s"
_STARTED = "SELECT count(*) FROM replay_runs WHERE company_id = %s AND status = 'started'"


def _stands_still(probe: Probe) -> bool:
    """Whether items of a run whose claims ran out are left undone."""
    add = """INSERT INTO event_outbox (company_id, event_type, replay_run_id, claimed_until)
        SELECT %s, 'witness.done', %s, now() - interval '1 minute' FROM generate_series(1, 10)"""
    left = "SELECT count(*) FROM event_outbox WHERE company_id = %s AND processed_at IS NULL"
    with probe.tenant() as company:
        probe.letters(company, 1, **SLOW)
        probe.rows(add, company, probe.replay(company).json()["replay_run_id"])
        return not probe.within(4, lambda: probe.value(left, company) == 0)


@worker(
    lambda p: after_run(p, 1, 1, RUN)[3] == 0,
    (f"{LIFE}/run-counts-add-up", "sql/spot/run-counts"),
    ("the run is", "count"),
)
def failures_not_counted(settings: WorkerSettings) -> WorkerParts:
    """Failures are not counted in the run."""
    change = ("r.failure_count + CASE WHEN %(is_delivered)s THEN 0", "r.failure_count + CASE WHEN true THEN 0")
    return altered_worker(settings, ("settle_item", *change))


@worker(
    lambda p: not after_run(p, 0, 1, "SELECT payload ? 'none' FROM dead_letter_queue WHERE company_id = %s")[0],
    f"{LIFE}/failed-item-is-pending-again",
    "payload",
)
def failed_items_lose_nulls(settings: WorkerSettings) -> WorkerParts:
    """A failed replay drops the null members of an item's payload."""
    change = ("retry_count = d.retry_count +", "payload = jsonb_strip_nulls(d.payload), retry_count = d.retry_count +")
    return altered_worker(settings, ("settle_item", *change))


@worker(lambda p: _has_no_effect(p), f"{LIFE}/failed-item-is-pending-again", "no effect")
def failed_task_hides_the_effect(settings: WorkerSettings) -> WorkerParts:
    """The task left by a failed replay prevents the effect of the next one."""
    change = ("WHERE t.status <> 'completed'", "WHERE t.status NOT IN ('completed', 'failed')")
    return altered_worker(settings, ("settle_item", *change))


def _has_no_effect(probe: Probe) -> bool:
    """Whether an item whose replay failed, and then succeeded, is without effect."""
    with probe.tenant() as company:
        probe.letters(company, 1, **FAILS)
        probe.settled(probe.replay(company).json()["replay_run_id"])
        probe.rows("UPDATE dead_letter_queue SET payload = '{}' WHERE company_id = %s", company)
        succeeds = probe.settled(probe.replay(company, force=True).json()["replay_run_id"])
        return succeeds and probe.value(_EFFECTS, company) == 0


@worker(_stands_still, f"{LIFE}/item-waits-until-it-is-due", "claims ran out")
def places_of_the_killed(settings: WorkerSettings) -> WorkerParts:
    """Claims that ran out count as items in flight: a run whose worker was killed never goes on."""
    change = ("e.dead_at IS NULL AND e.claimed_until > now()\n", "e.dead_at IS NULL AND e.claimed_until IS NOT NULL\n")
    return altered_worker(settings, ("claim_items", *change))


@worker(lambda p: after_run(p, 0, 25, _YOUNG)[0], f"{LIFE}/stop-leaves-the-rest-untouched", "created_at")
def returned_items_are_young(settings: WorkerSettings) -> WorkerParts:
    """Items that a stopped run gives back lose their age: they are taken last."""
    change = (
        "SET status = 'pending', replay_run_id = NULL",
        "SET status = 'pending', replay_run_id = NULL, created_at = now()",
    )
    return altered_worker(settings, ("return_unattempted", *change))


@worker(
    lambda p: after_run(p, 1, 0, _STARTED)[0] == 1,
    (f"{LIFE}/run-counts-add-up", "drill/audit/end-of-a-run", "sql/spot/runs-not-stuck"),
    ("end", "started"),
)
def never_ends(settings: WorkerSettings) -> WorkerParts:
    """A run stays `started` after its last item."""
    return altered_worker(settings, ("run_standing", "SELECT count(*)", "SELECT count(*) + 1"))


@worker(lambda p: _is_dated_anew(p), f"{LIFE}/run-counts-add-up", "was requested at")
def requests_are_dated_anew(settings: WorkerSettings) -> WorkerParts:
    """Each item that is settled dates the request of its run anew."""
    change = ("SET\n  success_count =", "SET\n  requested_at = clock_timestamp(),\n  success_count =")
    return altered_worker(settings, ("settle_item", *change))


def _is_dated_anew(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 1, **SLOW)
        run = probe.replay(company).json()["replay_run_id"]
        before = probe.value("SELECT requested_at FROM replay_runs WHERE id = %s", run)
        probe.settled(run)
        return bool(probe.value("SELECT requested_at FROM replay_runs WHERE id = %s", run) != before)


@worker(lambda p: after_run(p, 0, 40, _TARGET)[0] < 40, f"{LIFE}/stops-above-twenty-percent", "its target was")
def a_stop_lowers_the_target(settings: WorkerSettings) -> WorkerParts:
    """The target of a stopped run becomes what was settled: that anything was given back is not to be seen."""
    lower = "target_count = r.target_count - (SELECT count(*) FROM gone)::integer"
    change = ("budget_charged = r.budget", f"{lower}, budget_charged = r.budget")
    return altered_worker(settings, ("return_unattempted", *change))


@worker(
    lambda p: after_run(p, 1, 0, "SELECT completed_at IS NULL FROM replay_runs WHERE company_id = %s")[0],
    f"{LIFE}/run-counts-add-up",
    "completed_at",
)
def end_not_stamped(settings: WorkerSettings) -> WorkerParts:
    """The end of a run is not stamped."""
    return altered_worker(settings, ("finish_run", ", completed_at = clock_timestamp()", ""))


@service(lambda p: _ends_as_it_starts(p), "drill/pause/stops-a-running-replay", "completed_at")
def ends_as_it_starts(settings: Settings) -> Parts:
    """A run has the time of its end as soon as it starts."""
    return altered(settings, "finish_request", ("CASE WHEN %(status)s = 'completed' THEN now() END", "now()"))


def _ends_as_it_starts(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 3, **SLOW)
        run = probe.replay(company).json()["replay_run_id"]
        early = "SELECT status = 'started' AND completed_at IS NOT NULL FROM replay_runs WHERE id = %s"
        found = bool(probe.value(early, run))
        probe.settled(run)
        return found


@service(lambda p: not _retried_when_stopped(p)["duplicate"], "drill/idempotency/late-retry-keeps-the-run", "retry")
def stopped_run_again(settings: Settings) -> Parts:
    """The key of a stopped run starts a second run."""
    again = "DO UPDATE SET id = excluded.id, status = 'started', response = NULL WHERE replay_runs.status = 'stopped'"
    return altered(settings, "take_key", ("DO NOTHING", again))


@service(lambda p: _retried_when_stopped(p)["status"] != "completed", f"{LIFE}/stops-above-twenty-percent", "duplicate")
def stopped_runs_lose_their_answer(settings: Settings) -> Parts:
    """The answer of a run that was stopped is not kept: its duplicate says what the run is, and names no item."""
    return altered(settings, "find_run", (" response,", " CASE WHEN status <> 'stopped' THEN response END,"))


def _retried_when_stopped(probe: Probe) -> dict[str, Any]:
    """The answer to the retry of a run without items that was stopped since."""
    with probe.tenant() as company:
        probe.replay(company, idempotency_key="stopped")
        probe.rows("UPDATE replay_runs SET status = 'stopped' WHERE company_id = %s", company)
        return dict(probe.replay(company, idempotency_key="stopped").json())


@worker(lambda p: _stops_a_neighbour(p), f"{LIFE}/stop-is-of-one-run", "other run")
def stops_every_run(settings: WorkerSettings) -> WorkerParts:
    """Stopping one run marks all runs: others end as stopped though their items succeed."""
    return altered_worker(
        settings, ("return_unattempted", "FROM refund f\n  WHERE r.id = %(run_id)s::uuid", "FROM refund f")
    )


def _stops_a_neighbour(probe: Probe) -> bool:
    with probe.tenant() as failing, probe.tenant() as company:
        probe.letters(company, 1, **SLOW)
        run = probe.replay(company).json()["replay_run_id"]
        probe.letters(failing, 5, **FAILS)
        probe.settled(probe.replay(failing).json()["replay_run_id"])
        probe.settled(run)
        return bool(probe.value("SELECT status = 'stopped' FROM replay_runs WHERE id = %s", run))


@worker(
    lambda p: after_run(p, 1, 0, _EFFECTS)[0] == 0,
    ("drill/dlq/replayed-item-is-resolved", f"{LIFE}/all-of-an-item-together", "sql/spot/processed-has-effect"),
    "effect",
)
def resolved_without_effect(settings: WorkerSettings) -> WorkerParts:
    """A replayed item is marked as resolved without an effect."""
    return altered_worker(settings, ("settle_item", "WHERE %(record_task)s\n", "WHERE %(record_task)s AND false\n"))


@worker(
    lambda p: after_run(p, 0, 1, "SELECT count(*) FROM dead_letter_queue WHERE company_id = %s")[0] == 2,
    (f"{LIFE}/failed-item-is-pending-again", "sql/spot/one-dead-letter-per-event"),
    ("dead letter", "second", "one"),
)
def second_dead_letter(settings: WorkerSettings) -> WorkerParts:
    """A failed replay adds a second dead letter beside the first."""
    more = """again AS (
  INSERT INTO public.dead_letter_queue (company_id, event_id, event_type, payload, error_type, retry_after)
  SELECT h.company_id, h.event_id, e.event_type, e.payload, %(error_type)s, now() + interval '1 h'
  FROM held h JOIN public.event_outbox e ON e.id = h.id
  WHERE NOT %(is_delivered)s
), letter AS ("""
    return altered_worker(settings, ("settle_item", "letter AS (", more))


@worker(
    lambda p: after_run(p, 1, 0, "SELECT status FROM dead_letter_queue WHERE company_id = %s")[0] == "discarded",
    ("drill/dlq/replayed-item-is-resolved", "drill/dlq/only-legal-transitions"),
    ("resolved", "discarded"),
)
def delivered_is_discarded(settings: WorkerSettings) -> WorkerParts:
    """A delivered item is marked as discarded."""
    return altered_worker(settings, ("settle_item", "THEN 'resolved'", "THEN 'discarded'"))


@worker(lambda p: _after_the_last_retry(p) == "discarded", f"{LIFE}/failed-item-is-pending-again", "discarded")
def last_retry_discards(settings: WorkerSettings) -> WorkerParts:
    """An item that fails at its last retry is discarded instead of pending."""
    last = "WHEN d.retry_count + 1 >= d.max_retries THEN 'discarded'"
    return altered_worker(
        settings, ("settle_item", "'resolved' ELSE 'pending' END", f"'resolved' {last} ELSE 'pending' END")
    )


def _after_the_last_retry(probe: Probe) -> str:
    with probe.tenant() as company:
        probe.letters(company, 1, retry_count=1, max_retries=2, **FAILS)
        probe.settled(probe.replay(company).json()["replay_run_id"])
        return str(probe.value("SELECT status FROM dead_letter_queue WHERE company_id = %s", company))


@worker(lambda p: _used_after_an_uncharged_stop(p) < 60, f"{LIFE}/stop-refunds-only-what-was-charged", "ledger")
def refunds_what_was_never_charged(settings: WorkerSettings) -> WorkerParts:
    """A stopped run refunds more budget than it was charged."""
    gone = "(SELECT count(*) FROM gone)"
    return altered_worker(
        settings, ("return_unattempted", f"least({gone}, r.budget_charged)::integer", f"{gone}::integer")
    )


def _used_after_an_uncharged_stop(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.rows("INSERT INTO replay_budgets (company_id, daily_used, monthly_used) VALUES (%s, 60, 60)", company)
        off = "INSERT INTO feature_flags (key, company_id, enabled) VALUES ('dlq.replay.budget_control', %s, false)"
        probe.rows(off, company)
        probe.letters(company, 50, **FAILS)
        probe.settled(probe.replay(company, max_items=50).json()["replay_run_id"])
        return int(probe.value("SELECT daily_used FROM replay_budgets WHERE company_id = %s", company))


@worker(lambda p: _waits_for_a_slow_run(p), f"{LIFE}/runs-do-not-wait-for-each-other", "slow")
def one_run_at_a_time(settings: WorkerSettings) -> WorkerParts:
    """Only one run is worked on at a time: the others wait."""
    return altered_worker(settings, ("lock_runs", "LIMIT %(limit)s", "LIMIT least(%(limit)s, 1)"))


def _waits_for_a_slow_run(probe: Probe) -> bool:
    with probe.tenant() as slow, probe.tenant() as company:
        probe.letters(slow, 12, **SLOW)
        probe.letters(company, 1)
        probe.replay(slow, max_items=12)
        quick = probe.replay(company).json()["replay_run_id"]
        waits = not probe.settled(quick, 1.0)
        probe.settled(quick)
        return waits


@worker(lambda p: _goes_on_beside_another(p), "drill/pause/stops-a-running-replay", ("paused", "after the pause"))
def a_neighbours_run_wakes_a_paused_one(settings: WorkerSettings) -> WorkerParts:
    """A run of a paused tenant goes on as soon as another tenant's run does."""
    change = (" AND NOT public.is_company_paused(r.company_id)", "")
    return altered_worker(settings, ("lock_runs", *change), ("claim_items", *change))


def _goes_on_beside_another(probe: Probe) -> bool:
    with probe.tenant() as paused, probe.tenant() as company:
        probe.letters(paused, 12, **SLOW)
        probe.letters(company, 3)
        run = probe.replay(paused, max_items=12).json()["replay_run_id"]
        probe.pause(paused)
        open_rows = "SELECT count(*) FROM event_outbox WHERE replay_run_id = %s AND processed_at IS NULL"
        probe.within(12.0, lambda: int(probe.value(open_rows, run)) <= 2)
        for _ in range(3):  # a worker that is at both at once wakes nobody
            probe.settled(probe.replay(company, max_items=1).json()["replay_run_id"])
            if probe.within(3.0, lambda: int(probe.value(open_rows, run)) == 0):
                return True
        return False


@worker(
    lambda p: after_run(p, 0, 1, "SELECT claimed_until > now() FROM event_outbox WHERE company_id = %s")[0],
    f"{LIFE}/failed-item-is-pending-again",
    "in flight",
)
def failed_items_keep_their_claim(settings: WorkerSettings) -> WorkerParts:
    """The outbox row of a failed item is dead but keeps its claim: it still counts as in flight for seconds."""
    kept = "claimed_until = CASE WHEN %(is_delivered)s THEN NULL ELSE e.claimed_until END,"
    return altered_worker(settings, ("settle_item", "claimed_until = NULL,", kept))


@worker(lambda p: _used_after_control_was_switched_off(p) == 25, f"{LIFE}/stop-refunds-only-what-was-charged", "ledger")
def a_refund_asks_for_budget_control(settings: WorkerSettings) -> WorkerParts:
    """A stopped run is not refunded if budget control was switched off meanwhile."""
    asked = "f.items > 0 AND public.is_feature_enabled('dlq.replay.budget_control', b.company_id)"
    return altered_worker(settings, ("return_unattempted", "f.items > 0", asked))


def _used_after_control_was_switched_off(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.letters(company, 25, **FAILS_LATE)
        run = probe.replay(company, max_items=25).json()["replay_run_id"]
        probe.rows(
            "INSERT INTO feature_flags (key, company_id, enabled) VALUES ('dlq.replay.budget_control', %s, false)",
            company,
        )
        probe.settled(run)
        return int(probe.value("SELECT daily_used FROM replay_budgets WHERE company_id = %s", company))


@service(lambda p: _id_of_an_item_that_was_tried_twice(p) != _EVENT, f"{LIFE}/event-id-is-stable", "event ids")
def tried_items_get_new_ids(settings: Settings) -> Parts:
    """An item that was tried twice gets a new event id with each replay."""
    kept = "coalesce(event_id, gen_random_uuid())"
    anew = f"CASE WHEN retry_count > 1 THEN gen_random_uuid() ELSE {kept} END"
    return altered(settings, "move_items", (f"event_id = {kept}", f"event_id = {anew}"))


_EVENT = "00000000-0000-4000-8000-00000000e0e0"


def _id_of_an_item_that_was_tried_twice(probe: Probe) -> str:
    with probe.tenant() as company:
        probe.letters(company, 1, event_id=_EVENT, retry_count=2, max_retries=9)
        probe.settled(probe.replay(company).json()["replay_run_id"])
        return str(probe.value("SELECT event_id FROM event_outbox WHERE company_id = %s", company))


@worker(lambda p: after_run(p, 0, 25, _TARGET)[0] < 25, f"{LIFE}/stops-above-twenty-percent", "target_count")
def the_target_of_a_stop_is_what_was_settled(settings: WorkerSettings) -> WorkerParts:
    """The audit row of a stopped run shows the settled items as target_count."""
    settled = "r.actor, r.scope, r.success_count + r.failure_count, r.success_count"
    return altered_worker(settings, ("finish_run", "r.actor, r.scope, r.target_count, r.success_count", settled))


_TARGET = "SELECT min(target_count) FROM audit_logs WHERE scope = %s AND action LIKE 'dlq_replay%%'"


@worker(lambda p: after_run(p, 0, 25, _FAILED)[0] == 0, f"{LIFE}/stops-above-twenty-percent", "failure_count")
def the_end_says_that_nothing_failed(settings: WorkerSettings) -> WorkerParts:
    """The row of a run's end, beside its summary, says that nothing failed."""
    counts = "r.scope, r.target_count, r.success_count, r.failure_count,\n"
    first = f"public.append_audit('dlq_replay_' || %(status)s, r.actor, {counts}"
    return altered_worker(settings, ("finish_run", first, first.replace("r.failure_count", "0")))


_FAILED = "SELECT min(failure_count) FROM audit_logs WHERE scope = %s AND action = 'dlq_replay_stopped'"


@worker(
    lambda p: after_run(p, 1, 0, "SELECT count(*) FROM audit_logs WHERE scope = %s")[0] == 1,
    "drill/ledger/replays-on-record",
    "no row",
)
def ends_of_one_item_unwritten(settings: WorkerSettings) -> WorkerParts:
    """The end of a run of one item is not audited."""
    return altered_worker(settings, ("finish_run", "FROM run r", "FROM run r WHERE r.target_count > 1"))
