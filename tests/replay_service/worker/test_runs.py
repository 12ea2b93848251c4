"""Replay runs, where no drill shows it: replays of one item, refunds of another period."""

from tests.replay_service.worker.harness import Bench, Workers
from tests.waiting import until


def ended(bench: Bench, run: str) -> bool:
    return bool(bench.run_status(run)[0] != "started")


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


def test_a_refund_hits_its_own_period_and_never_goes_below_zero(bench: Bench, workers: Workers) -> None:
    """A day that has passed is not refunded; the month is, and only down to 0."""
    company = bench.company()
    run = bench.start_run(company, [{"fail_times": -1}] * 30)
    bench.conn.execute("UPDATE replay_budgets SET day = day + 1, daily_used = 7, monthly_used = 3")
    workers.start()
    until(lambda: ended(bench, run))
    assert bench.run_status(run)[0] == "stopped"
    assert bench.one("SELECT daily_used, monthly_used FROM replay_budgets") == (7, 0)


def test_an_item_whose_run_is_gone_is_delivered_as_an_event(bench: Bench, workers: Workers, any_uuid: str) -> None:
    """A row of a run that does not exist neither waits for ever nor blocks its key."""
    company = bench.company()
    bench.emit(company, key="k", replay_run_id=any_uuid)
    bench.emit(company, key="k")
    workers.start()
    until(bench.settled)
