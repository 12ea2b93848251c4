"""The dead letter queue: what a replay takes, what it leaves, and what it says about each item."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
import pytest

from drills.workbench.checks import AGENT, DELIVERS, SIGNED, SQL
from drills.workbench.database import query
from drills.workbench.scene import Scene, new_key
from drills.workbench.tenant_data import BUDGET_FLAG, KEPT_KEY, KEPT_PAYLOAD, KEPT_TYPE, POISON, as_jsonb, large_payload
from drills.workbench.waiting import DUE_S
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.http.client import NoAnswer
from gates.deployment.ids import ids_have_spellings, new_id
from gates.deployment.sql.database import execute
from gates.evidence import Severity

MEANWHILE_S = 0.5
"""How long an operator's transaction is open while a replay comes."""

drill = partial(check, needs=SQL, after=SIGNED)

OF_A_DEAD_EVENT = """
insert into public.events (id, company_id, event_type, aggregate_key, payload, path)
select event_id, company_id, event_type, aggregate_key, payload, 'outbox' from public.event_outbox where event_id = %s
"""


@drill("drill/dlq/replayed-item-is-resolved", after=DELIVERS, covers=("L04", "L01"))
def test_replayed_item_is_resolved(scene: Scene) -> None:
    """A replayed item has its effect once, under its own event id, and its row is resolved; also at its last retry, and
    where its event has a long key and is dead in the outbox after its last attempt. The state of that event shows the
    effect, and the time at which the event was first written. An item of the key without retries is left.

    An item that stays open after its replay is replayed again by the next operator.
    """
    company, event = scene.company(), new_id("event")
    scene.tenants.add_items(company, 1, event_id=event, retry_count=2, max_retries=3)
    (dead,) = scene.write_outbox(company, 1, aggregate_key=KEPT_KEY, dead_at=scene.value("select now()"))
    scene.rows(OF_A_DEAD_EVENT, dead)
    scene.tenants.add_items(company, 1, event_id=dead, aggregate_key=KEPT_KEY)
    scene.add_items(company, 1, aggregate_key=KEPT_KEY, retry_count=3, max_retries=3)
    *_, spent = scene.items(company)
    has_states = "/events/{event_id}" not in current().lacking
    committed = has_states and scene.event_status(dead, company).get("committed_at")
    run = str(scene.run(company, max=2)["replay_run_id"])
    scene.delivered([event, dead])
    scene.ended(run)
    *items, beside = scene.items(company)
    states = [str(item["status"]) for item in items]
    assert states == ["resolved"] * 2, f"the replayed items are {states}"
    kept = [str(item["event_id"]) for item in items]
    assert kept == [event, dead], f"the items' event ids changed to {kept}"
    assert beside == spent, f"an item of its key that was not replayed was {spent}; now it is {beside}"
    if has_states:
        state = scene.event_status(dead, company, done=True)
        shown, now = state.get("effect_at"), state.get("committed_at")
        assert shown, f"effect_at of an event that was dead, and has its effect by a replay, is {shown!r}"
        assert now == committed, f"committed_at of an event was {committed!r} before its replay; now it is {now!r}"
    scene.in_one_state(company)


@drill("drill/dlq/letter-is-kept", covers=("L09", "K12"))
def test_letter_is_kept(scene: Scene) -> None:
    """The outbox row of a replay has the item's event id, type, key and payload, unchanged, and is dated now.

    A replay under a new id has a second effect; a payload that changed on the way is another event. The lag is judged
    by the date: with that of the item each replay pages somebody.
    """
    company, event = scene.company(), new_id("event")
    payload = as_jsonb(KEPT_PAYLOAD)
    scene.tenants.add_items(company, 1, event_id=event, payload=payload, event_type=KEPT_TYPE, aggregate_key=KEPT_KEY)
    run = str(scene.run(company, max=1)["replay_run_id"])
    dated = "now() - inserted_at < interval '30 minutes'" if current().has("event_outbox", "inserted_at") else "true"
    row = scene.one(
        "select event_id::text as event, event_type, aggregate_key, payload = %s::jsonb as same,"
        f" company_id::text as company, {dated} as is_new from public.event_outbox where replay_run_id = %s",
        payload,
        run,
    )
    due = {"event": event, "event_type": KEPT_TYPE, "aggregate_key": KEPT_KEY, "same": True, "company": company}
    due["is_new"] = True  # its item is an hour old
    wrong = {k: row.get(k) for k, v in due.items() if row.get(k) != v}
    assert not wrong, f"the outbox row of the replay differs from its item in {wrong}"
    scene.seen.count(len(due))


