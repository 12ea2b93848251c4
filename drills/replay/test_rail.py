"""The rail of a run: how much of it is in flight at once, and when it stops, which leaves the rest as it was."""

from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
import pytest

from drills.workbench.bench import Bench
from drills.workbench.checks import AGENT, DELIVERS
from drills.workbench.credentials import REPLAY
from drills.workbench.database import query
from drills.workbench.scene import Scene, new_key
from drills.workbench.tenant_data import BUDGET_FLAG, POISON, PUT_OFF, altered, as_jsonb
from gates.checks.recorder import Unmet, check
from gates.deployment.requests import replay_fields, token_post

pytestmark = pytest.mark.beside_load

drill = partial(check, needs=AGENT, after=DELIVERS)

LATE_POISON = as_jsonb({"drill": {"fail_times": -1, "delay_ms": 1000}})
BATCH, STOPS = 50, "drill/lifecycle/stops-above-twenty-percent"


@pytest.mark.waits(1)
@drill(STOPS, covers=("E10", "L10"))
def test_stops_above_twenty_percent(scene: Scene) -> None:
    """A run whose items all fail is stopped after at least five and at most fourteen attempts.

    A replay into a broken agent must not burn every item's retries. Five settled items stop it, and no more than ten
    were in flight then, the fifth among them. Five fail at once and the others late: a brake that waits for more than
    five, or for a fifth of the whole batch, lets fifteen begin. A run of five is stopped, too, and keeps its answer.
    """
    scene.claims_drill_agent()
    small, key = scene.company("five", items=5, payload=POISON), scene.known(idempotency_key=new_key())
    first = scene.run(small, max=5, **key)
    row, company, *_ = _stopped_run(scene)
    attempted = row["success_count"] + row["failure_count"]
    scene.seen.value(attempted, [5, 14], "items")
    assert row["status"] == "stopped", f"a run of which {attempted} items failed is {row['status']!r}"
    assert 5 <= attempted <= 14, f"{attempted} items were attempted before the stop; allowed: 5 to 14"
    assert row["completed_at"] is not None, "the run that was stopped has no completed_at"
    target = row["target_count"]
    assert target == BATCH, f"the run that was stopped says that its target was {target}; it took {BATCH} items"
    if scene.claims("audit"):
        rows = scene.audit(company, "dlq_replay_stopped", "dlq_replay_completed", "dlq_replay")
        stops = sorted(r["action"] for r in rows)
        assert stops == ["dlq_replay", "dlq_replay_stopped"], (
            f"when its row says stopped, the end of a run is audited as {stops}"
        )
        for said in rows:  # counted at the stop, or when what was in flight then had settled
            counts = (said["target_count"], said["success_count"], said["failure_count"])
            fits = counts[:2] == (row["target_count"], 0) and 5 <= counts[2] <= row["failure_count"]
            assert fits, f"the end of a stopped run, {said['action']}, counts {counts}; the run says {row}"
    status = scene.ended(str(first["replay_run_id"]))["status"]
    assert status == "stopped", f"a run of five items, which all fail, is {status!r}"
    if key and scene.claims("idempotency"):
        again = scene.replay(small, label="asked for again", max=5, **key).json()
        differs = sorted(n for n in ("replay_run_id", "status", "items") if again.get(n) != first.get(n))
        assert not differs, f"the duplicate of a run that was stopped differs from its first answer in {differs}"
    scene.seen.count(attempted)


