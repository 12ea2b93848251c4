"""The outbox as the relay works it: leases, due times, rows that are done. All rows are written by hand."""

import uuid
from functools import partial
from typing import Any

import pytest

from drills.workbench.checks import DELIVERS, SQL
from drills.workbench.scene import Scene, new_key
from drills.workbench.tenant_data import NEXT_TYPE, SCRIPTED
from drills.workbench.waiting import DUE_S, PATIENCE_S
from gates.checks.observation import Busy
from gates.checks.recorder import check
from gates.deployment.ids import new_id
from gates.deployment.sql.database import execute
from gates.evidence import Severity, Where

drill = partial(check, needs=SQL, after=DELIVERS)
EXPIRES = (*DELIVERS, "drill/outbox/expired-claim-is-taken-up")

LOCKED_S = 1.5
"""How long followers are watched while rows are locked: a relay may wait for a lock, for some seconds."""

UNSETTLED_S = 0.5
"""How long events are watched while a worker waits to write an effect: no longer, since it may work for everybody."""

UNFINISHED = """
insert into public.agent_tasks (company_id, agent_name, event_id, status) values (%s, 'drill', %s, %s)
"""
FINISH = """
with done as (
  update public.event_outbox set processed_at = now(), claimed_until = null where event_id = any(%s::uuid[])
  returning company_id, event_id
)
insert into public.agent_tasks (company_id, agent_name, event_id, status)
select company_id, 'drill', event_id, 'completed' from done
"""
"""The other relay that has these rows delivers them."""


def _let_claims_run_out(scene: Scene, events: list[str]) -> None:
    """The other relay that has these rows is gone."""
    over = "update public.event_outbox set claimed_until = now() - interval '1 second' where event_id = any(%s::uuid[])"
    scene.rows(over, events)


@drill("drill/outbox/not-before-it-is-due", covers=("K15",))
def test_not_before_it_is_due(scene: Scene) -> None:
    """A row whose next_attempt_at lies ahead is not delivered before, however its tenant wakes the relay, nor because a
    claim of it has run out.

    A delivery path that ignores the due time retries failing events in a hot loop.
    """
    company = scene.company()
    later = scene.value("select now() + interval '1 hour'")
    over = scene.value("select now() - interval '1 minute'")
    events = scene.write_each_kind(company, next_attempt_at=later)
    events += scene.write_each_kind(company, next_attempt_at=later, claimed_until=over, attempts=1)
    scene.passes_by(company, 3)
    early = scene.effects(events)
    assert not early, f"{len(early)} of {len(events)} rows were delivered an hour before they are due"
    scene.rows("update public.event_outbox set next_attempt_at = now() where company_id = %s", company)
    scene.delivered(events)


@drill("drill/outbox/claimed-by-another", after=EXPIRES, covers=("K05", "K08"))
def test_claimed_by_another(scene: Scene) -> None:
    """A row that another relay has claimed is left to it until the claim runs out, and then delivered.

    Without the first, two relays deliver one event; without the second, a dead relay's rows are stuck for ever.
    """
    company = scene.company()
    later = scene.value("select now() + interval '1 hour'")
    events = scene.write_each_kind(company, claimed_until=later, attempts=1)
    scene.passes_by(company, 3, claims=True)
    early = scene.effects(events)
    assert not early, f"{len(early)} of 2 rows were delivered while another relay's claim was running"
    _let_claims_run_out(scene, events)
    scene.delivered(events)


@drill("drill/outbox/follower-of-a-claimed-row", after=EXPIRES, covers=("K11", "K05"))
def test_follower_of_a_claimed_row(scene: Scene) -> None:
    """While another relay has a row, the later rows of its key wait for it.

    Otherwise two relays that work on one key deliver "cancelled" before "created".
    """
    company = scene.company()
    later = scene.value("select now() + interval '1 hour'")
    heads, followers = _held(scene, company, "another relay had the row", claimed_until=later, attempts=1)
    _let_claims_run_out(scene, heads)
    _come_in_order(scene, heads, followers)