@drill("drill/dlq/run-and-items-together", covers=("I03", "L01"))
def test_run_and_items_together(scene: Scene) -> None:
    """A run and the outbox rows of its many items, also of named or forced ones, are of one transaction (equal txid).

    A crash between two transactions leaves an acknowledged run that does nothing, or items delivered without a run.
    """
    many = min(27, current().limit("batch"))
    company = scene.company(items=many + 4)
    named = scene.known(dlq_ids=[str(item["id"]) for item in scene.items(company)[-2:]])
    for count, way in ((2, named), (many, {}), (2, scene.known(force=True))):
        run = str(scene.run(company, max=count, **way)["replay_run_id"])
        own = {str(r["txid"]) for r in scene.rows("select txid from public.replay_runs where id = %s", run)}
        scene.seen.require(own, "the run is gone")
        rows = [str(r["txid"]) for r in scene.rows("select txid from public.event_outbox where replay_run_id=%s", run)]
        assert len(rows) == count, f"{len(rows)} outbox rows are there once the run of {count} items is answered"
        assert {*rows} == own, f"transactions: run {own}, outbox rows {sorted({*rows})}; one is due"
        scene.seen.count(len(rows) + 1)


@drill("drill/dlq/item-without-event-id", after=DELIVERS, covers=("L09", "L01"))
def test_item_without_event_id(scene: Scene) -> None:
    """Items of producers that give no event id, and no key, are replayed: each gets an id of its own, and no key, has
    one effect, and is resolved.

    Many dead letters come from producers that know no event ids: they would never be replayed.
    """
    company = scene.company()
    for n in range(3):
        scene.rows(
            "insert into public.dead_letter_queue (company_id, event_type, payload, error_type)"
            " values (%s, 'drill.foreign', %s, 'foreign')",
            company,
            as_jsonb({"n": n}),
        )
    run = str(scene.replay(company, max=5).json()["replay_run_id"])
    events = [r["event"] for r in scene.outbox(company) if str(r["replay_run_id"]) == run]
    assert len(events) == 3, f"{len(events)} of 3 items without event id were taken"
    assert None not in events, "an item without event id got an outbox row without one"
    assert len(set(events)) == 3, "items without event id share one"
    keyed = scene.count("event_outbox", company, "replay_run_id = %s and aggregate_key is not null", run)
    assert keyed == 0, f"{keyed} of 3 items without a key got one for their replay: they would wait for each other"
    scene.delivered([str(e) for e in events])
    scene.ended(run)
    states = {r["status"] for r in scene.items(company)}
    assert states == {"resolved"}, f"the items are {sorted(states)} after their effects"
    scene.seen.control("the items were taken by the replay")


@drill("drill/dlq/effect-that-was-there", after=DELIVERS, covers=("L05", "L12", "E08"))
def test_effect_that_was_there(scene: Scene) -> None:
    """The replay of an event that had its effect already has no second one, and its item is settled, also where it has
    two.

    An event that got through after all is common among dead letters: a second effect charges a customer twice.
    """
    company = scene.company()
    event = str(scene.emit(company, control=True)["event_id"])
    scene.delivered([event])
    scene.tenants.add_items(company, 1, event_id=event)
    with suppress(psycopg.errors.UniqueViolation):  # here an event has one letter
        scene.tenants.add_items(company, 1, event_id=event)
    answer = scene.replay(company, max=2).json()
    row = scene.ended(str(answer["replay_run_id"]))
    count = scene.effects([event])[event]
    assert count == 1, f"an event that had its effect has {count} effects after its replay; allowed: 1"
    states = {str(item["status"]) for item in scene.items(company)}
    assert "replaying" not in states, "an item is left as replaying after its run has ended"
    settled, due = row["success_count"] + row["failure_count"], len(answer["items"])
    assert settled == due, f"the run of {due} items counts {settled} as settled; due: all"
    scene.seen.count()


def _is_tried(row: Mapping[str, Any]) -> bool:
    return bool(row["attempts"]) or row["state"] in {"processed", "dead"}


