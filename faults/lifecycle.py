"""Faults of a running replay: its rail, what becomes of its items, its counts and its end."""

import dataclasses
from typing import Any

from psycopg.types.json import Jsonb

from faults.altered import altered_worker, instead_of
from faults.catalogue import worker
from faults.probe import Probe
from replay_service.worker.parts import WorkerParts, build_worker_parts
from replay_service.worker.rail import MIN_SETTLED, Counts
from replay_service.worker.settings import WorkerSettings

LIFE = "drill/lifecycle"
FAILS = {"event_type": "drill.witness", "payload": Jsonb({"drill": {"fail_times": -1}, "none": None})}
FAILS_LATE = {"event_type": "drill.witness", "payload": Jsonb({"drill": {"fail_times": -1, "delay_ms": 1000}})}
SLOW = {"event_type": "drill.witness", "payload": Jsonb({"drill": {"delay_ms": 1500}})}


def after_run(probe: Probe, good: int, bad: int, ask: str) -> list[Any]:
    """The first row of `ask` about a tenant after a run over so many items, the good ones first: ten are in flight at
    once, so what fails takes a second where others succeed.
    """
    with probe.tenant() as company:
        probe.letters(company, good)
        failing = probe.letters(company, bad, **(FAILS_LATE if good else FAILS))
        late = "UPDATE dead_letter_queue SET created_at = now() WHERE id = ANY(%s::uuid[])"
        probe.rows(late, failing)
        run = probe.replay(company, max_items=50).json()["replay_run_id"]
        probe.settled(run)
        return list(probe.rows(ask, company)[0])


RUN = "SELECT status, target_count, success_count, failure_count FROM replay_runs WHERE company_id = %s"
_STUCK = "SELECT bool_or(status = 'replaying') FROM dead_letter_queue WHERE company_id = %s"
_LETTER = """SELECT status, retry_count, retry_after > now() + interval '1 s', retry_after
    FROM dead_letter_queue WHERE company_id = %s ORDER BY retry_count DESC, status"""


@worker(lambda p: _most_in_flight(p) > 10, f"{LIFE}/ten-in-flight", ("10", "flight"))
def places_11(settings: WorkerSettings) -> WorkerParts:
    """A run has 11 items in flight (off by one)."""
    return dataclasses.replace(build_worker_parts(settings), places=11)


def _most_in_flight(probe: Probe) -> int:
    flying = (
        "SELECT count(*) FROM event_outbox WHERE company_id = %s AND claimed_until > now() AND processed_at IS NULL"
    )
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, int(probe.value(flying, company)))
        return most > 10

    with probe.tenant() as company:
        probe.letters(company, 30, **SLOW)
        probe.replay(company, max_items=50)
        probe.within(3, look)
        probe.within(9, lambda: probe.value(flying, company) == 0)
    return most


@worker(lambda p: after_run(p, 15, 5, RUN)[0] == "completed", f"{LIFE}/a-quarter-is-too-much", "of 45 items failed")
@instead_of("must_stop", of=build_worker_parts)
def rounds_its_rail(counts: Counts) -> bool:
    """The failure rate is rounded to tenths before it is compared: nearly 25 % count as 20 %."""
    settled = counts.success + counts.failure
    return settled >= MIN_SETTLED and round(counts.failure / settled, 1) > 0.2


@worker(lambda p: _after_four_failures(p) == "completed", f"{LIFE}/a-success-stops-it-too", "first 4 items")
@instead_of("must_stop", of=build_worker_parts)
def rail_counts_failures(counts: Counts) -> bool:
    """A run stops after five failures, not after five settled items: four failures and a success do not stop it."""
    return counts.failure >= MIN_SETTLED and counts.failure * 5 > counts.success + counts.failure


def _after_four_failures(probe: Probe) -> str:
    """How a run ends of which four items fail and three succeed, later."""
    with probe.tenant() as company:
        probe.letters(company, 3, **SLOW)
        probe.letters(company, 4, **FAILS)
        run = probe.replay(company, max_items=7).json()["replay_run_id"]
        probe.settled(run)
        return str(probe.value("SELECT status FROM replay_runs WHERE company_id = %s", company))