@pytest.mark.waits(1)
@drill("drill/lifecycle/stop-leaves-the-rest-untouched", covers=("E10", "L11"))
def test_stop_leaves_the_rest_untouched(scene: Scene) -> None:
    """When a run is stopped, its unattempted items are pending as before and have no open outbox rows, with or without
    a key, due or forced before their time. Another tenant's letter of the event is left; replays go on.

    A stop that uses up the rest of the batch does more harm than none.
    """
    beside = scene.company("beside")
    row, company, run, found = _stopped_run(scene, beside=beside)
    scene.seen.require(row["status"] == "stopped", f"the run is {row['status']!r}")
    attempted = row["success_count"] + row["failure_count"]
    items = scene.items(company)
    states = {str(r["status"]) for r in items}
    assert states == {"pending"}, f"after the stop the items are {sorted(states)}"
    untouched = [r for r in items if r["retry_count"] == 0]
    assert len(untouched) == BATCH - attempted, (
        f"{attempted} items were attempted, {BATCH - len(untouched)} have a retry counted"
    )
    was = {r["id"]: r for r in found}
    words = ("error_type", "error_message", "retry_after")
    each = (altered(was[r["id"]], r) | {w for w in words if was[r["id"]][w] != r[w]} for r in untouched)
    changed = sorted(set().union(*each))
    assert not changed, f"of items that were not attempted {changed} changed"
    left = scene.unfinished(run)
    assert left == 0, f"{left} outbox rows of the stopped run wait for delivery"
    kept = scene.count("event_outbox", company, "replay_run_id = %s", run) - attempted
    assert kept <= 0, f"{kept} outbox rows of items that were not attempted are still there"
    assert all(r["status"] == "discarded" for r in scene.items(beside)), "another tenant's letter was given back, too"
    scene.replay(company, label="a replay after a stop", dry_run=True)
    scene.seen.count(len(untouched))


@pytest.mark.waits(1)
@drill("drill/lifecycle/stop-refunds-the-rest", covers=("G03", "E10"))
def test_stop_refunds_the_rest(scene: Scene) -> None:
    """When a run is stopped, and when the tenant's next one is, the budget is charged for the attempted items only,
    once, and keeps its limits.

    Without the refund the tenant is locked out; with a second one it can spend more than its budget.
    """
    row, company, *_ = _stopped_run(scene)
    limits = scene.limits(company)
    rows = [row, _at_rest(scene, str(scene.run(company, max=BATCH)["replay_run_id"]))]
    scene.seen.require(all(r["status"] == "stopped" for r in rows), "a run that fails was not stopped")
    attempted = sum(r["success_count"] + r["failure_count"] for r in rows)
    scene.seen.value(list(scene.used(company)), [attempted + 7, attempted + 7], "items")
    scene.charged(company, attempted + 7, "the ledger, with the 7 used before")
    assert scene.limits(company) == limits, f"a stop changed the limits {limits} to {scene.limits(company)}"
    scene.seen.count(2)


@pytest.mark.waits(2)
@drill("drill/lifecycle/stop-after-midnight-refunds-the-month", covers=("G03", "G05", "E10"))
def test_stop_after_midnight_refunds_the_month(scene: Scene) -> None:
    """A run that began yesterday and is stopped today refunds the month for its unattempted items. One that is stopped
    in the next month changes neither what others used on that day nor what they used in that month.

    A tenant that replays around midnight pays for unattempted items until the month ends, or gets its budget twice.
    """
    scene.claims_drill_agent()
    company, other = (scene.company(n, items=BATCH, payload=LATE_POISON, max_retries=9) for n in "ab")
    for tenant in (company, other):
        scene.budget(tenant, daily_used=7, monthly_used=7)
    run, ahead = (str(scene.run(tenant, max=BATCH)["replay_run_id"]) for tenant in (company, other))
    # a run of yesterday with a budget row of today; on the first of a month the run is left as it is
    yesterday = "requested_at - interval '1 day'"
    same_month = (
        f"date_trunc('month', ({yesterday}) at time zone 'UTC') = date_trunc('month', now() at time zone 'UTC')"
    )
    scene.rows(f"update public.replay_runs set requested_at = {yesterday} where id = %s and {same_month}", run)
    # a run of today with a budget row of next month's first day, which has usage of its own
    at = "(date_trunc('month', now() at time zone 'UTC') + interval '1 month')::date"
    moved = f"day = {at}, month = {at}, daily_used = 7, monthly_used = 7"
    scene.rows(f"update public.replay_budgets set {moved} where company_id = %s", other)
    for one in (ahead, run):
        row = _at_rest(scene, one)
        scene.seen.require(row["status"] == "stopped", f"the run is {row['status']!r}")
    used, due = scene.used(company)[1], row["success_count"] + row["failure_count"] + 7
    scene.seen.value(used, due, "items")
    assert used == due, f"the ledger says {used} for the month; due: {due}, what was attempted and 7 before"
    kept = "select daily_used, monthly_used from public.replay_budgets where company_id = %s"
    for row in scene.rows(f"{kept} and day = {at} and month = {at}", other):  # none if it was set to the present day
        later = (row["daily_used"], row["monthly_used"])
        assert min(later) >= 7, f"the ledger says {later} for the day and month after the run's; 7 were used in each"
    scene.seen.count(3)