def _held(scene: Scene, company: str, what: str, **columns: Any) -> tuple[list[str], list[str]]:
    """A row of each of three keys that cannot be delivered, and the next of each: nobody delivers it. Of either kind
    there is one behind a plain row, and an agent is asked for both of the last key.

    Of two followers of one key the first would hold back the second, whoever overtakes. Two of the keys are long,
    and one is the word for none. The order of a key is that of all types.
    """
    plain, scripted, word = "p" * 190, "s" * 190, "null"
    heads = [e for key in (plain, scripted) for e in scene.write_outbox(company, 1, aggregate_key=key, **columns)]
    heads += scene.write_outbox(company, 1, aggregate_key=word, payload=SCRIPTED, **columns)
    followers = scene.write_outbox(company, 1, aggregate_key=plain, event_type=NEXT_TYPE)
    followers += scene.write_outbox(company, 1, aggregate_key=scripted, event_type=NEXT_TYPE, payload=SCRIPTED)
    followers += scene.write_outbox(company, 1, aggregate_key=word, payload=SCRIPTED)
    scene.passes_by(company, 3, claims="claimed_until" in columns)
    early = scene.effects(followers)
    assert not early, f"{len(early)} of 3 rows were delivered while {what} before them of their key"
    return heads, followers


def _come_in_order(scene: Scene, heads: list[str], followers: list[str]) -> None:
    scene.delivered(heads + followers)
    for pair in zip(heads, followers, strict=True):
        scene.in_order(list(pair))


@pytest.mark.waits(LOCKED_S)
@drill("drill/outbox/follower-of-a-locked-row", covers=("K11", "K05"), severity=Severity.WARN)
def test_follower_of_a_locked_row(scene: Scene) -> None:
    """While another relay works on a row and holds its lock, later rows of its key do not overtake it, whatever another
    tenant has waiting under the same key.

    With SKIP LOCKED alone, a relay takes the second row of a key for the first.
    """
    # a relay may look at rows by tenant, and then the other one comes first
    other, company = sorted((scene.company("a"), scene.company("b")))
    keys = (new_key(), new_key())
    scene.pause(company)
    heads = [event for key in keys for event in scene.write_outbox(company, 1, aggregate_key=key)]
    followers = scene.write_outbox(company, 1, aggregate_key=keys[0])
    followers += scene.write_outbox(company, 1, aggregate_key=keys[1], payload=SCRIPTED)
    later = scene.value("select now() + interval '1 hour'")
    for key in keys:
        scene.write_outbox(other, 1, aggregate_key=key, attempts=1, next_attempt_at=later)
        scene.write_outbox(company, 1, aggregate_key=key)
    with scene.transaction() as relay:
        execute(relay, "select from public.event_outbox where event_id = any(%s::uuid[]) for update", heads)
        scene.pause(company, on=False)
        beside = [str(scene.emit(other)["event_id"])]
        if scene.until_true(lambda: bool(scene.effects(beside)), within_s=PATIENCE_S):
            scene.seen.control("an event of another tenant was delivered meanwhile")
        scene.until_true(lambda: bool(scene.effects(followers)), within_s=LOCKED_S)
        early = scene.effects(followers)
        relay.commit()
    assert not early, (
        f"{len(early)} of 2 rows were delivered while another relay had locked a row before them of their key"
    )
    if not scene.seen.controls:
        raise Busy(
            f"with two rows locked, an event of another tenant was not delivered within {PATIENCE_S} s: a relay that"
            " waits for locked rows holds up everybody, and shows nothing of their followers. Let it skip them, or, if"
            " its workers are busy or slow, run again when idle"
        )
    _come_in_order(scene, heads, followers)


@drill("drill/outbox/follower-of-a-row-that-backs-off", covers=("K11", "K15"))
def test_follower_of_a_row_that_backs_off(scene: Scene) -> None:
    """While a row waits for its next attempt, the later rows of its key wait for it; other keys do not.

    A relay that looks at due rows alone delivers "cancelled" while "created" is being tried again.
    """
    company = scene.company()
    later = scene.value("select now() + interval '1 hour'")
    heads, followers = _held(scene, company, "a next attempt was waited for", next_attempt_at=later, attempts=1)
    scene.make_due(company)
    _come_in_order(scene, heads, followers)


