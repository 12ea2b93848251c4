"""Failures: what fails is tried again later, and at the end is kept, once, with its reason.

All checks need an agent that can be made to fail. How often it is tried, and after how long, is the deployment's
business: a check makes the next attempt due by SQL instead of waiting for it.
"""

import uuid
from functools import partial

import pytest

from drills.workbench.checks import AGENT, DELIVERS
from drills.workbench.scene import Scene
from drills.workbench.tenant_data import (
    ALWAYS_FAILS,
    KEPT_KEY,
    KEPT_PAYLOAD,
    KEPT_TYPE,
    POISON,
    as_jsonb,
    large_payload,
)
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.evidence import Severity

drill = partial(check, needs=AGENT, after=DELIVERS)

MORTALS, SPENT = 12, 40
"""Events that die at once, and attempts that leave none."""
DEATHS = f"""
select jsonb_build_array(dead, letters) as seen, (dead = {MORTALS} or dead <> letters)::int as step
from (select (select count(*) from public.event_outbox where company_id = %s and dead_at is not null) as dead,
             (select count(*) from public.dead_letter_queue where company_id = %s) as letters) counted
"""
DEATH_S = 25.0
"""How long an event may take to its last attempt when every attempt is made due at once."""
MENDED = {  # nothing in its payload fails any more
    "events": "update public.events set payload = '{}' where id = %s",
    "event_outbox": "update public.event_outbox set payload = '{}' where event_id = %s",
}


FAILED_AND_DUE_BEFORE = """
select count(*) from public.event_outbox where company_id = %s and next_attempt_at < %s
and (claimed_until is null or claimed_until <= now()) and attempts > case when dead_at is null then 0 else 1 end"""


def _attempted(scene: Scene, company: str) -> bool:
    """Whether every outbox row of the tenant has failed at least once and waits for its next attempt."""
    rows = scene.outbox(company)
    return bool(rows) and all(
        r["state"] == "dead" or (r["state"] == "pending" and int(r["attempts"] or 0) >= 1) for r in rows
    )


def _to_death(scene: Scene, company: str) -> None:
    """Let the tenant's failing events come to their last attempt."""

    def probe() -> bool:
        scene.make_due(company)
        return all(r["state"] == "dead" for r in scene.outbox(company))

    moving = scene.number("select coalesce(sum(attempts), 0) from public.event_outbox where company_id = %s", company)
    if not scene.until_true(probe, within_s=DEATH_S):
        now = scene.number("select coalesce(sum(attempts), 0) from public.event_outbox where company_id = %s", company)
        scene.seen.require(now <= moving, f"after {DEATH_S:g} s and {now} attempts the last attempt was not reached")
        scene.late("the last attempt of an event that always fails", DEATH_S)


@drill("drill/outbox/failed-is-tried-again", covers=("K14", "K06"))
def test_failed_is_tried_again(scene: Scene) -> None:
    """An event whose agent fails twice (once, where two attempts are all) has its effect once, at the next attempt,
    under the same event id.

    An agent that is down for a minute should delay that minute's events, not lose them.
    """
    scene.claims_drill_agent()
    for failures in (2, 1):
        company = scene.company(f"f{failures}")
        event = str(scene.emit(company, payload={"drill": {"fail_times": failures}}, control=True)["event_id"])
        if _comes_through(scene, company, event, failures):
            break
    scene.delivered([event])
    rows = [r["event"] for r in scene.outbox(company)]
    assert rows == [event], f"after {failures} failures the outbox has the event ids {rows}"


def _comes_through(scene: Scene, company: str, event: str, failures: int) -> bool:
    """Whether an event that fails so often has its effect; the deployment may have given it up after two attempts."""

    def probe() -> bool:
        scene.make_due(company)
        return event in scene.effects([event]) or all(r["state"] == "dead" for r in scene.outbox(company))

    scene.until(probe, f"the effect of an event that fails {failures} times", within_s=12)
    if event in scene.effects([event]):
        return True
    attempts = max((int(r["attempts"] or 0) for r in scene.outbox(company)), default=0)
    assert failures > 1, "an event that fails once is given up: no second attempt is made"
    assert attempts <= failures, f"an event that fails twice had no effect at attempt {attempts}"
    return False