@pytest.mark.waits(2)
@drill("drill/lifecycle/stop-refunds-only-what-was-charged", covers=("G03", "E10"))
def test_stop_refunds_only_what_was_charged(scene: Scene) -> None:
    """A stopped run refunds what it was charged: nothing if it began without budget control, and the whole rest if
    control was switched off later, another replay was charged at the same moment, or the limits were lowered.

    A failing run without budget control would earn budget; one that loses control for an hour would lose its refund.
    """
    scene.claims_drill_agent()
    charged = scene.company("charged", items=BATCH, payload=LATE_POISON, max_retries=9)
    scene.budget(charged, daily_used=7, monthly_used=7)
    company = scene.company(items=BATCH, payload=POISON, max_retries=9)
    scene.budget(company, daily_used=60, monthly_used=60)
    scene.set_flag(company, BUDGET_FLAG, enabled=False)
    later = str(scene.run(charged, max=BATCH)["replay_run_id"])
    with scene.locked("replay_budgets", charged) as held:
        more = "update public.replay_budgets set daily_used = daily_used + 3, monthly_used = monthly_used + 3"
        for change in (more, "update public.replay_budgets set daily_limit = 9, monthly_limit = 9"):
            held.execute(f"{change} where company_id = %s".encode(), (charged,))
        scene.set_flag(charged, BUDGET_FLAG, enabled=False)
        run = str(scene.run(company, max=BATCH)["replay_run_id"])
        scene.somebody_waits(held, within_s=20)
        held.commit()
    row, used = _at_rest(scene, run), scene.used(company)
    scene.seen.require(row["status"] == "stopped", f"the run is {row['status']!r}")
    assert min(used) >= 60, f"the ledger says {used} after a run that was not charged; 60 were used before"
    row = _at_rest(scene, later)
    scene.seen.require(row["status"] == "stopped", f"the run that was charged is {row['status']!r}")
    due = row["success_count"] + row["failure_count"] + 10
    scene.charged(charged, due, "the ledger, with the 10 charged before")
    scene.seen.count(4)


@pytest.mark.waits(4)
@pytest.mark.rewrites
@drill("drill/lifecycle/stop-is-of-one-run", covers=("E10",))
def test_stop_is_of_one_run(scene: Scene) -> None:
    """A run whose items succeed is completed, also where another run, of another tenant or of its own, was stopped
    meanwhile.

    One customer's broken partner would end everybody's recovery, and one bad batch what else is under way.
    """
    scene.claims_drill_agent()
    companies = [scene.company(n, items=2, payload=as_jsonb({"drill": {"delay_ms": 5000}})) for n in "ab"]
    for company in companies:  # the second item waits, and is not attempted, while the first is in flight
        scene.rows("update public.dead_letter_queue set aggregate_key = 'k' where company_id = %s", company)
    runs = [str(scene.run(company, max=2)["replay_run_id"]) for company in companies]
    # a worker that takes one item at a time would be done with both before the other run begins
    scene.rows(f"{PUT_OFF} where replay_run_id::text = any(%s) and claimed_until is null", runs)
    try:
        stopped, *_ = _stopped_run(scene, companies[0])
    except AssertionError as error:
        scene.seen.unmet(f"a tenant's next run does not end beside one that waits: {error}", by=STOPS)
    scene.seen.require(stopped["status"] == "stopped", f"the run that fails is {stopped['status']!r}")
    for company, run in zip(companies, runs, strict=True):
        row = scene.one(query("run"), run)
        assert row["status"] != "stopped", "the other run is stopped with items on their way; due: started"
        scene.seen.require(row["status"] == "started", f"the other run is {row['status']!r} already: nothing shows")
        assert scene.unfinished(run), f"the other run is {row['status']!r}, and none of its items is on its way"
        scene.make_due(company)
    for company, run in zip(companies, runs, strict=True):
        counts = tuple(map(scene.ended(run, within_s=15).get, ("status", "success_count")))
        assert counts == ("completed", 2), f"the other run, whose 2 items succeed, is {counts}; due: completed"
        done = scene.count("dead_letter_queue", company, "status = 'resolved'")
        assert done == 2, f"{done} letters of the other run, whose 2 items succeed, are resolved"
    scene.seen.count(4)