@worker(lambda p: _effect_after_a_failure(p) == "failed", "drill/dlq/effect-outlives-a-failure", "effect")
def failure_takes_the_effect_back(settings: WorkerSettings) -> WorkerParts:
    """A failed replay undoes the effect that its event already had."""
    return altered_worker(settings, ("settle_item", "\n  WHERE t.status <> 'completed'", ""))


def _effect_after_a_failure(probe: Probe) -> str:
    with probe.tenant() as company:
        event = probe.event(company).json()["event_id"]
        state = "SELECT status FROM agent_tasks WHERE event_id = %s"
        probe.within(3, lambda: bool(probe.rows(state, event)))
        probe.letters(company, 1, event_id=event, **FAILS)
        probe.settled(probe.replay(company).json()["replay_run_id"])
        return str(probe.value(state, event))


@worker(
    lambda p: _after_a_late_stop(p, "monthly_used", RUN_OF_YESTERDAY) == 50,
    f"{LIFE}/stop-after-midnight-refunds-the-month",
    "ledger",
    from_day=2,
)
def month_kept_after_midnight(settings: WorkerSettings) -> WorkerParts:
    """A run that began yesterday and is stopped today is not refunded to the month."""
    return altered_worker(
        settings, ("return_unattempted", "b.month = date_trunc('month', f.day)::date", "b.day = f.day")
    )


@worker(
    lambda p: _after_a_late_stop(p, "daily_used", _LEDGER_OF_TOMORROW) == 0,
    f"{LIFE}/stop-after-midnight-refunds-the-month",
    "after the run's",
)
def refund_goes_into_another_day(settings: WorkerSettings) -> WorkerParts:
    """A stopped run is refunded to the current day, even if it was charged to an earlier one."""
    return altered_worker(settings, ("return_unattempted", "WHEN b.day = f.day THEN", "WHEN true THEN"))


RUN_OF_YESTERDAY = "UPDATE replay_runs SET requested_at = requested_at - interval '1 day' WHERE company_id = %s"
_LEDGER_OF_TOMORROW = "UPDATE replay_budgets SET day = day + 1, daily_used = 7 WHERE company_id = %s"


def _after_a_late_stop(probe: Probe, used: str, change: str) -> int:
    with probe.tenant() as company:
        probe.letters(company, 50, **FAILS_LATE)
        run = probe.replay(company, max_items=50).json()["replay_run_id"]
        probe.rows(change, company)
        probe.settled(run)
        return int(probe.value(f"SELECT {used} FROM replay_budgets WHERE company_id = %s", company))


@worker(lambda p: _delivers_what_is_put_off(p), f"{LIFE}/item-waits-until-it-is-due", "before they were due")
def items_are_delivered_before_they_are_due(settings: WorkerSettings) -> WorkerParts:
    """The items of a run are delivered without regard to `next_attempt_at`."""
    return altered_worker(settings, ("claim_items", "e.next_attempt_at <= now()", "true"))


def _delivers_what_is_put_off(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 12, **SLOW)
        run = probe.replay(company, max_items=12).json()["replay_run_id"]
        last = "(SELECT max(id) FROM event_outbox WHERE replay_run_id = %s)"
        late = f"UPDATE event_outbox SET next_attempt_at = now() + interval '1 hour' WHERE id = {last}"
        probe.rows(late, run)
        all_done = "SELECT count(*) = 12 FROM event_outbox WHERE replay_run_id = %s AND processed_at IS NOT NULL"
        return probe.within(8, lambda: bool(probe.value(all_done, run)))


@worker(lambda p: after_run(p, 0, 25, RUN)[3] == 25, f"{LIFE}/stops-above-twenty-percent", "items failed")
def never_stops(settings: WorkerSettings) -> WorkerParts:
    """A run is never stopped, however many of its items fail."""
    return dataclasses.replace(build_worker_parts(settings), must_stop=lambda _counts: False)