@drill("drill/outbox/unfinished-task-becomes-the-effect", covers=("K06", "K18"))
def test_unfinished_task_becomes_the_effect(scene: Scene) -> None:
    """An event to which attempts left a task, queued, running or failed, still has its effect, once; replayed, too.

    A worker that checks only whether a task exists takes unfinished work for done, or fails on it for ever.
    """
    company = scene.company()
    later = scene.value("select now() + interval '1 hour'")
    events: list[str] = []
    leaves = scene.leaves_tasks(company)
    for status in ("queued", "running", "failed"):
        fresh = scene.write_each_kind(company, next_attempt_at=later)
        for event in fresh if leaves else ():
            scene.rows(UNFINISHED, company, event, status)
        events += fresh
    if leaves and scene.claims("replay"):
        items = {new_id("event"): status for status in ("queued", "running")}
        for event, status in items.items():
            scene.rows(UNFINISHED, company, event, status)
        scene.tenants.add_rows(company, [{"event_id": event} for event in items])
        scene.run(company, max=2)
        events += items
    scene.make_due(company)
    scene.delivered(events)
    scene.passes_by(company, 1)


@drill("drill/outbox/replay-waits-for-its-key", covers=("K11", "L09"))
def test_replay_waits_for_its_key(scene: Scene) -> None:
    """A replayed item waits for the older events of its key, and the events that come after it wait for the item.

    Replays take another path than events; across the two paths the order of a key must hold, too.
    """
    company = scene.company()
    later = scene.value("select now() + interval '1 hour'")
    # by either of the paths that a relay may have for events, each under a key of its own
    kinds: dict[str, dict[str, Any]] = {"p": {}, "s": {"payload": SCRIPTED}}
    held = {"claimed_until": later, "attempts": 1}
    heads = [e for key in kinds for e in scene.write_outbox(company, 1, aggregate_key=key, **held)]
    items = [new_id("event") for _ in kinds]
    rows = [{"event_id": item, "aggregate_key": key} for item, key in zip(items, kinds, strict=True)]
    scene.tenants.add_rows(company, rows)
    run = str(scene.run(company, max=2)["replay_run_id"])
    after = [e for key, kind in kinds.items() for e in scene.write_outbox(company, 1, aggregate_key=key, **kind)]
    scene.passes_by(company, 3, claims=True)
    early = scene.effects([*items, *after])
    assert not early, f"{len(early)} of two items and two events had their effect before an older event of their key"
    scene.rows("update public.event_outbox set claimed_until = %s where event_id = any(%s::uuid[])", later, items)
    scene.rows(FINISH, heads)
    scene.passes_by(company, 3, claims=True)
    early = scene.effects(after)
    assert not early, f"{len(early)} of two events had their effect before an older replayed one of their key"
    _let_claims_run_out(scene, items)
    scene.delivered([*items, *after])
    scene.ended(run)
    for triple in zip(heads, items, after, strict=True):
        scene.in_order(list(triple))


@drill("drill/outbox/expired-claim-is-taken-up", covers=("K05", "K06"))
def test_expired_claim_is_taken_up(scene: Scene) -> None:
    """A row whose claim has run out, a minute or days ago, is delivered, under its own event id.

    A relay that was killed between claim and acknowledgement leaves such rows; otherwise they are lost.
    """
    company = scene.company()
    minute, days = (scene.value("select now() - %s::interval", age) for age in ("1 minute", "3 days"))
    events = scene.write_each_kind(company, claimed_until=minute, attempts=1, aggregate_key="k")
    for past in (minute, days):
        events += scene.write_each_kind(company, claimed_until=past, attempts=1)
    scene.delivered(events)
    scene.passes_by(company, 1)


@drill("drill/outbox/done-is-done", covers=("K08", "K16"))
def test_done_is_done(scene: Scene) -> None:
    """A row that is processed or dead is not delivered again.

    A relay that checks only one of the two columns delivers finished or dead events again.
    """
    company = scene.company()
    now = scene.value("select now()")
    events = scene.write_each_kind(company, processed_at=now) + scene.write_each_kind(company, dead_at=now)
    scene.passes_by(company, 3)
    again = scene.effects(events)
    assert not again, f"{len(again)} of 4 rows that were processed or dead were delivered again; allowed: 0"
    scene.seen.count(len(events))