def _stopped_run(scene: Scene, of: str = "", beside: str = "") -> tuple[dict[str, Any], str, str, list[dict[str, Any]]]:
    """A run of fifty items that all fail, five at once and the others late, at its end; and the items before it. About
    half of them have an aggregate key, each its own; the others are put off, and forced, where that can be.
    """
    scene.claims_drill_agent()
    company = of or scene.company()
    scene.add_items(company, 5, payload=POISON, max_retries=9)
    scene.add_last(company, LATE_POISON, BATCH - 5)
    scene.rows(
        "update public.dead_letter_queue set retry_after = now() - interval '1 minute',"
        " aggregate_key = case when hashtext(id::text) & 1 = 0 then id::text end where company_id = %s",
        company,
    )
    forced = scene.known(force=True)
    if forced:
        put_off = "update public.dead_letter_queue set retry_after = now() + interval '1 hour'"
        scene.rows(f"{put_off} where company_id = %s and aggregate_key is null", company)
    scene.budget(company, daily_used=7, monthly_used=7)
    found = scene.items(company)
    if beside:
        with suppress(psycopg.IntegrityError):  # then no two tenants can have one event
            scene.add_items(beside, 1, event_id=found[-1]["event_id"], status="discarded")
    run = str(scene.run(company, max=BATCH, **forced)["replay_run_id"])
    return _at_rest(scene, run), company, run, found


def _at_rest(scene: Scene, run: str) -> dict[str, Any]:
    """The row of a run that has ended, with nothing of it under way any more."""
    scene.ended(run, within_s=10)
    scene.until(lambda: scene.unfinished(run) == 0, "the end of the run's open deliveries")
    return scene.one(query("run"), run)


@pytest.mark.waits(0.5)
@drill("drill/lifecycle/twenty-percent-is-allowed", covers=("E10",))
def test_twenty_percent_is_allowed(scene: Scene) -> None:
    """A run of which exactly a fifth fails is completed, not stopped.

    A brake that is too strict leaves the operator with half a recovery.
    """
    scene.claims_drill_agent()
    company = scene.company(items=16)
    scene.add_last(company, as_jsonb({"drill": {"fail_times": -1, "delay_ms": 1500}}), 4)
    run = str(scene.run(company, max=20)["replay_run_id"])
    row = scene.ended(run, within_s=10)
    counts = (row["status"], row["success_count"], row["failure_count"])
    early = row["status"] == "stopped" and 4 * row["failure_count"] > row["success_count"]
    scene.seen.require(not early, f"items that fail late overtook those that succeed at once: {counts}")
    assert counts == ("completed", 16, 4), f"a run of which 4 of 20 items fail is {counts}"
    scene.seen.count(20)


@pytest.mark.waits(1)
@drill("drill/lifecycle/stops-soon-above-a-fifth", covers=("E10",))
def test_stops_soon_above_a_fifth(scene: Scene, bench: Bench) -> None:
    """A run that begins well and then fails is stopped as soon as more than a fifth of what it settled has failed.

    A brake that waits for half burns retries that a fifth would have saved. Of 16 that succeed and 24 that fail, six at
    once and the others late, the fifth failure stops it in whatever order they settle, and nine more were in flight at
    most; where the sixth does not, sixteen fail. An administrator's token started it, where there is one, and its end
    is on record and its rest given back as a signed run's.
    """
    scene.claims_drill_agent()
    company = scene.company(items=16)
    scene.budget(company, daily_used=7, monthly_used=7)
    scene.add_last(company, POISON, 6)
    scene.add_last(company, LATE_POISON, 18)
    asked = scene.replay_request(company, max=40)
    with suppress(Unmet):
        asked = token_post(REPLAY, replay_fields(company, max=40), bench.admin(company), "a replay by a token")
    row = _at_rest(scene, str(scene.expect(asked, 200, control=True).json()["replay_run_id"]))
    scene.seen.value(row["failure_count"], 14, "failed items")
    assert row["status"] == "stopped", f"a run of which {row['failure_count']} items failed is {row['status']!r}"
    assert row["failure_count"] <= 14, f"{row['failure_count']} items failed before the stop; allowed: 14"
    settled = row["success_count"] + row["failure_count"]
    scene.charged(company, settled + 7, "after the stop the ledger, with the 7 used before")
    if scene.claims("audit"):
        ends = sorted(str(r["action"]) for r in scene.audit(company, "dlq_replay_stopped", "dlq_replay"))
        assert ends == ["dlq_replay", "dlq_replay_stopped"], f"the end of the stopped run is audited as {ends}"
    scene.seen.count(row["success_count"] + row["failure_count"])