@drill("drill/outbox/failing-is-not-processed", covers=("K19",))
def test_failing_is_not_processed(scene: Scene) -> None:
    """While its agent fails, an event is neither processed nor has it an effect, and is as old as it was.

    A relay that marks what it sent, not what was done, loses every event that was refused; one that makes it young at
    each attempt shows no lag of it.
    """
    scene.claims_drill_agent()
    company, came_at = scene.company(), scene.value("select date_trunc('milliseconds', now()) - interval '1 second'")
    events = scene.write_outbox(company, 3, payload=POISON, inserted_at=came_at)
    scene.until(
        lambda: any(r["processed"] for r in scene.outbox(company)) or _attempted(scene, company), "the first failures"
    )
    wrong = [r["event"] for r in scene.outbox(company) if r["processed"]]
    assert not wrong, f"{len(wrong)} of 3 events whose agent failed are marked as processed"
    assert not scene.effects(events), "an event whose agent failed has a completed effect"
    as_old = "select count(*) from public.event_outbox where company_id = %s and inserted_at = %s"
    kept = scene.number(as_old, company, came_at)
    assert kept == 3, f"{3 - kept} of 3 events came, by inserted_at, when they were tried; due: when they were written"
    scene.seen.count(3)
    scene.passes_by(company, 1)


@pytest.mark.waits(0.5)
@drill("drill/outbox/backs-off", covers=("K15",), severity=Severity.WARN)
def test_backs_off(scene: Scene) -> None:
    """After a failure the next attempt lies ahead, also of an event that was due an hour ago, and is not made before,
    though the event is sent again.

    Immediate retries keep an overloaded agent down: after a pause all that waited would use up its attempts at once.
    """
    scene.claims_drill_agent()
    company, other = scene.company("a"), scene.company("b")
    written = scene.one("select now() as at, now() - interval '1 hour' as due")
    scene.write_outbox(company, 4, payload=POISON, next_attempt_at=written["due"])
    event = str(scene.emit(company, key="again", payload=ALWAYS_FAILS)["event_id"])
    scene.until(lambda: _attempted(scene, company), "the first failures")
    stale = scene.number(FAILED_AND_DUE_BEFORE, company, written["at"])
    assert not stale, (
        f"{stale} events that were due an hour ago have failed, and their next attempt is still in the past"
    )
    put_off = scene.until_true(lambda: _put_off(scene, company), within_s=5)
    scene.seen.require(put_off, "the failing events could not be put off while none was in flight")
    before = scene.number("select sum(attempts) from public.event_outbox where company_id = %s", company)
    scene.emit(company, key="again", payload=ALWAYS_FAILS, event_id=event)
    scene.passes_by(other, 3)
    after = scene.number("select sum(attempts) from public.event_outbox where company_id = %s", company)
    assert after == before, f"{after - before} attempts were made before they were due"
    waiting = scene.count("event_outbox", company, "dead_at is null")
    scene.seen.require(waiting, "all failing events were dead before their back-off could be seen")
    scene.seen.count(waiting)


def _put_off(scene: Scene, company: str) -> bool:
    """Put the tenant's events off by an hour; whether none of them was in flight, or came back since."""
    scene.rows(
        "update public.event_outbox set next_attempt_at = now() + interval '1 hour' where"
        " company_id = %s and dead_at is null"
        " and next_attempt_at < now() + interval '50 minutes' and (claimed_until is null or claimed_until <= now())",
        company,
    )
    scene.quiet(company)
    early = "dead_at is null and (next_attempt_at < now() + interval '50 minutes' or claimed_until > now())"
    return scene.count("event_outbox", company, early) == 0


@pytest.mark.waits(0.5)
@drill("drill/outbox/dead-letter-once", covers=("K14", "L01"))
def test_dead_letter_once(scene: Scene) -> None:
    """After its last attempt an event is dead, has no effect, and is in the dead letter queue once, with a reason and
    dated now; so is the next event of its key. It stays so when it is sent again, and two days later.

    An event that is dropped after its last attempt is lost, and nobody is told.
    """
    scene.claims_drill_agent()
    company = scene.company()
    payload = {**ALWAYS_FAILS, "order": {"amount": 19.99, "name": "Grüße"}}
    events = sorted(str(scene.emit(company, key="k", payload=payload, control=True)["event_id"]) for _ in range(2))
    _to_death(scene, company)
    items = scene.items(company)
    found = sorted(str(item["event_id"]) for item in items)
    assert found == events, (
        f"two dead events have {len(items)} dead letters, whose event ids are {found}; sent: {events}"
    )
    states = {str(item["status"]) for item in items}
    assert states == {"pending"}, f"the items are {sorted(states)}; they wait for a replay, so pending is due"
    assert all(item["error_type"] for item in items), "an item gives no error_type"
    if current().has("dead_letter_queue", "retry_count") and current().has("dead_letter_queue", "max_retries"):
        spent = scene.count("dead_letter_queue", company, "retry_count >= max_retries")
        assert spent == 0, f"{spent} of 2 new dead letters have no retry left: no replay may ever take them"
    if current().has("dead_letter_queue", "created_at"):
        elsewhere = scene.count("dead_letter_queue", company, "abs(extract(epoch from now() - created_at)) > 1800")
        assert elsewhere == 0, f"{elsewhere} of 2 new dead letters are dated elsewhere: no alert sees them come"
    assert not scene.effects(events), "a dead event has a completed effect"
    if "/events/{event_id}" not in current().lacking:
        shown = scene.event_status(events[0], company).get("effect_at")
        assert shown is None, f"effect_at of a dead event is {shown!r}; it had no effect"
    scene.emit(company, key="k", payload=payload, event_id=events[0])
    dead = scene.count("event_outbox", company, "dead_at is not null")
    assert dead == 2, f"one of two dead events is sent again, and {dead} are dead; due: 2, as it is a duplicate"
    scene.rows("update public.event_outbox set dead_at = dead_at - interval '2 days' where company_id = %s", company)
    scene.passes_by(company, 1)
    dead = scene.count("event_outbox", company, "dead_at is not null")
    assert dead == 2, (
        f"of two events that have been dead for two days {dead} are dead: what was given up is tried again"
    )
    scene.in_one_state(company)
    scene.seen.count(5)


