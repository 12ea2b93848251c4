"""Order: events of one key follow each other, whatever happens to the first; other keys and tenants do not wait."""

import time
import uuid
from functools import partial
from typing import Any

import pytest

from drills.workbench.checks import AGENT, DELIVERS, SQL
from drills.workbench.scene import Scene
from drills.workbench.tenant_data import NEXT_TYPE, PLAIN_TYPE, SCRIPTED
from drills.workbench.waiting import PATIENCE_S
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.ids import new_id
from gates.evidence import Severity

RUNS = 24
"""More than a worker looks at in one go."""
CROWD = 250
"""More events of one key than a relay takes at once."""

drill = partial(check, needs=AGENT, after=DELIVERS)


@drill("drill/outbox/order-within-a-key", needs=SQL, covers=("K11",))
def test_order_within_a_key(scene: Scene) -> None:
    """Events of one key, accepted one after the other, are delivered in that order.

    "cancelled" before "created" leaves an order that nobody can cancel.
    """
    company = scene.company()
    first = [str(scene.emit(company, key="first", payload={"n": n})["event_id"]) for n in range(8)]
    written = scene.write_outbox(company, 12, aggregate_key="second")
    scene.delivered(first + written)
    scene.in_order(first)
    scene.in_order(written)
    scene.seen.control("all events were delivered")


@drill("drill/outbox/order-of-interleaved-keys", needs=SQL, covers=("K11",))
def test_order_of_interleaved_keys(scene: Scene) -> None:
    """Events of several keys that are written in turn are each delivered in the order of their key.

    A relay that sorts a batch by anything but its order reorders the events of a key.
    """
    company = scene.company()
    events: dict[str, list[str]] = {k: [] for k in ("a", "b", "c")}
    with scene.db.at_once():
        for _ in range(6):
            for key, ids in events.items():
                ids.extend(scene.write_outbox(company, 1, connection=scene.db, aggregate_key=key))
    everything = [e for ids in events.values() for e in ids]
    scene.delivered(everything)
    for ids in events.values():
        scene.in_order(ids)
    scene.seen.control("all events were delivered")


@drill("drill/outbox/failing-event-holds-its-key", covers=("K11",))
def test_failing_event_holds_its_key(scene: Scene) -> None:
    """While an event fails and is retried, later events of its key wait for it.

    Otherwise the agent gets a later event while the earlier one never happened.
    """
    scene.claims_drill_agent()
    company = scene.company()
    held = any(_holds_its_key(scene, company, failures) for failures in (2, 1))
    scene.seen.require(held, "an event that fails once is given up: nothing is ever retried")
    scene.seen.control("all three events had their effect at the end")


def _holds_its_key(scene: Scene, company: str, failures: int) -> bool:
    """Whether an event that fails so often comes through, ahead of its successors; false where it was given up."""
    key = f"Łódź {failures}"
    failing = str(scene.emit(company, key=key, payload={"drill": {"fail_times": failures}})["event_id"])
    # one that asks the agent for something, and one that does not: a relay may have a path for each
    payloads: tuple[dict[str, Any], ...] = ({"n": 1}, {"drill": {"delay_ms": 1}})
    asked = zip(payloads, (PLAIN_TYPE, NEXT_TYPE), strict=True)
    later = [str(scene.emit(company, key=key, payload=p, event_type=kind)["event_id"]) for p, kind in asked]
    early: list[str] = []

    def probe() -> bool:
        scene.make_due(company)
        done = scene.effects([failing, *later])  # one statement, one snapshot
        dead = any(r["event"] == failing and r["state"] == "dead" for r in scene.outbox(company))
        early.extend(e for e in later if e in done and failing not in done and not dead)
        return len(done) == 3 or dead

    scene.until(probe, "the effects of a failing event and its two successors", within_s=12)
    assert not early, "a later event of the key had its effect before the failing one"
    if failing not in scene.effects([failing]):
        return False
    scene.in_order([failing, *later])
    return True


@drill("drill/outbox/poison-holds-no-other-key", covers=("K11", "K14"))
def test_poison_holds_no_other_key(scene: Scene) -> None:
    """An event that always fails, a replay's included, delays no event of another key of its tenant: neither of a
    similar key nor of a hundred others, however many wait behind it. One without a key delays none at all.

    One bad record stops a customer. A relay that spreads keys over a few shards stops every key of a shard; one that
    takes the oldest and then leaves out who has to wait stops once these fill its batch.
    """
    scene.claims_drill_agent()
    company = scene.company()
    poison = str(scene.emit(company, key="bad", payload={"drill": {"fail_times": -1}})["event_id"])
    # rows in a long back-off, after one failure and after four: they block any key that is confused with theirs
    due = scene.value("select now() + interval '10 minutes'")
    long = "put off" * 28
    for key, attempts in (("put off", 1), (long, 4), ("北京", 1), ("caf\u00e9", 1)):
        scene.write_outbox(company, 1, aggregate_key=key, attempts=attempts, next_attempt_at=due)
    # more rows wait for one of them than a relay takes at once: it must skip them
    with scene.db.at_once():
        scene.write_outbox(company, CROWD, connection=scene.db, aggregate_key="put off", payload=SCRIPTED)
    keys = (
        "BAD",
        "bad ",
        "ba",
        "bad2",
        "PUT OFF",
        "put",
        "put off ",
        " put off",
        f"{long[:-1]}x",
        "南京",
        "cafe\u0301",
    )
    others = [str(scene.emit(company, key=key)["event_id"]) for key in keys]
    scene.write_each_kind(company, attempts=1, next_attempt_at=due)
    others += scene.write_each_kind(company)
    with scene.db.at_once():
        for _ in range(100):
            key = str(uuid.uuid4())
            others += scene.write_outbox(company, 1, connection=scene.db, aggregate_key=key, payload=SCRIPTED)
    scene.delivered([*others, _replayed(scene, company, "a key of its own")])
    assert not scene.effects([poison]), "the event that always fails had its effect"
    scene.seen.control("events of other keys were delivered")