@pytest.mark.waits(2)
@drill("drill/lifecycle/a-quarter-is-too-much", covers=("E10",))
def test_a_quarter_is_too_much(scene: Scene) -> None:
    """A run is stopped when nearly a quarter of its settled items have failed, or five of 24: the limit is 20 %, and
    nothing is rounded.

    Of 34 items that succeed and 11 that fail the ninth failure stops a run at the latest, in whatever order they end.
    Another run is judged where 19 successes and five failures settle before 21 late successes, as they began.
    """
    scene.claims_drill_agent()
    fails = as_jsonb({"drill": {"fail_times": -1, "delay_ms": 300}})
    quarter, fifth = scene.company(items=34), scene.company(items=19)
    scene.add_last(quarter, fails, 11)
    scene.add_last(fifth, fails, 5)
    scene.add_last(fifth, as_jsonb({"drill": {"delay_ms": 2000}}), 21)
    runs = [str(scene.run(company, max=45)["replay_run_id"]) for company in (quarter, fifth)]
    of_run = "from public.event_outbox where replay_run_id = %s"
    before = f"select count(*) {of_run} and processed_at <= (select max(dead_at) {of_run})"
    for run in runs:
        row = scene.ended(run, within_s=15)
        failed = row["failure_count"]
        if run == runs[0] or scene.number(before, run, run) <= 19:
            assert row["status"] == "stopped", f"a run of which {failed} of 45 items failed is {row['status']!r}"
            scene.seen.count(row["success_count"] + failed)


@pytest.mark.waits(1)
@drill("drill/lifecycle/a-success-stops-it-too", covers=("E10",))
def test_a_success_stops_it_too(scene: Scene) -> None:
    """A run whose first four items fail is stopped when the fifth is settled, even if that one succeeds; items in
    flight at that moment are counted by their own outcome.

    A brake that looks at failures alone lets a run go on of which four fifths have failed. Named items are refunded.
    """
    scene.claims_drill_agent()
    company = scene.company(items=4, payload=POISON, max_retries=9)
    scene.add_last(company, as_jsonb({"drill": {"delay_ms": 1000}}), 16)
    named = scene.known(dlq_ids=[str(r["id"]) for r in scene.items(company)], error_type="drill")
    run = str(scene.run(company, max=20, **named)["replay_run_id"])
    row, done = _at_rest(scene, run), scene.count("dead_letter_queue", company, "status = 'resolved'")
    settled = row["success_count"] + row["failure_count"]
    assert row["success_count"] == done, f"the stopped run counts {row['success_count']} successes; {done} are resolved"
    assert row["status"] == "stopped", f"a run of which the first 4 items failed, and no other, is {row['status']!r}"
    assert settled <= 14, f"{settled} items were settled before the stop; allowed: 14"
    scene.charged(company, settled, "after the stop of a run of named items the ledger")
    scene.seen.count(settled)


@drill("drill/lifecycle/four-failures-do-not-stop", covers=("E10",))
def test_four_failures_do_not_stop(scene: Scene) -> None:
    """A run of four items that all fail is not stopped (completed or failed, both are allowed): fewer than five are
    settled. Nor is the tenant's next one: each run is judged by its own items. The end of each is audited.

    Small replays, the most common ones, could never be tried, or not tried again.
    """
    scene.claims_drill_agent()
    company = scene.company(items=4, payload=POISON, max_retries=9)
    for which in ("first", "second"):
        run = str(scene.run(company, max=4)["replay_run_id"])
        row = scene.ended(run)
        counts = (row["status"], row["success_count"], row["failure_count"])
        assert counts in {("completed", 0, 4), ("failed", 0, 4)}, f"the {which} run of four failing items is {counts}"
        scene.add_last(company, POISON, 4)
    if scene.claims("audit"):
        rows = scene.audit(company, "dlq_replay_completed", "dlq_replay_stopped", "dlq_replay")
        ends = sorted((r["action"] == "dlq_replay", r["failure_count"]) for r in rows)
        assert ends == [(False, 4)] * 2 + [(True, 4)] * 2, f"the ends of two runs are {len(rows)} audit rows: {rows}"
    scene.seen.count(8)