@pytest.mark.waits(0.5)
@drill("drill/outbox/dead-letter-is-the-event", covers=("K12", "L09"))
def test_dead_letter_is_the_event(scene: Scene) -> None:
    """The dead letter has the event's type, key or none, and payload, unchanged, also a payload of sixty kilobytes.

    A replay delivers the letter, not the event: what the letter lacks is lost.
    """
    scene.claims_drill_agent()
    company = scene.company()
    payload = as_jsonb({**KEPT_PAYLOAD, "large": large_payload(), **ALWAYS_FAILS})
    (keyed,) = scene.write_outbox(company, payload=payload, event_type=KEPT_TYPE, aggregate_key=KEPT_KEY)
    (unkeyed,) = scene.write_outbox(company, payload=payload, event_type=KEPT_TYPE)
    # none, where the database gives it none
    key = scene.value("select aggregate_key from public.event_outbox where event_id = %s", unkeyed)
    keys = {keyed: KEPT_KEY, unkeyed: key}
    _to_death(scene, company)
    items = scene.rows(
        "select event_id, event_type, aggregate_key, payload, payload = %s::jsonb as is_same"
        " from public.dead_letter_queue where company_id = %s",
        payload,
        company,
    )
    scene.seen.require(len(items) == 2, "drill/outbox/dead-letter-once does not hold")
    for item in items:
        for column, due in (("event_type", KEPT_TYPE), ("aggregate_key", keys[str(item["event_id"])])):
            got, wanted = (str(text)[:80] for text in (item[column], due))
            assert item[column] == due, f"the dead letter's {column} is {got}; due: that of its event, {wanted}"
        assert item["is_same"], f"the dead letter's payload is {str(item['payload'])[:500]}; due: that of its event"
    scene.seen.control("the events died, and have their letters")
    scene.seen.count(6)


@pytest.mark.waits(0.5)
@drill("drill/outbox/dead-letter-in-one-transaction", covers=("K14", "K18"))
def test_dead_letter_in_one_transaction(scene: Scene) -> None:
    """No snapshot shows an event that is dead in the outbox and not in the dead letter queue, or in both alive; nor is
    one so whose tenant was paused during its last attempt.

    A crash between two transactions loses the event, or doubles it.
    """
    scene.claims_drill_agent()
    paused = _paused_while_it_fails(scene)
    company = scene.company()
    scene.write_outbox(company, MORTALS, payload=POISON)

    def died() -> bool:
        scene.make_due(company)
        return bool(scene.one(DEATHS, company, company)["step"])

    # the server looks itself: between two transactions there may be less than a way to it and back
    acts = [partial(scene.until_true, died, within_s=DEATH_S)]
    looks = [seen for *_, seen in scene.looks_through(acts, DEATHS, company, company, within_s=DEATH_S)]
    half = [(dead, letters) for dead, letters in looks if dead != letters]
    assert not half, f"one snapshot shows {half[0][0]} dead events and {half[0][1]} letters"
    scene.seen.require(looks[-1][0] == MORTALS, f"after {DEATH_S:g} s the last attempt was not reached")
    scene.quiet(paused)
    dead, letters = scene.one(DEATHS, paused, paused)["seen"]
    assert dead == letters, f"a tenant paused in a last attempt has {dead} dead events and {letters} letters"
    scene.seen.count(MORTALS)
    scene.seen.control("all events died, each with its letter")


def _paused_while_it_fails(scene: Scene) -> str:
    """A tenant that is paused, where that can be, while the agent works, in vain, on an event without attempts left."""
    company, slow = scene.company("paused"), as_jsonb({"drill": {"fail_times": -1, "delay_ms": 250}})
    scene.write_outbox(company, payload=slow, attempts=SPENT)
    begun = scene.until_true(lambda: any(r["state"] != "pending" for r in scene.outbox(company)), within_s=DEATH_S)
    scene.seen.require(begun, f"after {DEATH_S:g} s no attempt had begun of an event that had {SPENT} before")
    if scene.claims("pause"):
        scene.pause(company)
    return company


