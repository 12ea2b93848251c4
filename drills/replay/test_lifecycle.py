"""The life of a replayed item and of its run: one attempt, and an end that adds up."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import psycopg
import pytest

from drills.workbench.checks import AGENT, DELIVERS, SIGNED, SQL
from drills.workbench.credentials import REPLAY
from drills.workbench.scene import Scene, best_of, new_key
from drills.workbench.tenant_data import KEPT_PAYLOAD, altered, as_jsonb
from gates.checks.observation import Busy
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.ids import new_id
from gates.deployment.requests import Answer
from gates.evidence import Severity

pytestmark = pytest.mark.beside_load

drill = partial(check, needs=AGENT, after=DELIVERS)

ALONE_S = 1.0
"""A run that takes longer with nothing to wait for says nothing of what holds it up."""
TOOK_S = "select extract(epoch from completed_at - requested_at)::float8 from public.replay_runs where id = %s"
ASKED_AT = "select requested_at from public.replay_runs where id = %s"
TOOK_NOTHING = """select completed_at = requested_at and completed_at <> date_trunc('second', completed_at)
from public.replay_runs where id = %s"""
"""By whichever clocks; times of whole seconds may be equal."""


@drill("drill/lifecycle/failed-item-is-pending-again", covers=("L06", "L01"))
def test_failed_item_is_pending_again(scene: Scene) -> None:
    """A failed replay leaves its item the same row, pending again, with retry_count one higher and a later retry_after.

    A second row is replayed twice; a count that stands still allows replays for ever. A postponed item that was forced
    and fails waits anew; the next replay tries and charges it again, also by its id, and has its effect if it succeeds.
    """
    scene.claims_drill_agent()
    company = scene.company()
    asked, tomorrow = scene.value("select now()"), scene.value("select now() + interval '1 day'")
    # one item's last retry, and another's sixtieth: a wait that doubles without a cap overflows the calendar
    retries = ((1, 2, asked), (60, 99, tomorrow))
    wait = {"payload": as_jsonb({**KEPT_PAYLOAD, "drill": {"fail_times": -1}})}
    if current().has("dead_letter_queue", "aggregate_key"):
        wait["aggregate_key"] = new_key()
    rows = [{**wait, "retry_count": n, "max_retries": of, "retry_after": at} for n, of, at in retries]
    scene.tenants.add_rows(company, rows)
    found = scene.items(company)
    run = str(scene.run(company, max=2, force=True)["replay_run_id"])
    row = scene.ended(run)
    items = {item["id"]: item for item in scene.items(company)}
    assert len(items) == 2, f"a failed replay left {len(items)} dead letters of two items"
    for before, (tried, *_) in zip(found, retries, strict=True):
        assert before["id"] in items, "the failed item is a new row; due: the same row, tried once more"
        after = items[before["id"]]
        assert after["status"] == "pending", f"the failed item is {after['status']!r}"
        counted = after["retry_count"] == tried + 1
        assert counted, f"retry_count went from {tried} to {after['retry_count']}; due: {tried + 1}"
        later = after["retry_after"] > asked
        assert later, f"retry_after went from {before['retry_after']} to {after['retry_after']}; due: after the failure"
        assert not altered(before, after), f"of the failed item {sorted(altered(before, after))} changed; due: the same"
    assert (row["success_count"], row["failure_count"]) == (0, 2), f"the run counts {row['success_count']} successes"
    again = scene.ended(str(scene.run(company, max=2, force=True)["replay_run_id"]))
    counts = (again["success_count"], again["failure_count"])
    assert counts == (0, 1), f"replayed again, one item that always fails counts as (success, failure) {counts}"
    scene.charged(company, 3)
    event = str(items[found[0]["id"]]["event_id"])
    try:
        new = scene.tenants.add_items(company, 1, event_id=event, payload=as_jsonb(KEPT_PAYLOAD))
    except psycopg.errors.UniqueViolation:  # here an event has one letter: no other can succeed
        pass
    else:
        named = scene.known(dlq_ids=[*map(str, items), *new])
        mended = scene.ended(str(scene.run(company, max=2, force=True, **named)["replay_run_id"]))
        scene.seen.require(mended["success_count"], "a letter that does not fail was not replayed with success")
        assert mended["failure_count"], "an item that failed twice before is not replayed again with others, by its id"
        assert scene.effects([event]), "an event whose replay failed, and then succeeded, has no effect"
    scene.in_one_state(company)
    scene.seen.count(13)


@drill("drill/lifecycle/items-of-a-key-in-order", needs=SQL, covers=("K11", "E15"))
def test_items_of_a_key_in_order(scene: Scene) -> None:
    """Replayed items of one aggregate key are delivered oldest first, whatever their ids are, however many others the
    batch has and however long the oldest takes.

    A replay that delivers "cancelled" before "created" turns one incident into another.
    """
    company, batch = scene.company(), min(27, current().limit("batch"))
    drawn = sorted((new_id("item") for _ in range(batch)), reverse=True)  # the oldest has the highest id
    keys = ["k" if n < 3 or n % 13 == 0 else None for n in range(batch)]
    rows = [{"id": i, "event_id": new_id("event"), "aggregate_key": k} for i, k in zip(drawn, keys, strict=True)]
    slow = as_jsonb({"drill": {"delay_ms": 1500}})
    rows = [{**row, "payload": "{}" if n else slow} for n, row in enumerate(rows)]
    scene.tenants.add_rows(company, rows)
    events = [str(r["event_id"]) for r in scene.items(company) if r["aggregate_key"]]
    scene.ended(str(scene.run(company, max=batch)["replay_run_id"]))
    found = scene.rows(
        "select event_id::text as event from public.event_outbox"
        " where company_id = %s and aggregate_key = 'k' order by id",
        company,
    )
    assert [str(r["event"]) for r in found] == events, "the outbox rows of a replay are not in the order of their items"
    scene.in_order(events)
    scene.seen.control("all items were delivered")


@drill("drill/lifecycle/one-attempt", covers=("L06", "E05"))
def test_one_attempt(scene: Scene) -> None:
    """A replayed item has one attempt: it is not tried again by the outbox, and leaves nothing open there; it counts,
    also where its tenant is paused meanwhile.

    A replay that retries by itself makes attempts that nobody was charged for.
    """
    scene.claims_drill_agent()
    company, other, slow = scene.company("a"), scene.company("b"), scene.company("c")
    scene.tenants.add_items(slow, 1, payload=as_jsonb({"drill": {"fail_times": -1, "delay_ms": 600}}))
    held = str(scene.run(slow, max=1)["replay_run_id"])
    scene.until(lambda: any(r["state"] != "pending" for r in scene.outbox(slow)), "the first attempt at an item")
    if scene.claims("pause"):
        scene.pause(slow)
    # a second attempt would succeed
    scene.tenants.add_items(company, 1, event_id=new_id("event"), payload=as_jsonb({"drill": {"fail_times": 1}}))
    event = str(scene.item(company)["event_id"])
    run = str(scene.run(company, max=1)["replay_run_id"])
    scene.ended(run)
    scene.make_due(company)
    scene.passes_by(other, 2)
    tried = "an item whose first attempt fails has its effect: the outbox tried it a second time, or took it for done"
    assert not scene.effects([event]), tried
    assert scene.unfinished(run) == 0, "the run has ended and left an open outbox row"
    assert scene.item(company)["status"] == "pending", f"the item is {scene.item(company)['status']!r}"
    if scene.claims("pause"):
        scene.quiet(slow)
        scene.pause(slow, on=False)
    scene.ended(held)
    item = scene.item(slow)
    assert (item["status"], item["retry_count"]) == ("pending", 1), (
        f"an item that failed in a pause is {item['status']!r} with retry_count {item['retry_count']}; due: pending, 1"
    )
    scene.seen.count(3)
    scene.rows("update public.dead_letter_queue set retry_after = now() where company_id = %s", company)
    again = str(scene.run(company, max=1)["replay_run_id"])
    scene.ended(again)


@drill("drill/lifecycle/event-id-is-stable", covers=("L09", "K06"))
def test_event_id_is_stable(scene: Scene) -> None:
    """An item without an event id keeps the one that its first replay gave it, however old it is and however often it
    was tried.

    With a new id for each replay, the agent does its work twice.
    """
    scene.claims_drill_agent()
    company = scene.company()
    scene.rows(
        "insert into public.dead_letter_queue"
        " (company_id, event_type, payload, error_type, retry_count, max_retries, created_at)"
        " values (%s, 'drill.foreign', %s, 'foreign', 2, 9, now() - interval '30 hours')",
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
    item = scene.item(company)["event_id"]
    return rows or ([str(item)] if item else [])


@drill("drill/lifecycle/run-counts-add-up", covers=("L10",))
def test_run_counts_add_up(scene: Scene) -> None:
    """When a run has ended, its successes and failures are its target, and the endpoint says what the row says.

    Otherwise a partial failure is reported as a success.
    """
    scene.claims_drill_agent()
    company = scene.company(items=9)
    # the one that fails is the last by order and by time, so that the run is never over 20 % before its end
    scene.add_last(company, as_jsonb({"drill": {"fail_times": -1, "delay_ms": 400}}))
    run = str(scene.run(company, max=10)["replay_run_id"])
    is_dated = current().has("replay_runs", "requested_at")
    asked_at = scene.value(ASKED_AT, run) if is_dated else None
    row = scene.ended(run)
    counts = {name: row[name] for name in ("status", "target_count", "success_count", "failure_count")}
    due = {"status": "completed", "target_count": 10, "success_count": 9, "failure_count": 1}
    assert counts == due, f"the run's row says {counts}; of its 10 items 9 succeed, and due is {due}"
    _shown_as(scene, run, company, counts)
    assert row["completed_at"] is not None, "the run that ended has no completed_at"
    if is_dated:
        assert not scene.value(TOOK_NOTHING, run), "completed_at is its requested_at, though its last item took 0.4 s"
        dated = scene.value(ASKED_AT, run)
        assert dated == asked_at, f"the run was requested at {asked_at}; when it has ended its requested_at is {dated}"
    if scene.claims("audit"):
        ends = scene.audit(company, "dlq_replay")
        summaries = [(r["target_count"], r["success_count"], r["failure_count"]) for r in ends]
        assert summaries == [(10, 9, 1)], (
            f"when the run's row says {counts}, the audit's summaries (target_count, success_count, failure_count) are"
            f" {summaries}; the end of a run and its audit rows commit together"
        )
    scene.seen.count(4)


def _shown_as(scene: Scene, run: str, company: str, row: Mapping[str, Any]) -> None:
    """The endpoint says of a run what its row says: its status and the three counts."""

    def unlike(answer: Answer) -> dict[str, Any]:
        """What differs. The contract names no members for the counts: a name of the row's must have its value, else the
        value is there.
        """
        shown = answer.json()
        numbers = _numbers(shown)
        names = ("target_count", "success_count", "failure_count")
        wrong = {k: shown.get(k) for k in names if (shown[k] != row[k] if k in shown else row[k] not in numbers)}
        return wrong if (status := shown.get("status")) == row["status"] else {"status": status, **wrong}

    request, answer = scene.get_run(run, company, lambda answer: answer.status == 200 and not unlike(answer))
    wrong = unlike(scene.seen.expect(request, answer, 200))
    assert "status" not in wrong, f"the endpoint shows a {row['status']} run as {wrong['status']!r}"
    assert not wrong, f"the endpoint shows {wrong}; the row says {row}"


def _numbers(shown: Any) -> set[int]:
    """All whole numbers in an answer, however deep."""
    if isinstance(shown, Mapping):
        return _numbers(list(shown.values()))
    if isinstance(shown, list):
        return {n for part in shown for n in _numbers(part)}
    return {shown} if isinstance(shown, int) and not isinstance(shown, bool) else set()


@drill("drill/lifecycle/all-of-an-item-together", needs=SQL, covers=("L04", "L12"))
def test_all_of_an_item_together(scene: Scene) -> None:
    """No snapshot shows a replayed item's effect, outbox row, DLQ row and run count at odds; all are its tenant's.

    If they do not commit together, a crash leaves an item that is both done and still to do.
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
        where o.replay_run_id = %s and t.company_id = o.company_id and t.status = 'completed') as effects,
       (select count(*) from public.dead_letter_queue where company_id = %s and status = 'resolved') as resolved,
       (select success_count from public.replay_runs where id = %s) as counted