@drill("drill/dlq/effect-outlives-a-failure", needs=AGENT, after=DELIVERS, covers=("L05", "L12"))
def test_effect_outlives_a_failure(scene: Scene) -> None:
    """An effect that an event already has stays, even if a replay of the event, or another outbox row of it, fails.

    An effect that a later failure takes back is a customer who was served, and then is not.
    """
    scene.claims_drill_agent()
    company = scene.company()
    event = str(scene.emit(company, control=True)["event_id"])
    scene.delivered([event])
    scene.tenants.add_items(company, 1, event_id=event, payload=POISON, max_retries=9)
    scene.ended(str(scene.run(company, max=1)["replay_run_id"]))
    count = scene.effects([event]).get(event, 0)
    assert count == 1, f"an event that had its effect has {count} effects after its replay failed; due: the one"
    again = (
        "insert into public.event_outbox (event_id, company_id, event_type, payload)"
        " values (%s, %s, 'drill.letter', %s) returning id"
    )
    with suppress(psycopg.errors.UniqueViolation):  # where a key refuses such a row it does no harm
        row = scene.rows(again, event, company, POISON)[0]["id"]
        scene.until(lambda: any(r["id"] == row and _is_tried(r) for r in scene.outbox(company)), "an attempt")
        count = scene.effects([event]).get(event, 0)
        assert count == 1, f"an event that had its effect has {count} effects after its second row failed; due: the one"
    scene.seen.count()


@drill("drill/dlq/event-still-in-the-outbox", after=DELIVERS, covers=("L09", "L12"))
def test_event_still_in_the_outbox(scene: Scene) -> None:
    """A dead letter whose event another relay has claimed is replayed, at once or when that claim has expired, and its
    run ends.

    An item that stays `replaying` because its event is already in flight is stuck for ever.
    """
    company, event = scene.company(), new_id("event")
    later = scene.value("select now() + interval '1 hour'")
    scene.rows(
        "insert into public.event_outbox (event_id, company_id, event_type, payload, claimed_until, attempts)"
        " values (%s, %s, 'drill.letter', '{}', %s, 1)",
        event,
        company,
        later,
    )
    scene.tenants.add_items(company, 1, event_id=event)
    run = str(scene.run(company, max=1)["replay_run_id"])
    if not scene.until_true(lambda: scene.one(query("run"), run)["status"] != "started", within_s=DUE_S):
        # that claim may be all that a relay takes of a tenant at once
        over = "update public.event_outbox set claimed_until = now() - interval '1 second' where event_id = %s"
        scene.rows(f"{over} and claimed_until = %s", event, later)
    row = scene.ended(run)
    assert row["success_count"] == 1, f"the run of one item counts {row['success_count']} successes"
    states = [r["status"] for r in scene.items(company)]
    assert states == ["resolved"], f"the letter is {states} after its run"
    scene.seen.count()


@drill("drill/dlq/concurrent-replays-one-claim", covers=("L07", "E11"))
def test_concurrent_replays_one_claim(scene: Scene) -> None:
    """Three replays that race for the same items take each item once between them; each is a run, though two are alike
    and have no key.

    A service that reads before it claims delivers the same item three times.
    """
    _race_for_the_same_items(scene, scene.company(items=6), charged=True)
    if not scene.claims("budgets"):
        return
    if scene.claims("flags"):  # the row of a budget may be all that one waits for
        company = scene.company(items=6)
        scene.set_flag(company, BUDGET_FLAG, enabled=False)
        _race_for_the_same_items(scene, company, charged=False)


def _race_for_the_same_items(scene: Scene, company: str, *, charged: bool) -> None:
    keys: tuple[dict[str, str], ...] = ({"idempotency_key": new_key()}, {}, {})
    requests = [scene.replay_request(company, max=6, **key) for key in keys]
    answers = [a for a in scene.http.burst(requests) if not isinstance(a, NoAnswer)]
    good = [a.json() for a in answers if a.status == 200]
    scene.seen.require(good, "no racing replay was accepted")
    scene.seen.control(f"{len(good)} racing replays were accepted")
    runs = [a["replay_run_id"] for a in good if a.get("replay_run_id")]
    assert len(runs) == len({*runs}), f"{len(runs)} racing replays share {len({*runs})} runs; due: a run for each"
    taken = [item for a in good for item in a["items"]]
    assert len(taken) == len(set(taken)), f"{len(taken) - len(set(taken))} items are in the answers of two replays"
    rows = scene.rows(
        "select event_id from public.event_outbox where company_id = %s group by event_id having count(*) > 1", company
    )
    assert not rows, f"{len(rows)} events have two outbox rows after three racing replays"
    moved = scene.count("event_outbox", company)
    assert moved == len(taken), f"the answers name {len(taken)} items, {moved} were moved"
    if charged:
        scene.charged(company, moved)
    scene.seen.count(len(taken))


