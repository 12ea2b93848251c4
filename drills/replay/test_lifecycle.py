"""The life of a replayed item and of its run: one attempt, an end that adds up, and a brake that works."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from drills.workbench.checks import AGENT, DELIVERS, SIGNED, SQL
from drills.workbench.database import query
from drills.workbench.scene import Scene
from drills.workbench.tenant_data import as_jsonb
from gates.checks.recorder import check
from gates.deployment.ids import new_id

drill = partial(check, needs=AGENT, after=DELIVERS)

POISON = as_jsonb({"drill": {"fail_times": -1}})
LATE_POISON = as_jsonb({"drill": {"fail_times": -1, "delay_ms": 1000}})
BATCH = 50


def _unfinished(scene: Scene, run: str) -> int:
    return scene.number(query("unfinished"), run)


@drill("drill/lifecycle/failed-item-is-pending-again", covers=("L06", "L01"))
def test_failed_item_is_pending_again(scene: Scene) -> None:
    """An item whose replay fails is the same row, pending again, with retry_count one higher and a later retry_after.

    A second row is a second replay; a count that stands still is a replay without end. What was put off until tomorrow
    and fails by force is put off further.
    """
    scene.claims_drill_agent()
    company = scene.company()
    tomorrow = scene.value("select now() + interval '1 day'")
    scene.tenants.add_items(company, 1, payload=POISON, retry_count=1, max_retries=9, retry_after=tomorrow)
    before = scene.items(company)[0]
    run = str(scene.run(company, max=1, force=True)["replay_run_id"])
    row = scene.ended(run)
    items = scene.items(company)
    assert len(items) == 1, f"a failed replay left {len(items)} rows of one item"
    after = items[0]
    assert after["id"] == before["id"], "the failed item is a new row; due: the same row, tried once more"
    assert after["status"] == "pending", f"the failed item is {after['status']!r}"
    assert after["retry_count"] == 2, f"retry_count went from 1 to {after['retry_count']}; due: 2"
    later = after["retry_after"] > before["retry_after"]
    assert later, f"retry_after went from {before['retry_after']} to {after['retry_after']}"
    assert (row["success_count"], row["failure_count"]) == (0, 1), f"the run counts {row['success_count']} successes"
    scene.seen.count(5)


@drill("drill/lifecycle/items-of-a-key-in-order", needs=SQL, covers=("K11", "E15"))
def test_items_of_a_key_in_order(scene: Scene) -> None:
    """Replayed items of one aggregate key are delivered oldest first, whatever their ids are.

    A replay that cancels before it creates makes of one incident another.
    """
    company = scene.company()
    drawn = sorted((new_id("item") for _ in range(6)), reverse=True)  # the oldest has the highest id
    scene.tenants.add_rows(company, [{"id": i, "event_id": new_id("event"), "aggregate_key": "k"} for i in drawn])
    events = [str(r["event_id"]) for r in scene.items(company)]
    scene.ended(str(scene.run(company, max=6)["replay_run_id"]))
    rows = scene.rows(
        "select event_id::text as event from public.event_outbox where company_id = %s order by id", company
    )
    assert [str(r["event"]) for r in rows] == events, "the outbox rows of a replay are not in the order of their items"
    scene.in_order(events)
    scene.seen.control("all items were delivered")


@drill("drill/lifecycle/one-attempt", covers=("L06", "E05"))
def test_one_attempt(scene: Scene) -> None:
    """A replayed item has one attempt: it is not tried again by the outbox, and leaves nothing open there.

    A replay that retries by itself spends a budget that nobody granted.
    """
    scene.claims_drill_agent()
    company, other = scene.company("a"), scene.company("b")
    # a second attempt would succeed
    scene.tenants.add_items(company, 1, event_id=new_id("event"), payload=as_jsonb({"drill": {"fail_times": 1}}))
    event = str(scene.items(company)[0]["event_id"])
    run = str(scene.run(company, max=1)["replay_run_id"])
    scene.ended(run)
    scene.make_due(company)
    scene.passes_by(other, 2)
    assert not scene.effects([event]), "the replayed item was tried a second time by the outbox"
    assert _unfinished(scene, run) == 0, "the run has ended and left an open outbox row"
    assert scene.items(company)[0]["status"] == "pending", f"the item is {scene.items(company)[0]['status']!r}"
    scene.seen.count(2)
    scene.rows("update public.dead_letter_queue set retry_after = now() where company_id = %s", company)
    again = str(scene.run(company, max=1)["replay_run_id"])
    scene.ended(again)


@drill("drill/lifecycle/event-id-is-stable", covers=("L09", "K06"))
def test_event_id_is_stable(scene: Scene) -> None:
    """An item that came without event id keeps the one that its first replay gave it.

    A new id for each replay lets the agent do it twice.
    """
    scene.claims_drill_agent()
    company = scene.company()
    scene.rows(
        "insert into public.dead_letter_queue (company_id, event_type, payload, error_type, max_retries)"
        " values (%s, 'drill.foreign', %s, 'foreign', 9)",
        company,
        as_jsonb({"drill": {"fail_times": 1}}),
    )
    first = _events_of_a_replay(scene, company)
    scene.rows("update public.dead_letter_queue set retry_after = now() where company_id = %s", company)
    second = _events_of_a_replay(scene, company)
    assert len(first) == 1, f"the first replay has the event ids {first}"
    assert first == second, f"the replays of one item have the event ids {first} and {second}"
    scene.seen.count(2)


def _events_of_a_replay(scene: Scene, company: str) -> list[str]:
    answer = scene.run(company, max=1)
    run = str(answer["replay_run_id"])
    rows = [str(r["event"]) for r in scene.outbox(company) if str(r["replay_run_id"]) == run]
    scene.ended(run)
    item = scene.items(company)[0]["event_id"]
    return rows or ([str(item)] if item else [])


@drill("drill/lifecycle/run-counts-add-up", covers=("L10",))
def test_run_counts_add_up(scene: Scene) -> None:
    """When a run has ended, its successes and failures are its target, and the endpoint says what the row says.

    A silent partial success is a success on paper.
    """
    scene.claims_drill_agent()
    company = scene.company(items=9)
    # the one that fails is the last by order and by time, so that the run is never over 20 % before its end
    _add_last(scene, company, as_jsonb({"drill": {"fail_times": -1, "delay_ms": 400}}))
    run = str(scene.run(company, max=10)["replay_run_id"])
    row = scene.ended(run)
    counts = {name: row[name] for name in ("status", "target_count", "success_count", "failure_count")}
    due = {"status": "completed", "target_count": 10, "success_count": 9, "failure_count": 1}
    assert counts == due, f"the run's row says {counts}; of its 10 items 9 succeed, and due is {due}"
    request, answer = scene.get_run(run)
    shown = scene.seen.expect(request, answer, 200).json()
    assert shown.get("status") == row["status"], f"the endpoint shows {shown.get('status')!r}; the row says {counts}"
    # the contract names no members for the counts: a name of the row's must have its value, else the value is there
    numbers = _numbers(shown)
    names = ("target_count", "success_count", "failure_count")
    wrong = {k: shown.get(k) for k in names if (shown[k] != row[k] if k in shown else row[k] not in numbers)}
    assert not wrong, f"the endpoint shows {wrong}; the row says {counts}"
    assert row["completed_at"] is not None, "the run that ended has no completed_at"
    if scene.claims("audit"):
        ends = scene.audit(company, "dlq_replay")
        summaries = [(r["target_count"], r["success_count"], r["failure_count"]) for r in ends]
        assert summaries == [(10, 9, 1)], (
            f"the audit's summary says (target_count, success_count, failure_count) {summaries}; the row says {counts}"
        )
    scene.seen.count(4)


def _numbers(shown: Any) -> set[int]:
    """All whole numbers in an answer, however deep."""
    if isinstance(shown, Mapping):
        return _numbers(list(shown.values()))
    if isinstance(shown, list):
        return {n for part in shown for n in _numbers(part)}
    return {shown} if isinstance(shown, int) and not isinstance(shown, bool) else set()


def _add_last(scene: Scene, company: str, payload: str, count: int = 1) -> None:
    """Items that are claimed after all others of the tenant."""
    scene.rows(
        "insert into public.dead_letter_queue (company_id, event_id, event_type, payload, error_type, created_at)"
        " select %s, gen_random_uuid(), 'drill.item', %s, 'drill', now() - interval '1 minute'"
        " from generate_series(1, %s)",
        company,
        payload,
        count,
    )


@pytest.mark.waits(1)
@drill("drill/lifecycle/stops-above-twenty-percent", covers=("E10", "L10"))
def test_stops_above_twenty_percent(scene: Scene) -> None:
    """A run whose items all fail is stopped after at least five and at most fourteen attempts.

    A replay into a broken agent must not burn every item's retries. Five settled items stop it, and no more than ten
    were in flight then, the fifth among them. Six fail at once and the others late: a brake that waits for more than
    five, or for a fifth of the whole batch, lets sixteen begin.
    """
    row, company, run = _stopped_run(scene)
    attempted = row["success_count"] + row["failure_count"]
    scene.seen.value(attempted, [5, 14], "items")
    assert row["status"] == "stopped", f"a run of which {attempted} items failed is {row['status']!r}"
    assert 5 <= attempted <= 14, f"{attempted} items were attempted before the stop; allowed: 5 to 14"
    if scene.claims("audit"):
        stops = [r["action"] for r in scene.audit(company, "dlq_replay_stopped", "dlq_replay_completed", "dlq_replay")]
        assert sorted(stops) == ["dlq_replay", "dlq_replay_stopped"], f"the end of a stopped run is audited as {stops}"
    scene.seen.require(_unfinished(scene, run) == 0, "the run is stopped and has open outbox rows")
    scene.seen.count(attempted)


@pytest.mark.waits(1)
@drill("drill/lifecycle/stop-leaves-the-rest-untouched", covers=("E10", "L11"))
def test_stop_leaves_the_rest_untouched(scene: Scene) -> None:
    """When a run is stopped, the items that were not attempted are pending as they were, and not in the outbox.

    A stop that eats the rest of the batch is worse than none.
    """
    row, company, run = _stopped_run(scene)
    scene.seen.require(row["status"] == "stopped", f"the run is {row['status']!r}")
    attempted = row["success_count"] + row["failure_count"]
    items = scene.items(company)
    states = {str(r["status"]) for r in items}
    assert states == {"pending"}, f"after the stop the items are {sorted(states)}"
    untouched = [r for r in items if r["retry_count"] == 0]
    assert len(untouched) == BATCH - attempted, (
        f"{attempted} items were attempted, {BATCH - len(untouched)} have a retry counted"
    )
    moved = scene.count("dead_letter_queue", company, "retry_count = 0 and retry_after > now() - interval '30 seconds'")
    assert moved == 0, f"{moved} items that were not attempted have a later retry_after than before"
    left = _unfinished(scene, run)
    assert left == 0, f"{left} outbox rows of the stopped run wait for delivery"
    scene.seen.count(len(untouched))


@pytest.mark.waits(1)
@drill("drill/lifecycle/stop-refunds-the-rest", covers=("G03", "E10"))
def test_stop_refunds_the_rest(scene: Scene) -> None:
    """When a run is stopped, the budget is charged for the attempted items alone, once.

    A refund that is missing locks the tenant out; one that comes twice lets it spend what it never had.
    """
    row, company, _ = _stopped_run(scene)
    scene.seen.require(row["status"] == "stopped", f"the run is {row['status']!r}")
    attempted = row["success_count"] + row["failure_count"]
    scene.seen.value(list(scene.used(company)), [attempted + 7, attempted + 7], "items")
    assert scene.used(company) == (attempted + 7, attempted + 7), (
        f"the ledger says {scene.used(company)}; 7 were used before, {attempted} of {BATCH} items were attempted"
    )
    scene.seen.count(2)


def _stopped_run(scene: Scene) -> tuple[dict[str, Any], str, str]:
    """A run of fifty items that all fail, six at once and the others late, at its end."""
    scene.claims_drill_agent()
    company = scene.company(items=6, payload=POISON, max_retries=9)
    _add_last(scene, company, LATE_POISON, BATCH - 6)
    scene.rows(
        "update public.dead_letter_queue set retry_after = now() - interval '1 minute' where company_id = %s", company
    )
    scene.budget(company, daily_used=7, monthly_used=7)
    run = str(scene.run(company, max=BATCH)["replay_run_id"])
    scene.ended(run, within_s=10)
    scene.until(lambda: _unfinished(scene, run) == 0, "the end of the run's open deliveries")
    return scene.one(query("run"), run), company, run


@pytest.mark.waits(0.5)
@drill("drill/lifecycle/twenty-percent-is-allowed", covers=("E10",))
def test_twenty_percent_is_allowed(scene: Scene) -> None:
    """A run of which exactly a fifth fails is completed, not stopped.

    A brake that is too tight leaves the operator with half a recovery.
    """
    scene.claims_drill_agent()
    company = scene.company(items=16)
    _add_last(scene, company, as_jsonb({"drill": {"fail_times": -1, "delay_ms": 1500}}), 4)
    run = str(scene.run(company, max=20)["replay_run_id"])
    row = scene.ended(run, within_s=10)
    counts = (row["status"], row["success_count"], row["failure_count"])
    assert counts == ("completed", 16, 4), f"a run of which 4 of 20 items fail is {counts}"
    scene.seen.count(20)


@pytest.mark.waits(1)
@drill("drill/lifecycle/stops-soon-above-a-fifth", covers=("E10",))
def test_stops_soon_above_a_fifth(scene: Scene) -> None:
    """A run that begins well and then fails is stopped as soon as more than a fifth of what it settled has failed.

    A brake that waits for half burns retries that a fifth would have saved. Of 16 that succeed and 24 that fail, six at
    once and the others late, the fifth failure stops it in whatever order they settle, and nine more were in flight at
    most; where the sixth does not, sixteen fail.
    """
    scene.claims_drill_agent()
    company = scene.company(items=16)
    _add_last(scene, company, POISON, 6)
    _add_last(scene, company, LATE_POISON, 18)
    run = str(scene.run(company, max=40)["replay_run_id"])
    row = scene.ended(run, within_s=10)
    scene.seen.value(row["failure_count"], 14, "failed items")
    assert row["status"] == "stopped", f"a run of which {row['failure_count']} items failed is {row['status']!r}"
    assert row["failure_count"] <= 14, f"{row['failure_count']} items failed before the stop; allowed: 14"
    scene.seen.count(row["success_count"] + row["failure_count"])


@drill("drill/lifecycle/a-quarter-is-too-much", covers=("E10",))
def test_a_quarter_is_too_much(scene: Scene) -> None:
    """A run of which a quarter of what is settled has failed is stopped: the limit is 20 %, and nothing is rounded.

    Fifteen succeed at once and five fail soon after, while what is left takes seconds.
    """
    scene.claims_drill_agent()
    company = scene.company(items=15)
    _add_last(scene, company, as_jsonb({"drill": {"fail_times": -1, "delay_ms": 300}}), 5)
    _add_last(scene, company, as_jsonb({"drill": {"delay_ms": 3000}}), 15)
    row = scene.ended(str(scene.run(company, max=35)["replay_run_id"]), within_s=15)
    settled = row["success_count"] + row["failure_count"]
    assert row["status"] == "stopped", f"a run of which 5 of the first 20 items failed is {row['status']!r}"
    assert settled < 35, f"a run of which 5 of the first 20 items failed was stopped after all {settled}"
    scene.seen.count(settled)


@drill("drill/lifecycle/four-failures-do-not-stop", covers=("E10",))
def test_four_failures_do_not_stop(scene: Scene) -> None:
    """A run of four items that all fail is completed: with fewer than five settled nothing is stopped.

    Small replays, the usual ones, could never be tried.
    """
    scene.claims_drill_agent()
    company = scene.company(items=4, payload=POISON, max_retries=9)
    run = str(scene.run(company, max=4)["replay_run_id"])
    row = scene.ended(run)
    counts = (row["status"], row["success_count"], row["failure_count"])
    assert counts == ("completed", 0, 4), f"a run of four failing items is {counts}"
    scene.seen.count(4)


@pytest.mark.waits(0.5)
@drill("drill/lifecycle/ten-in-flight", covers=("E10",))
def test_ten_in_flight(scene: Scene) -> None:
    """However many items a run has, at no moment more than ten of them are in flight.

    It bounds what a replay can break before somebody stops it.
    """
    scene.claims_drill_agent()
    company = scene.company(items=25, payload=as_jsonb({"drill": {"delay_ms": 200}}))
    run = str(scene.run(company, max=25)["replay_run_id"])
    most = 0

    def probe() -> bool:
        nonlocal most
        row = scene.one(
            "select count(*) filter (where claimed_until > now() and processed_at is null and dead_at is null)"
            " as flying, count(processed_at) as done from public.event_outbox where replay_run_id = %s",
            run,
        )
        most = max(most, int(row["flying"]))
        return int(row["done"]) == 25

    scene.until(probe, "the end of a run of 25 items of 0.2 s", within_s=12, every_s=0.01)
    scene.seen.value(most, 10, "items")
    assert most <= 10, f"{most} items of one run were in flight at once; allowed: 10"
    scene.seen.require(most, "no item was ever seen in flight")
    scene.seen.count(25)


@drill("drill/lifecycle/all-of-an-item-together", needs=SQL, covers=("L04", "L12"))
def test_all_of_an_item_together(scene: Scene) -> None:
    """No snapshot shows a replayed item's effect, outbox row, DLQ row and run count at odds.

    They commit together or the next crash leaves an item that is both done and to be done.
    """
    company = scene.company(items=15)
    run = str(scene.run(company, max=15)["replay_run_id"])
    odd: list[dict[str, Any]] = []

    def probe() -> bool:
        row = scene.one(TOGETHER, run, run, company, run)
        if len(set(row.values())) != 1:
            odd.append(row)
        return set(row.values()) == {15} or bool(odd)

    scene.until(probe, "the end of a run of 15 items", every_s=0)
    if odd:
        scene.seen.witness = {k: int(v) for k, v in odd[0].items()}
    assert not odd, f"one snapshot counts {odd[0]} of 15 items; due: the same number in all four"
    scene.seen.control("at the end all four say 15")
    scene.seen.count(15)


TOGETHER = """
select (select count(*) from public.event_outbox o where o.replay_run_id = %s and o.processed_at is not
  null) as processed,
       (select count(distinct t.event_id) from public.agent_tasks t join public.event_outbox o using (event_id)
        where o.replay_run_id = %s and t.status = 'completed') as effects,
       (select count(*) from public.dead_letter_queue where company_id = %s and status = 'resolved') as resolved,
       (select success_count from public.replay_runs where id = %s) as counted
"""


@drill("drill/lifecycle/unknown-run-is-not-found", needs=SQL, after=SIGNED, covers=("L10",))
def test_unknown_run(scene: Scene) -> None:
    """GET of a run that does not exist is 404; of one that does, its status.

    An endpoint that answers with something for every id hides a lost run.
    """
    company = scene.company(items=1)
    run = str(scene.run(company, max=1)["replay_run_id"])
    request, answer = scene.get_run(run)
    scene.seen.expect(request, answer, 200, control=True)
    request, answer = scene.get_run(str(uuid.uuid4()))
    scene.seen.expect(request, answer, 404)
