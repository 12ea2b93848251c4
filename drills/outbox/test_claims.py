"""The outbox as the relay works it: leases, due times, rows that are done. All rows are written by hand."""

from __future__ import annotations

import uuid
from functools import partial

from drills.workbench.checks import DELIVERS, SQL
from drills.workbench.scene import Scene
from gates.checks.recorder import check
from gates.deployment.database import execute
from gates.deployment.ids import new_id

drill = partial(check, needs=SQL, after=DELIVERS)


def _let_claims_run_out(scene: Scene, events: list[str]) -> None:
    """The other relay that has these rows is gone."""
    over = "update public.event_outbox set claimed_until = now() - interval '1 second' where event_id = any(%s::uuid[])"
    scene.rows(over, events)


@drill("drill/outbox/not-before-it-is-due", covers=("K15",))
def test_not_before_it_is_due(scene: Scene) -> None:
    """A row whose next_attempt_at lies ahead is not delivered before, however its tenant wakes the relay.

    A delivery path that ignores the due time turns every back-off into a hot loop.
    """
    company = scene.company()
    later = scene.value("select now() + interval '1 hour'")
    events = scene.write_outbox(company, 2, next_attempt_at=later)
    scene.passes_by(company, 3)
    early = scene.effects(events)
    assert not early, f"{len(early)} of 2 rows were delivered an hour before they are due"
    scene.rows("update public.event_outbox set next_attempt_at = now() where company_id = %s", company)
    scene.delivered(events)


@drill("drill/outbox/claimed-by-another", covers=("K05", "K08"))
def test_claimed_by_another(scene: Scene) -> None:
    """A row that another relay has claimed is left to it until the claim runs out, and then delivered.

    Without the first, two relays deliver at once; without the second, a dead relay's rows are stuck for good.
    """
    company = scene.company()
    later = scene.value("select now() + interval '1 hour'")
    events = scene.write_outbox(company, 2, claimed_until=later, attempts=1)
    scene.passes_by(company, 3)
    early = scene.effects(events)
    assert not early, f"{len(early)} of 2 rows were delivered while another relay's claim was running"
    _let_claims_run_out(scene, events)
    scene.delivered(events)


@drill("drill/outbox/follower-of-a-claimed-row", covers=("K11", "K05"))
def test_follower_of_a_claimed_row(scene: Scene) -> None:
    """While another relay has a row, the later rows of its key wait for it; other keys do not.

    Two relays that share a key by chance deliver "cancelled" before "created".
    """
    company = scene.company()
    later = scene.value("select now() + interval '1 hour'")
    head = scene.write_outbox(company, 1, claimed_until=later, attempts=1, aggregate_key="k")
    # one that asks an agent for something, and one that does not: a relay may have a path for each
    followers = scene.write_outbox(company, 1, aggregate_key="k")
    followers += scene.write_outbox(company, 1, aggregate_key="k", payload='{"drill": {"delay_ms": 1}}')
    scene.passes_by(company, 3)
    early = scene.effects(followers)
    assert not early, f"{len(early)} of 2 rows were delivered while another relay had the row before them of their key"
    _let_claims_run_out(scene, head)
    scene.delivered(head + followers)
    scene.in_order(head + followers)


@drill("drill/outbox/replay-waits-for-its-key", covers=("K11", "L09"))
def test_replay_waits_for_its_key(scene: Scene) -> None:
    """A replayed item waits for the older events of its key, and the events that come after it wait for the item.

    What goes by another path than events do must not overtake them there.
    """
    company = scene.company()
    later = scene.value("select now() + interval '1 hour'")
    head = scene.write_outbox(company, 1, claimed_until=later, attempts=1, aggregate_key="k")
    event = new_id("event")
    scene.tenants.add_items(company, 1, event_id=event, aggregate_key="k")
    run = str(scene.run(company, max=1)["replay_run_id"])
    after = scene.write_outbox(company, 1, aggregate_key="k")
    scene.passes_by(company, 3)
    early = scene.effects([event, *after])
    assert not early, f"{len(early)} of an item and an event had their effect before an older event of their key"
    _let_claims_run_out(scene, head)
    scene.delivered([*head, event, *after])
    scene.ended(run)
    scene.in_order([*head, event, *after])


@drill("drill/outbox/expired-claim-is-taken-up", covers=("K05", "K06"))
def test_expired_claim_is_taken_up(scene: Scene) -> None:
    """A row whose claim has run out is delivered, under its own event id.

    It is what a relay leaves behind that was killed between claiming and acknowledging.
    """
    company = scene.company()
    past = scene.value("select now() - interval '1 minute'")
    events = scene.write_outbox(company, 3, claimed_until=past, attempts=1, aggregate_key="k")
    scene.delivered(events)
    scene.passes_by(company, 1)


@drill("drill/outbox/done-is-done", covers=("K08", "K16"))
def test_done_is_done(scene: Scene) -> None:
    """A row that is processed or dead is not delivered again.

    A relay that looks at one of the two columns alone repeats, or resurrects.
    """
    company = scene.company()
    now = scene.value("select now()")
    events = scene.write_outbox(company, 2, processed_at=now) + scene.write_outbox(company, 2, dead_at=now)
    scene.passes_by(company, 3)
    again = scene.effects(events)
    assert not again, f"{len(again)} of 4 rows that were processed or dead were delivered again; allowed: 0"
    scene.seen.count(len(events))


@drill("drill/outbox/second-row-of-an-event", covers=("K06", "L05"))
def test_second_row_of_an_event(scene: Scene) -> None:
    """Two outbox rows with one event id, as a repeated delivery makes them, have one effect, and both are processed.

    The event id is what makes the effect happen once; a new id for each try is a second effect.
    """
    company, event = scene.company(), new_id("event")
    for _ in range(2):
        scene.rows(
            "insert into public.event_outbox (event_id, company_id, event_type, payload) values"
            " (%s, %s, 'drill.plain', '{}')",
            event,
            company,
        )
    scene.delivered([event])
    scene.until(lambda: all(r["state"] == "processed" for r in scene.outbox(company)), "both rows as processed")
    count = scene.effects([event])[event]
    assert count == 1, f"one event with two outbox rows has {count} effects; allowed: 1"
    scene.passes_by(company, 1)


@drill("drill/outbox/effect-and-acknowledgement-together", covers=("K19", "K07"))
def test_effect_and_acknowledgement_together(scene: Scene) -> None:
    """No snapshot ever shows an event as processed that has no effect.

    A relay that marks first loses what it was doing when it is killed.
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