"""


MANY, AT_ONCE = 12, 10
"""Items of a slow run, and how many of one run are taken at once where the workers have room for them."""
TAKEN_AT_ONCE = """
select count(*) from (
  select processed_at - min(processed_at) over () < interval '2 seconds' as first
  from public.event_outbox where replay_run_id = %s
) item where first
"""
UNDER_WAY = """
insert into public.replay_runs
  (idempotency_key, company_id, actor, payload_hash, status, target_count, success_count, failure_count)
values (%s, %s, 'drill', '', 'started', %s, %s, %s) returning id
"""


@pytest.mark.rewrites
@drill("drill/lifecycle/unknown-run-is-not-found", needs=SQL, after=SIGNED, covers=("L10",))
def test_unknown_run(scene: Scene) -> None:
    """GET of a run that does not exist is answered with 404; of one that exists, with its status and counts, even if it
    was stopped or is under way, or found nothing to replay. Without credentials no request tells which exist.

    An endpoint that finds every id hides a lost run; one that calls every end completed hides a failure; one that
    counts only at the end shows nobody that a run is failing; one that anyone may read shows him everybody's.
    """
    company = scene.company(items=1)
    run = str(scene.run(company, max=1)["replay_run_id"])
    request, answer = scene.get_run(run, company)
    scene.seen.expect(request, answer, 200, control=True)
    scene.expect(scene.read(f"{REPLAY}/{(absent := new_id('run'))}", company, "a run that nobody has"), 404)
    scene.shut_to_strangers(REPLAY, run, absent, company)
    scene.ended(run)
    empty = scene.run(company, max=2)
    if not empty["items"]:
        nothing = dict.fromkeys(("target_count", "success_count", "failure_count"), 0)
        _shown_as(scene, str(empty["replay_run_id"]), company, {"status": "completed", **nothing})
    counts = {"target_count": 41, "success_count": 17, "failure_count": 5}
    under_way = str(scene.one(UNDER_WAY, new_key(), company, *counts.values())["id"])
    _shown_as(scene, under_way, company, {"status": "started", **counts})
    scene.rows("update public.replay_runs set status = 'failed', completed_at = now() where id = %s", under_way)
    for status in ("stopped", "failed"):
        row = {"status": status, **counts}
        changes = ", ".join(f"{name} = %s" for name in row)
        scene.rows(f"update public.replay_runs set {changes} where id = %s", *row.values(), run)
        _shown_as(scene, run, company, row)


@pytest.mark.waits(3)
@drill("drill/lifecycle/runs-do-not-wait-for-each-other", covers=("K11", "E10"), severity=Severity.WARN)
def test_runs_do_not_wait_for_each_other(scene: Scene) -> None:
    """A run of slow items of one tenant holds up no run of another, and the tenant may start the next one.

    One customer's slow partner would stop everybody's recovery. Twelve items fill workers that take few; one does not.
    """
    scene.claims_drill_agent()
    items = MANY
    for _ in range(3):
        done, at_once = _done_before_another_run(scene, items)
        if not done:
            break
        items = MANY if at_once >= AT_ONCE else 1
    assert done == 0, f"another tenant's run ended after {done} items of a slow one that began before it, three times"
    scene.seen.count(2)


def _done_before_another_run(scene: Scene, items: int) -> tuple[int, int]:
    """How many of so many slow items of one tenant were done when a run of another, begun after theirs, ended; and how
    many the workers took at once.
    """
    slow = scene.company("a", items=items, payload=as_jsonb({"drill": {"delay_ms": 2500}}))
    other = scene.company("b", items=2)
    first = str(scene.run(slow, max=items)["replay_run_id"])
    second = str(scene.run(other, max=2)["replay_run_id"])
    scene.replay(slow, label="the next run of a tenant whose items are slow")
    row = scene.ended(second, within_s=12)
    assert row["success_count"] == 2, f"{row['success_count']} of 2 items of the other run succeeded"
    done_before = (
        "select count(*) from public.event_outbox o join public.replay_runs r on r.id = %s"
        " where o.replay_run_id = %s and o.processed_at < r."
    )
    begun_late = scene.number(f"{done_before}requested_at", second, first)
    scene.seen.require(not begun_late, "the second run came after items of the first were done: nothing to wait for")
    if done := scene.number(f"{done_before}completed_at", second, first):
        _quick_alone(scene, first)
    scene.ended(first, within_s=15)
    return done, scene.number(TAKEN_AT_ONCE, first)


def _quick_alone(scene: Scene, slow: str) -> None:
    """Raise Busy unless a run ends quickly when the slow one has ended, by the database's times. One of three: where
    runs wait for each other, those of the drills beside it hold it up.
    """
    scene.ended(slow, within_s=15)

    def took() -> float:
        alone = str(scene.run(scene.company("c", items=2), max=2)["replay_run_id"])
        scene.ended(alone, within_s=12)
        return float(scene.value(TOOK_S, alone))

    took_s = min(best_of(3, took, ALONE_S))
    if took_s >= ALONE_S:
        raise Busy(f"too slow to tell: a run of two items took {took_s:.1f} s without the slow one (best of three)")
