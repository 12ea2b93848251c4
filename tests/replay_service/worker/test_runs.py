"""Replay runs: how items settle, the 20 % rail with its refund, and the one end of a run."""

import pytest

from replay_service.worker.rail import Counts, must_stop
from tests.replay_service.worker.harness import Bench, Workers
from tests.waiting import until

ENDS = (
    "SELECT action, actor, target_count, success_count, failure_count, request_id"
    " FROM audit_logs WHERE scope = %s ORDER BY id"
)


@pytest.mark.parametrize(
    ("success", "failure", "stops"),
    [(0, 4, False), (4, 1, False), (3, 2, True), (0, 5, True), (40, 10, False), (40, 11, True), (5, 0, False)],
)
def test_the_rail_trips_above_20_percent_of_5(success: int, failure: int, stops: bool) -> None:
    """More than 20 % of at least 5 settled items."""
    assert must_stop(Counts(success, failure)) is stops


def ended(bench: Bench, run: str) -> bool:
    return bool(bench.run_status(run)[0] != "started")


def test_a_run_of_successes_completes(bench: Bench, workers: Workers) -> None:
    """All items resolved, two audit rows, each once, in the transaction that ended the run; the charge stays."""
    company = bench.company()
    run = bench.start_run(company, [{"fail_times": 0}] * 25)
    workers.start()
    workers.start()
    until(lambda: ended(bench, run))
    assert bench.run_status(run) == ("completed", 25, 0)
    assert bench.all("SELECT DISTINCT status, retry_count FROM dead_letter_queue") == [("resolved", 0)]
    assert bench.all(ENDS, company) == [
        ("dlq_replay_completed", "tester", 25, 25, 0, "req-1"),
        ("dlq_replay", "tester", 25, 25, 0, "req-1"),
    ]
    assert bench.one("SELECT count(DISTINCT xmin::text) FROM audit_logs") == 1
    assert bench.one("SELECT xmin::text FROM replay_runs") == bench.one("SELECT DISTINCT txid::text FROM audit_logs")
    assert bench.one("SELECT daily_used FROM replay_budgets") == 25


def test_a_failed_item_waits_again(bench: Bench, workers: Workers) -> None:
    """One attempt: the dead letter is pending with one more retry and a later retry_after."""
    company = bench.company()
    run = bench.start_run(company, [{"fail_times": -1}, {"fail_times": 0}])
    workers.start()
    until(lambda: ended(bench, run))
    assert bench.run_status(run) == ("completed", 1, 1)
    letters = bench.all(
        "SELECT status, retry_count, retry_after > now() + interval '10 s' FROM dead_letter_queue ORDER BY 1"
    )
    assert letters == [("pending", 1, True), ("resolved", 0, False)]
    assert bench.all("SELECT attempts, dead_at IS NOT NULL FROM event_outbox ORDER BY 2") == [(1, False), (1, True)]


def test_a_scripted_event_counts_its_failures_over_replays(bench: Bench, workers: Workers) -> None:
    """fail_times 1: the first replay fails, the second succeeds."""
    company = bench.company()
    first = bench.start_run(company, [{"fail_times": 1}])
    workers.start()
    until(lambda: ended(bench, first))
    bench.conn.execute("UPDATE dead_letter_queue SET status = 'replaying'")
    second = bench.one("INSERT INTO replay_runs (company_id, target_count) VALUES (%s, 1) RETURNING id::text", company)
    bench.conn.execute(
        "INSERT INTO event_outbox (event_id, company_id, event_type, payload, replay_run_id, dlq_id)"
        " SELECT event_id, company_id, event_type, payload, %s, id FROM dead_letter_queue",
        (second,),
    )
    until(lambda: ended(bench, second))
    assert bench.run_status(first)[1:] == (0, 1)
    assert bench.run_status(second)[1:] == (1, 0)
    assert bench.one("SELECT status FROM dead_letter_queue") == "resolved"


def test_the_rail_stops_a_run_and_refunds_the_rest(bench: Bench, workers: Workers) -> None:
    """Unattempted items go back untouched and refunded, their outbox rows gone; one end, one summary."""
    company = bench.company()
    run = bench.start_run(company, [{"fail_times": -1}] * 50)
    before = set(bench.all("SELECT id, retry_count, retry_after, created_at FROM dead_letter_queue"))
    workers.start()
    workers.start()
    until(lambda: ended(bench, run))
    status, success, failure = bench.run_status(run)
    assert (status, success) == ("stopped", 0)
    assert 5 <= failure <= 15
    returned = 50 - failure
    untouched = set(
        bench.all("SELECT id, retry_count, retry_after, created_at FROM dead_letter_queue WHERE retry_count = 0")
    )
    assert untouched < before
    assert len(untouched) == returned
    assert bench.all("SELECT DISTINCT status FROM dead_letter_queue") == ["pending"]
    assert bench.one("SELECT count(*) FROM event_outbox") == failure
    assert bench.one("SELECT daily_used, monthly_used FROM replay_budgets") == (failure, failure)
    assert bench.all(ENDS, company) == [
        ("dlq_replay_stopped", "tester", 50, 0, failure, "req-1"),
        ("dlq_replay", "tester", 50, 0, failure, "req-1"),
    ]