@pytest.mark.waits(0.5)
@drill("drill/outbox/dead-event-frees-its-key", covers=("K11", "K14"))
def test_dead_event_frees_its_key(scene: Scene) -> None:
    """When an event is dead, the next event of its key is delivered, and not before, however often it has failed.

    A key that stays blocked behind a dead event is lost silently, event by event; one that is freed too early is out of
    order.
    """
    scene.claims_drill_agent()
    company = scene.company()
    key = str(uuid.uuid4())
    poison = str(scene.emit(company, key=key, payload=ALWAYS_FAILS, control=True)["event_id"])
    after = [str(scene.emit(company, key=key, payload={"n": n})["event_id"]) for n in range(2)]

    # one snapshot: if it shows the effect of a follower, it shows the earlier death, too
    look = (
        "select o.dead_at is not null as dead, exists (select from public.agent_tasks t"
        " where t.event_id::text = any(%s) and t.status = 'completed') as followed"
        " from public.event_outbox o where o.event_id = %s"
    )
    overtaken = False

    def dead() -> bool:
        nonlocal overtaken
        scene.make_due(company)
        row = scene.one(look, after, poison)
        overtaken |= bool(row) and row["followed"] and not row["dead"]
        return bool(row) and bool(row["dead"])

    scene.seen.require(scene.until_true(dead, within_s=DEATH_S), "the last attempt of the first event was not reached")
    assert not overtaken, "an event was delivered while the one before it of its key was still being tried"
    scene.delivered(after)
    scene.in_order(after)


@pytest.mark.waits(1.5)
@drill("drill/outbox/processed-after-its-effect", covers=("K18",))
def test_processed_after_its_effect(scene: Scene) -> None:
    """While the agent works on an event it is not marked as processed: at no moment is it processed without its effect.

    A row that is marked as processed when it is claimed is lost with its worker.
    """
    scene.claims_drill_agent()
    company = scene.company()
    event = str(scene.emit(company, payload={"drill": {"delay_ms": 1500}}, control=True)["event_id"])
    look = (
        "select o.processed_at is not null as processed, exists (select from public.agent_tasks t"
        " where t.event_id = o.event_id and t.status = 'completed') as done from"
        " public.event_outbox o where o.event_id = %s"
    )
    waiting, early = 0, 0

    def probe() -> bool:
        nonlocal waiting, early
        row = scene.one(look, event)
        waiting += bool(row) and not row["processed"] and not row["done"]
        early += bool(row) and row["processed"] and not row["done"]
        return early > 0 or bool(row and row["done"])

    scene.until(probe, "the effect of a slow event")
    assert not early, f"event {event} is marked as processed while the agent still works on it"
    scene.seen.require(waiting, "the event was never seen before its effect")
    scene.seen.count(waiting)


@pytest.mark.rewrites
@drill("drill/outbox/status-of-a-failing-event", covers=("K01", "K14"))
def test_status_of_a_failing_event(scene: Scene) -> None:
    """GET /events/{id} shows no effect_at while an event fails and is tried again, and does not call it processed; once
    it has its effect, effect_at is later than its failures.

    A failed attempt that is shown as the effect hides the failure from everyone who waits for the event.
    """
    scene.claims_drill_agent()
    company = scene.company()
    event = str(scene.emit(company, payload={"drill": {"fail_times": -1}})["event_id"])
    scene.until(lambda: any(int(r["attempts"] or 0) for r in scene.outbox(company)), "a failed attempt of the event")
    scene.seen.control("the event has failed once")
    shown = scene.event_status(event, company)
    assert shown.get("effect_at") is None, f"effect_at is {shown.get('effect_at')!r} after a failed attempt"
    assert shown.get("status") != "processed", "an event whose only attempt failed is shown as processed"
    failed_at = scene.value("select clock_timestamp()")
    for table, mended in MENDED.items():
        if current().has(table, "payload"):
            scene.rows(mended, event)
    scene.make_due(company)
    dead = any(r["state"] == "dead" for r in scene.outbox(company))
    scene.seen.require(not dead, "the event was dead before it was mended")
    scene.delivered([event])
    done = scene.event_status(event, company, done=True).get("effect_at")
    late = "select %s::timestamptz + make_interval(secs => %s) >= %s"
    sound = scene.value(late, done, 0, failed_at) or scene.value(late, done, scene.behind_s(company), failed_at)
    assert sound, f"effect_at is {done}; at {failed_at} the event had failed and could have no effect"
    scene.seen.count(2)