@pytest.mark.waits(1)
@drill("drill/dlq/discarded-stays-discarded", covers=("L08",), severity=Severity.WARN)
def test_discarded_stays_discarded(scene: Scene) -> None:
    """Discarded and resolved items are not replayed, neither by force nor by id; nor is an item that is discarded at
    the moment when a replay selects it.

    Events that an operator discarded on purpose are delivered.
    """
    company = scene.company()
    for status in ("discarded", "resolved"):
        scene.tenants.add_items(company, 1, status=status)
    ids = [str(r["id"]) for r in scene.items(company)]
    answer = scene.run(company, dlq_ids=ids, force=True)
    assert answer["items"] == [], f"{len(answer['items'])} of 2 settled items were taken"
    ineligible = sorted(answer["ineligible"])
    assert ineligible == sorted(ids), f"ineligible names {len(ineligible)} of the 2 settled items"
    states = sorted(r["status"] for r in scene.items(company))
    assert states == ["discarded", "resolved"], f"the items are {states} after the replay"
    scene.seen.count(2)
    for by_id in (False, True):
        company = scene.company(items=1)
        item = str(scene.item(company)["id"])
        with scene.transaction() as operator:
            execute(operator, "update public.dead_letter_queue set status = 'discarded' where id = %s", item)
            release = scene.released_after(operator, MEANWHILE_S + scene.way_s)
            scene.replay(company, (200, 409, 503), **({"dlq_ids": [item]} if by_id else {"max": 1}))
            release.join()
        state, moved = scene.item(company)["status"], scene.count("event_outbox", company)
        assert (state, moved) == ("discarded", 0), (
            f"an item that was discarded while a replay came for it is {state!r}, with {moved} outbox rows"
        )
        scene.seen.count()


@drill("drill/dlq/every-id-is-accounted-for", covers=("L10", "L13"))
def test_every_id_is_accounted_for(scene: Scene) -> None:
    """Of the ids asked for, each is in exactly one of items, not_found and ineligible; foreign ids look unknown.

    If ids are silently dropped, an operator believes that all were replayed.
    """
    company, stranger = scene.company("a", items=2), scene.company("b", items=1)
    scene.tenants.add_items(company, 1, status="resolved")
    own = [str(r["id"]) for r in scene.items(company)]
    foreign, unknown = str(scene.item(stranger)["id"]), new_id("item")
    asked = [*own, foreign, unknown]
    spelt = [i.upper() if ids_have_spellings() else i for i in asked]  # a UUID is the same in any case
    answer = scene.run(company, dlq_ids=spelt)
    lists = {name: sorted(answer[name]) for name in ("items", "not_found", "ineligible")}
    eligible = [i for i in own if i in {str(r["id"]) for r in scene.items(company) if r["status"] != "resolved"}]
    scene.seen.details["lists"] = {k: len(v) for k, v in lists.items()}
    everything = sorted(i for ids in lists.values() for i in ids)
    assert everything == sorted(asked), f"{len(asked)} ids were asked for, {len(everything)} are accounted for"
    assert lists["not_found"] == sorted([foreign, unknown]), "the foreign and the unknown id are not reported alike"
    assert set(eligible) <= set(lists["items"]), "an eligible item is not in items"
    assert scene.item(stranger)["status"] == "pending", "another tenant's item was taken"
    assert answer["target_count"] == len(lists["items"]), "target_count is not the length of items"
    scene.seen.count(len(asked))