def _wait_in_runs(scene: Scene, company: str, key: str) -> None:
    """Put an item of this key into each of many runs; where the rate limit cannot be reset, into three."""
    runs = RUNS if "edge_rate_limits" not in current().lacking else 3
    scene.add_items(company, runs, aggregate_key=key)
    for _ in range(runs):
        scene.reset_limit(company)
        scene.run(company, max=1)


def _replayed(scene: Scene, company: str, key: str) -> str:
    """The event of an item of this key that a run has taken."""
    event = new_id("event")
    scene.add_items(company, 1, event_id=event, aggregate_key=key)
    scene.run(company, max=1)
    taken = scene.number("select count(*) from public.event_outbox where event_id = %s", event)
    scene.seen.require(taken, "no outbox row has the event id of a replayed item", by="drill/dlq/letter-is-kept")
    return event


@drill("drill/outbox/poison-holds-no-other-tenant", covers=("K11", "K14"), phase="last")
def test_poison_holds_no_other_tenant(scene: Scene) -> None:
    """Many events of one tenant that always fail, and many of its replays that wait for one of them, or are paused,
    delay neither another tenant's events nor its replays, not even under the same key.

    One customer's bad day is everybody's. It runs alone: poison of a drill beside it would stop the queue,
    too, and move when this one's is stopped, which looks like workers that are busy.
    """
    scene.claims_drill_agent()
    company, other = scene.company("a"), scene.company("b")
    plain = _replayed(scene, other, "put off")
    done = scene.until_true(lambda: bool(scene.effects([plain])), within_s=PATIENCE_S)
    resolved = "drill/dlq/replayed-item-is-resolved"
    scene.seen.require(done, "a replay has no effect where no poison is, either", by=resolved)
    scene.write_outbox(company, 20, payload='{"drill": {"fail_times": -1}}')
    scene.write_outbox(company, 1, payload='{"drill": {"fail_times": -1}}', aggregate_key="same")
    # one that backs off for long: the others give up, or have their effect, before anybody's patience ends
    due = scene.value("select now() + interval '10 minutes'")
    scene.write_outbox(company, 1, aggregate_key="put off", attempts=1, next_attempt_at=due)
    _wait_in_runs(scene, company, "put off")
    events = [str(scene.emit(other, key="same", payload={"n": n})["event_id"]) for n in range(4)]
    events += [str(scene.emit(other, key="put off", payload={"n": n})["event_id"]) for n in range(2)]
    events += scene.write_outbox(other, 1, aggregate_key="put off", payload=SCRIPTED)
    scene.delivered([*events, _replayed(scene, other, "put off")])
    scene.seen.control("the other tenant's events were delivered")
    if scene.claims("pause"):
        scene.pause(company)
        scene.rows("update public.event_outbox set aggregate_key = null where company_id = %s", company)
        scene.delivered([_replayed(scene, other, "put off")])


@drill("drill/outbox/slow-event-holds-nobody", covers=("K11",), severity=Severity.WARN)
def test_slow_event_holds_nobody(scene: Scene) -> None:
    """An agent that takes seconds for one event holds up no event of another key or tenant.

    A relay that waits for each answer in turn is as slow as its slowest customer.
    """
    scene.claims_drill_agent()
    company, other = scene.company("a"), scene.company("b")
    # twice, because a machine that is busy for four seconds looks the same once
    overtaken = any(_overtakes_slow_event(scene, company, other) for _ in range(2))
    assert overtaken, "events of other keys and tenants were delivered only after one that takes 4 s, twice"
    scene.seen.control("events of other keys and tenants were delivered")


@pytest.mark.waits(5)
@drill("drill/outbox/slow-event-comes-through", covers=("K06",))
def test_slow_event_comes_through(scene: Scene) -> None:
    """An event for which the agent takes five seconds has its effect, once.

    A claim that ends before the work does goes to the next worker again and again: slow work is never done.
    """
    scene.claims_drill_agent()
    company = scene.company()
    slow = str(scene.emit(company, payload={"drill": {"delay_ms": 5000}}, control=True)["event_id"])
    scene.delivered([slow], within_s=14)
    scene.in_one_state(company)


def _overtakes_slow_event(scene: Scene, company: str, other: str) -> bool:
    """Whether four events were done well before one that takes 4 s: seen at once, or later by the times of the effects.

    Where all of them come with the slow one, they waited for it.
    """
    began = time.monotonic()
    slow = str(scene.emit(company, key="slow", payload={"drill": {"delay_ms": 4000}})["event_id"])
    # taken together with the others it may come after them by chance
    taken = "select count(*) from public.event_outbox where event_id = %s and claimed_until > now()"
    scene.until_true(lambda: scene.number(taken, slow) > 0, within_s=1.0)
    events = [str(scene.emit(c, key=str(uuid.uuid4()))["event_id"]) for c in (company, other, company, other)]
    scene.delivered(events, within_s=8)
    absent = slow not in scene.effects([slow])
    if absent and time.monotonic() - began < 3.0:
        return True
    scene.delivered([slow], within_s=12)
    times = scene.one(
        "select extract(epoch from min(updated_at) filter (where event_id = %s::uuid)"
        " - max(updated_at) filter (where event_id <> %s::uuid)) as ahead_s"
        " from public.agent_tasks where event_id = any(%s::uuid[])",
        slow,
        slow,
        [slow, *events],
    )
    return absent if times["ahead_s"] is None else float(times["ahead_s"]) > 1.0