def test_a_refund_hits_its_own_period_and_never_goes_below_zero(bench: Bench, workers: Workers) -> None:
    """A day that has passed is not refunded; the month is, and only down to 0."""
    company = bench.company()
    run = bench.start_run(company, [{"fail_times": -1}] * 30)
    bench.conn.execute("UPDATE replay_budgets SET day = day + 1, daily_used = 7, monthly_used = 3")
    workers.start()
    until(lambda: ended(bench, run))
    assert bench.run_status(run)[0] == "stopped"
    assert bench.one("SELECT daily_used, monthly_used FROM replay_budgets") == (7, 0)


def test_an_uncharged_run_refunds_nothing(bench: Bench, workers: Workers) -> None:
    """Where budget control was off nothing was charged, and nothing is given back."""
    company = bench.company()
    bench.conn.execute(
        "INSERT INTO replay_budgets (company_id, daily_used, monthly_used) VALUES (%s, 9, 9)", (company,)
    )
    run = bench.start_run(company, [{"fail_times": -1}] * 30, charged=False)
    workers.start()
    until(lambda: ended(bench, run))
    assert bench.one("SELECT daily_used, monthly_used FROM replay_budgets") == (9, 9)


def test_at_most_10_items_of_a_run_are_in_flight(bench: Bench, workers: Workers) -> None:
    """Never more, with two workers and delays, and another run of the tenant goes on beside it."""
    company = bench.company()
    slow = bench.start_run(company, [{"fail_times": 0, "delay_ms": 150}] * 30)
    quick = bench.start_run(company, [{"fail_times": 0}] * 5)
    workers.start()
    workers.start()
    seen: list[int] = []
    in_flight = (
        "SELECT count(*) FROM event_outbox WHERE replay_run_id = %s AND claimed_until > now() AND processed_at IS NULL"
    )

    def watch() -> bool:
        seen.append(bench.one(in_flight, slow))
        return ended(bench, slow)

    until(watch)
    assert max(seen) <= 10
    assert bench.run_status(quick)[0] == "completed"
    assert bench.run_status(slow) == ("completed", 30, 0)


def test_a_paused_run_waits(bench: Bench, workers: Workers) -> None:
    """Items of a paused tenant are held; the run ends once the pause does."""
    company = bench.company()
    bench.conn.execute("INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, true)", (company,))
    run = bench.start_run(company, [{"fail_times": 0}] * 3)
    workers.start()
    probe = bench.emit(bench.company())
    until(lambda: bench.one("SELECT processed_at FROM event_outbox WHERE event_id = %s", probe))
    assert bench.run_status(run) == ("started", 0, 0)
    bench.conn.execute("UPDATE agent_controls SET agents_paused = false")
    until(lambda: ended(bench, run))


def test_killed_workers_leave_no_run_stuck(bench: Bench, workers: Workers) -> None:
    """SIGKILL in the middle of runs: each run ends once, every item has one effect or one more retry."""
    company = bench.company()
    runs = [bench.start_run(company, [{"fail_times": 0, "delay_ms": 40}] * 20) for _ in range(3)]
    environment = {"WORKER_LEASE_S": "1"}
    for _ in range(3):
        workers.kill(workers.start(**environment))
    workers.start(**environment)
    workers.start(**environment)
    for run in runs:
        until(lambda run=run: ended(bench, run), 20.0)  # type: ignore[misc]
        assert bench.run_status(run) == ("completed", 20, 0)
    assert bench.one("SELECT count(*), count(DISTINCT event_id) FROM agent_tasks WHERE status = 'completed'") == (
        60,
        60,
    )
    assert sorted(bench.all("SELECT action FROM audit_logs")) == ["dlq_replay"] * 3 + ["dlq_replay_completed"] * 3


def test_an_item_whose_run_is_gone_is_delivered_as_an_event(bench: Bench, workers: Workers, any_uuid: str) -> None:
    """A row of a run that does not exist neither waits for ever nor blocks its key."""
    company = bench.company()
    bench.emit(company, key="k", replay_run_id=any_uuid)
    bench.emit(company, key="k")
    workers.start()
    until(bench.settled)