@drill("drill/dlq/max-retries-is-the-end", covers=("E05", "L06"))
def test_max_retries_is_the_end(scene: Scene) -> None:
    """An item that has used up its retries, or was given none, or fewer than it has used, is not replayed, not even by
    force; one retry below, it is, and so is one that was given many, of which it has used a hundred.

    Otherwise an item that always fails is replayed for ever.
    """
    company = scene.company()
    (used_up,) = scene.add_items(company, 1, retry_count=5, max_retries=5)
    none = scene.add_items(company, 1, max_retries=0)
    with suppress(psycopg.errors.CheckViolation):  # here no item can have used more than it was given
        none += scene.add_items(company, 1, retry_count=5, max_retries=3)
    answer = scene.run(company, dlq_ids=[used_up, *none], force=True)
    assert answer["items"] == [], f"{len(answer['items'])} of {len(none) + 1} items without retries left were taken"
    found = [k for k in answer if used_up in str(answer[k])]
    told = f"{len(answer['ineligible'])} of {len(none) + 1} items without retries left are ineligible"
    assert sorted(answer["ineligible"]) == sorted([used_up, *none]), f"{told}; the first is listed in {found}"
    scene.rows("update public.dead_letter_queue set retry_count = 4 where id = %s", used_up)
    (patient,) = scene.add_items(company, 1, retry_count=132, max_retries=140)
    again = scene.replay(company, force=True).json()["items"]
    assert used_up in again, "an item with one retry left was not taken"
    assert patient in again, "an item with 8 of 140 retries left was not taken"
    assert set(again) == {used_up, patient}, "an item without retries left was taken, unless it was named"


@drill("drill/dlq/not-before-retry-after", covers=("E05",))
def test_not_before_retry_after(scene: Scene) -> None:
    """An item whose retry_after lies ahead, an hour or half a minute, is taken by force alone.

    A replay that ignores the wait hammers what just failed.
    """
    company = scene.company()
    soon = scene.value("select clock_timestamp() + interval '30 seconds'")
    items = scene.add_items(company, 1, retry_after=soon)
    items += scene.add_items(company, 1, retry_after=scene.value("select now() + interval '1 hour'"))
    answer = scene.run(company, max=2)
    scene.seen.require(scene.value("select clock_timestamp() < %s", soon), "half a minute went by before the answer")
    assert answer["items"] == [], f"{len(answer['items'])} of 2 items were taken before their retry_after"
    forced = scene.replay(company, max=2, force=True).json()
    assert set(forced["items"]) == set(items), "force did not take the items whose retry_after lies ahead"


@drill("drill/dlq/other-tenants-item-of-the-event", after=DELIVERS, covers=("L13", "J26"))
def test_other_tenants_item_of_the_event(scene: Scene) -> None:
    """The replay of an item leaves another tenant's item as it is, also one of the same event where there can be.

    Producers give one event to many tenants: an item that is found by its event alone is resolved for all of them.
    """
    event, one, other = new_id("event"), scene.company("a"), scene.company("b")
    scene.add_items(one, 1, event_id=event)
    try:
        scene.add_items(other, 1, event_id=event)
    except psycopg.errors.UniqueViolation:  # then no two tenants can have one event: any item of the other will do
        scene.add_items(other, 1)
    before = scene.items(other)
    scene.ended(str(scene.run(one, max=1)["replay_run_id"]))
    now = scene.items(other)
    assert now == before, (
        f"another tenant's item is {now[0]['status'] if now else 'gone'!r} after a replay; due: as it was"
    )
    scene.seen.count()


@drill("drill/dlq/large-item-is-replayed", after=DELIVERS, covers=("L09",))
def test_large_item_is_replayed(scene: Scene) -> None:
    """An item of sixty kilobytes is replayed like a small one before it, with its payload as it was.

    A replay that cannot carry large payloads leaves large orders undelivered.
    """
    company = scene.company(items=1)
    scene.ended(str(scene.run(company, max=1)["replay_run_id"]))
    payload = as_jsonb(large_payload())
    item = scene.add_items(company, 1, payload=payload)
    answer = scene.replay(company, max=2).json()  # not the request of before: it could be taken for it
    assert answer["items"] == item, f"the replay took {len(answer['items'])} items; due: the large one"
    row = scene.ended(str(answer["replay_run_id"]))
    assert row["success_count"] == 1, "the large item was not delivered"
    kept = "select count(*) from public.event_outbox where replay_run_id = %s and payload = %s::jsonb"
    assert scene.number(kept, answer["replay_run_id"], payload) == 1, "the payload of the large item was changed"
    scene.seen.count(3)