@drill("drill/outbox/second-row-of-an-event", covers=("K06", "L05"))
def test_second_row_of_an_event(scene: Scene) -> None:
    """Several outbox rows with one event id have one effect together, and all are marked as processed: rows that wait
    at the same time, and one that comes after the effect.

    The event id is what makes the effect happen once; a new id for each try is a second effect. Rows that a unique key
    refuses can do no harm.
    """
    company, event = scene.company(), new_id("event")
    for _ in range(2):
        scene.write_again(company, event)
    scene.delivered([event])
    scene.write_again(company, event)
    scene.until(lambda: all(r["state"] == "processed" for r in scene.outbox(company)), "every row as processed")
    count = scene.effects([event])[event]
    assert count == 1, f"one event with several outbox rows has {count} effects; allowed: 1"
    scene.passes_by(company, 1)


@drill("drill/outbox/effect-and-acknowledgement-together", covers=("K19", "K07"))
def test_effect_and_acknowledgement_together(scene: Scene) -> None:
    """No snapshot ever shows an event as processed that has no effect.

    A relay that marks first loses the events in progress when it is killed.
    """
    company = scene.company()
    half: list[str] = []

    def probe() -> bool:
        rows = scene.rows(
            "select o.event_id::text as event, o.processed_at is not null as done,"
            " exists (select from public.agent_tasks t where t.event_id = o.event_id and"
            " t.status = 'completed') as effect"
            " from public.event_outbox o where o.company_id = %s",
            company,
        )
        half.extend(str(r["event"]) for r in rows if r["done"] and not r["effect"])
        return all(r["done"] for r in rows)

    for _ in range(4):
        events = scene.write_outbox(company, 3, aggregate_key=str(uuid.uuid4()))
        scene.until(probe, "the processing of three events", every_s=0)
        scene.delivered(events)
    scene.seen.control("every event was processed and had its effect at the end")
    assert not half, f"event {half[0]} was seen as processed without its effect ({len(half)} such snapshots)"


@drill("drill/outbox/effect-held-up", where=Where.STAGING, covers=("K19", "K07"))
def test_effect_held_up(scene: Scene) -> None:
    """Two events and a replayed item are not processed without an effect while another transaction holds it up.

    A relay that acknowledges without waiting for the effect, or writes it elsewhere, loses what fails or is killed.
    """
    company, item = scene.company(), new_id("event")
    events = scene.write_each_kind(company, next_attempt_at=scene.value("select now() + interval '1 hour'"))
    scene.tenants.add_rows(company, [{"event_id": item}])
    early: list[str] = []

    def probe() -> bool:
        processed = [r["event"] for r in scene.outbox(company) if r["processed"]]
        early[:] = processed and [e for e in processed if e not in scene.effects(processed)]
        return bool(early)

    with scene.transaction() as held:
        for event in (*events, item):
            execute(held, UNFINISHED, company, event, "completed")
        scene.make_due(company)
        run = str(scene.run(company, max=1)["replay_run_id"])
        waits = scene.somebody_waits(held, within_s=DUE_S)
        scene.until_true(probe, within_s=UNSETTLED_S)
    scene.make_due(company)
    held_up = "processed without an effect while another transaction held their effects up"
    assert not early, f"{len(early)} of 3 events were {held_up}; first: event {early[0]}"
    scene.seen.require(waits, "no worker came to an effect that another transaction held up")
    scene.seen.count(3)
    scene.delivered(events)
    scene.ended(run)


@drill("drill/outbox/open-transaction-stops-nobody", covers=("K09", "K11"))
def test_open_transaction_stops_nobody(scene: Scene) -> None:
    """A producer whose transaction stays open holds up no other event of its tenant, nor of others.

    A relay that waits for the oldest transaction stands still with the slowest client.
    """
    company, other = scene.company("a"), scene.company("b")
    with scene.transaction() as slow:
        execute(slow, "select pg_current_xact_id()")
        waiting = scene.write_outbox(company, 1, connection=slow, aggregate_key="slow")
        events = scene.write_outbox(company, 2, aggregate_key="fast")
        scene.delivered(events)
        scene.passes_by(other, 1)
        slow.commit()
    scene.delivered(waiting)