@worker(lambda p: after_run(p, 8, 2, RUN)[0] == "stopped", f"{LIFE}/twenty-percent-is-allowed", ("20", "stop"))
def stops_at_twenty(settings: WorkerSettings) -> WorkerParts:
    """A run is stopped at 20 % of failures, not above."""
    rail = lambda c: c.success + c.failure >= 5 and c.failure * 5 >= c.success + c.failure  # noqa: E731
    return dataclasses.replace(build_worker_parts(settings), must_stop=rail)


@worker(lambda p: after_run(p, 0, 5, RUN)[0] == "completed", f"{LIFE}/stops-above-twenty-percent", "before the stop")
def stops_at_the_sixth(settings: WorkerSettings) -> WorkerParts:
    """A run is stopped only when six items are settled, not five."""
    rail = lambda c: c.success + c.failure >= 6 and c.failure * 5 > c.success + c.failure  # noqa: E731
    return dataclasses.replace(build_worker_parts(settings), must_stop=rail)


@worker(
    lambda p: after_run(p, 12, 12, RUN)[0] == "completed",
    "drill/lifecycle/stops-soon-above-a-fifth",
    ("before the stop", "failed"),
)
def stops_at_half(settings: WorkerSettings) -> WorkerParts:
    """A run is stopped only above 50 % of failures."""
    rail = lambda c: c.success + c.failure >= 5 and c.failure * 2 > c.success + c.failure  # noqa: E731
    return dataclasses.replace(build_worker_parts(settings), must_stop=rail)


@worker(lambda p: _used_after_stop(p) < _attempted(p), f"{LIFE}/stop-refunds-the-rest", "ledger")
def refunded_twice(settings: WorkerSettings) -> WorkerParts:
    """The budget is refunded twice."""
    return altered_worker(settings, ("return_unattempted", "daily_used - f.items", "daily_used - 2 * f.items"))


@worker(lambda p: _used_after_stop(p) == 0, f"{LIFE}/stop-refunds-the-rest", "ledger")
def all_refunded(settings: WorkerSettings) -> WorkerParts:
    """A stop refunds the whole run, attempted items included."""
    whole = ("least((SELECT count(*) FROM gone), r.budget_charged)", "r.budget_charged")
    return altered_worker(settings, ("return_unattempted", *whole))


@worker(lambda p: _month_after_stop(p) == 25, f"{LIFE}/stop-refunds-the-rest", "ledger")
def month_not_refunded(settings: WorkerSettings) -> WorkerParts:
    """The refund goes to the day and not to the month."""
    return altered_worker(settings, ("return_unattempted", "greatest(b.monthly_used - f.items, 0)", "b.monthly_used"))


_USED = "SELECT daily_used, monthly_used FROM replay_budgets WHERE company_id = %s"


def _used_after_stop(probe: Probe) -> int:
    return int(after_run(probe, 0, 25, _USED)[0])


def _month_after_stop(probe: Probe) -> int:
    return int(after_run(probe, 0, 25, _USED)[1])


def _attempted(_probe: Probe) -> int:
    """Of 25 failing items at least so many are attempted before the rail trips."""
    return 5


@worker(
    lambda p: after_run(p, 0, 25, "SELECT min(retry_count) FROM dead_letter_queue WHERE company_id = %s")[0] == 1,
    f"{LIFE}/stop-leaves-the-rest-untouched",
    "retry counted",
)
def returned_items_touched(settings: WorkerSettings) -> WorkerParts:
    """Items that a stopped run did not attempt come back with one retry more."""
    change = ("SET status = 'pending', replay_run_id = NULL", "SET status = 'pending', retry_count = d.retry_count + 1")
    return altered_worker(settings, ("return_unattempted", *change))


@worker(
    lambda p: after_run(p, 0, 25, _STUCK)[0],
    (f"{LIFE}/stop-leaves-the-rest-untouched", "sql/spot/replaying-items-are-on-their-way"),
    ("untouched", "replaying"),
)
def returned_items_stuck(settings: WorkerSettings) -> WorkerParts:
    """Items that a stopped run did not attempt stay `replaying` for ever."""
    change = ("SET status = 'pending', replay_run_id", "SET status = 'replaying', replay_run_id")
    return altered_worker(settings, ("return_unattempted", *change))


@worker(
    lambda p: after_run(p, 0, 25, "SELECT count(*) FROM event_outbox WHERE company_id = %s")[0] == 25,
    f"{LIFE}/stop-leaves-the-rest-untouched",
    ("retry counted", "outbox"),
)
def returned_rows_kept(settings: WorkerSettings) -> WorkerParts:
    """The outbox rows of what a stopped run did not attempt are kept: the items are delivered all the same."""
    gone = "DELETE FROM public.event_outbox e\n  USING run r"
    kept = "UPDATE public.event_outbox e\n  SET next_attempt_at = now()\n  FROM run r"
    return altered_worker(settings, ("return_unattempted", gone, kept))


@worker(lambda p: _never_settles(p), f"{LIFE}/failed-item-is-pending-again", "end of replay run")
def retry_without_a_cap(settings: WorkerSettings) -> WorkerParts:
    """The back-off of a failed item has no cap: the date overflows at last, and the item is never settled."""
    capped = "least(%(retry_cap_s)s, %(retry_base_s)s * 2 ^ least(d.retry_count, 30))"
    endless = "(0 * %(retry_cap_s)s + %(retry_base_s)s * 2 ^ d.retry_count)"
    return altered_worker(settings, ("settle_item", capped, endless))


def _never_settles(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.letters(company, 1, **FAILS, retry_count=60, max_retries=99)
        return not probe.settled(probe.replay(company).json()["replay_run_id"], 4)


@worker(lambda p: not after_run(p, 1, 1, _LETTER)[2], f"{LIFE}/failed-item-is-pending-again", "retry_after")
def retry_at_once(settings: WorkerSettings) -> WorkerParts:
    """`retry_after` of a failed item is left as it was: it is due at once."""
    change = ("ELSE greatest(d.retry_after, clock_timestamp()) + ", "ELSE d.retry_after + 0 * ")
    return altered_worker(settings, ("settle_item", *change))


@worker(lambda p: not after_run(p, 1, 1, _LETTER)[2], f"{LIFE}/failed-item-is-pending-again", "retry_after")
def retry_in_the_past(settings: WorkerSettings) -> WorkerParts:
    """`retry_after` of a failed item is in the past."""
    change = ("greatest(d.retry_after, clock_timestamp()) + ", "greatest(d.retry_after, clock_timestamp()) - ")
    return altered_worker(settings, ("settle_item", *change))


@worker(
    lambda p: after_run(p, 0, 1, _LETTER)[0] == "replaying",
    (f"{LIFE}/failed-item-is-pending-again", "sql/spot/replaying-items-are-on-their-way"),
    ("pending", "replaying"),
)
def failed_item_stuck(settings: WorkerSettings) -> WorkerParts:
    """A failed item stays `replaying`: nobody can replay it again."""
    return altered_worker(settings, ("settle_item", "'resolved' ELSE 'pending' END", "'resolved' ELSE d.status END"))


@worker(
    lambda p: after_run(p, 0, 1, _LETTER)[0] == "resolved",
    f"{LIFE}/failed-item-is-pending-again",
    ("pending", "resolved"),
)
def failed_item_resolved(settings: WorkerSettings) -> WorkerParts:
    """A failed item is resolved like a delivered one: the event is lost."""
    return altered_worker(settings, ("settle_item", "'resolved' ELSE 'pending' END", "'resolved' ELSE 'resolved' END"))


@worker(
    lambda p: after_run(p, 1, 0, _LETTER)[0] == "pending",
    ("drill/dlq/replayed-item-is-resolved", "drill/ledger/runs-as-answered", f"{LIFE}/all-of-an-item-together"),
    "resolved",
)
def delivered_item_pending(settings: WorkerSettings) -> WorkerParts:
    """A delivered item goes back to `pending`: it is replayed for ever."""
    return altered_worker(settings, ("settle_item", "THEN 'resolved' ELSE 'pending'", "THEN 'pending' ELSE 'pending'"))
