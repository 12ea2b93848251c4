"""Held events: a tenant that is switched off or paused has its rows kept, apart, and delivered when it is on again. So
it is with the switch of everybody.
"""

import time
import uuid
from functools import partial

import pytest

from drills.workbench.checks import DELIVERS, SIGNED, SQL
from drills.workbench.scene import Scene
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.http.metrics import parse_metrics
from gates.deployment.requests import Request, bucket
from gates.deployment.tenants.loans import LiveRow
from gates.deployment.tenants.tenants import OUTBOX_FLAG, REPLAY_FLAG
from gates.evidence import Severity, Where

drill = partial(check, needs=SQL, after=DELIVERS)

STALE_S = 2.5
"""How old the numbers of /metrics may be."""
ASLEEP_S = 0.3
"""So long after an event's effect the relay's looks for that event are over."""
HELD, HELD_TENANTS = 2500, 30
"""More rows, and of more tenants, than a relay looks at in one go."""


@drill("drill/held/switched-off-is-not-delivered", covers=("H01", "K18"))
def test_switched_off_is_not_delivered(scene: Scene) -> None:
    """Rows of a tenant whose outbox is switched off, or whose own flag row has a percentage that leaves it out, are
    neither delivered nor failed nor lost, however old they are and even if they were tried before, or a claim of them
    has run out.

    A rollback that goes on delivering stops nothing; one that drops what was accepted loses it.
    """
    company, other, *several = (scene.company(label) for label in "abccc")
    nobody = max(several, key=partial(bucket, OUTBOX_FLAG))  # the least that leaves it out is hardly ever 0 %
    percentage = 0 if current().own_buckets else bucket(OUTBOX_FLAG, nobody)
    known = [str(scene.emit(one, control=True)["event_id"]) for one in (company, nobody)]
    scene.delivered(known)
    scene.set_flag(company, OUTBOX_FLAG, enabled=False)
    scene.set_flag(nobody, OUTBOX_FLAG, enabled=True, percentage=percentage)
    scene.passes_by(other, 1)
    old = scene.value("select now() - interval '2 days'")
    events = scene.write_outbox(company, 2, inserted_at=old) + scene.write_outbox(company, 4)
    events += scene.write_each_kind(company, attempts=1)
    if current().has("event_outbox", "claimed_until"):
        events += scene.write_each_kind(company, attempts=1, claimed_until=old)
    left_out = scene.write_each_kind(nobody)
    scene.passes_by(other, 3)
    assert not scene.effects(events), "an event of a switched-off tenant was delivered"
    assert not scene.effects(left_out), f"an event of a tenant that is left out at {percentage} % was delivered"
    states = [r["state"] for r in scene.outbox(company) if r["event"] not in known]
    assert states == ["pending"] * len(events), f"the held rows, some of them old or tried before, are {states}"
    letters = len(scene.items(company))
    assert letters == 0, f"{letters} held events are in the dead letter queue"
    scene.seen.count(len(events))


# alone: no other event wakes a relay that looks only when one is written
@drill("drill/held/delivered-when-on-again", covers=("H01", "K11"), phase="last")
def test_delivered_when_on_again(scene: Scene) -> None:
    """When the tenant is switched on again, what was held is delivered once each, in order.

    After a rollback, events stay undelivered until somebody intervenes or the next event comes.
    """
    company, other = scene.company("a"), scene.company("b")
    scene.set_flag(company, OUTBOX_FLAG, enabled=False)
    events = scene.write_outbox(company, 6, aggregate_key="k")
    scene.passes_by(other, 2)
    scene.seen.require(not scene.effects(events), "the events were not held")
    time.sleep(ASLEEP_S)  # otherwise the poll that the last event triggered may already see the flag
    scene.set_flag(company, OUTBOX_FLAG, enabled=True)
    scene.delivered(events)
    scene.in_order(events)


@drill("drill/held/others-do-not-wait", covers=("K11",))
def test_others_do_not_wait(scene: Scene) -> None:
    """Thousands of old held rows, of a paused tenant and of one that is switched off, and a row each of thirty more,
    hold up no other tenant, whatever its key is.

    A relay that reads the oldest rows first, or those of the tenants that wait longest, reads the same ones for ever.
    """
    many = [scene.company("crowd") for _ in range(HELD_TENANTS)]
    with scene.db.at_once():
        for one in many:
            scene.pause(one)
    other, off = scene.company(), _switched_off(scene)
    for companies, count in ((many, 1), (off, HELD)):
        scene.rows(
            "insert into public.event_outbox (event_id, company_id, event_type, aggregate_key, payload, inserted_at)"
            " select gen_random_uuid(), c, 'drill.plain', 'k', '{}', now() - interval '1 day'"
            " from unnest(%s::uuid[]) as c, generate_series(1, %s)",
            companies,
            count,
        )
    events = [str(scene.emit(other, key=str(uuid.uuid4()))["event_id"]) for _ in range(3)]
    with scene.db.at_once():  # so many keys that one shares whatever a relay divides them into
        for _ in range(64):
            events += scene.write_outbox(other, connection=scene.db, aggregate_key=str(uuid.uuid4()))
    scene.delivered(events)
    delivered = HELD * len(off) - sum(scene.count("event_outbox", one, "processed_at is null") for one in off)
    scene.seen.require(delivered == 0, f"{delivered} of the held rows were delivered")
    scene.seen.control(f"the other tenant's events were delivered past {HELD * len(off)} held rows")


def _switched_off(scene: Scene, *percentages: int) -> list[str]:
    """Tenants whose rows are held: a paused one and, if a tenant may have flags of its own, one without the outbox, and
    one whose own row has it on for each of these percentages.
    """
    held = [scene.company("paused")]
    scene.pause(held[0])
    if scene.claims("flags"):
        rows = [(False, 100), *((True, one) for one in percentages)]
        for is_on, percentage in rows * current().has("feature_flags", "company_id"):
            held.append(scene.company("off"))
            scene.set_flag(held[-1], OUTBOX_FLAG, enabled=is_on, percentage=percentage)
    return held


@drill("drill/held/holds-no-other-tenants-key", covers=("K11",))
def test_holds_no_other_tenants_key(scene: Scene) -> None:
    """A held event holds up no event of another tenant, even if their aggregate keys are equal.

    Keys are names that tenants choose: `order-1` is everybody's. One customer's pause must not be another's outage.
    """
    paused, other = scene.company("a"), scene.company("b")
    scene.pause(paused)
    (held,) = scene.write_outbox(paused, 1, aggregate_key="order-1")
    scene.delivered([str(scene.emit(other, key="order-1")["event_id"])])
    scene.seen.require(not scene.effects([held]), "the paused tenant's event was not held")
    scene.pause(paused, on=False)
    scene.delivered([held])
    scene.seen.control("the event that was held is delivered after the pause")


@pytest.mark.waits(2.5)
@drill("drill/held/does-not-count-as-lag", covers=("K04", "L14"), severity=Severity.WARN)
def test_does_not_count_as_lag(scene: Scene) -> None:
    """Old held rows, of a paused tenant and of one that is switched off, by its own row's 0 % too, do not raise the
    outbox lag that the service shows.

    A paused customer would page somebody every night, until the alert is switched off; so would each rollback.
    """
    other = scene.company()
    scene.seen.require(_lag(scene) < 3000, "the lag was high before anything was done")
    old = scene.value("select now() - interval '2 hours'")
    for company in _switched_off(scene, 0):
        scene.write_outbox(company, 1, inserted_at=old)
    scene.passes_by(other, 2)
    lags: list[float] = []  # the metrics may be of a moment ago, so more than one look is taken

    def probe() -> bool:
        lags.append(_lag(scene))
        return lags[-1] >= 3000

    scene.until_true(probe, within_s=STALE_S)
    lag = lags[-1]
    scene.seen.value(round(lag, 3), 3000, "s")
    assert lag < 3000, f"outbox_lag_seconds is {lag:.0f} with rows that are held for 7200 s and nothing else waiting"
    scene.seen.count()


def _lag(scene: Scene) -> float:
    answer = scene.http.send(Request("GET", "/metrics"))
    scrape, name = parse_metrics(answer.body), "outbox_lag_seconds"
    by = "drill/observability/series-are-there"
    scene.seen.require(scrape.total(name) is not None, f"/metrics has no {name}", by=by)
    return scrape.highest(name)


@drill("drill/flags/global-switch-is-wired", after=SIGNED, covers=("H01",), where=Where.DISRUPTIVE, phase="last")
def test_global_switch_is_wired(scene: Scene) -> None:
    """The global row of `outbox.enabled`, switched off as by a rollback, or at 0 %, sends every tenant down the direct
    path and holds the rows in the outbox, except where a tenant's own row says otherwise. The global row of
    `dlq.replay.enabled`, switched off, refuses the replays of tenants without a row.

    The gate itself runs this statement to roll back. The drill never switches the flag on for more tenants than before.
    """
    company, own = scene.company("a"), scene.company("own")
    scene.set_flag(own, OUTBOX_FLAG, enabled=True)
    scene.rows("delete from public.feature_flags where company_id = %s", company)
    scene.seen.require(scene.emit(company, control=True)["path"] == "outbox", "a tenant of the canary took no outbox")
    for off in ({"enabled": False}, {"rollout_percentage": 0}):
        with scene.lent(LiveRow(OUTBOX_FLAG), **off):
            path = scene.emit(company)["path"]
            assert path == "direct", f"an event took the path {path!r} after the global switch-off, {off}"
            held = scene.write_outbox(company, 2)
            scene.delivered(scene.write_outbox(own, 1))
            scene.passes_by(own, 2)
            assert not scene.effects(held), f"what is in the outbox was delivered after the global switch-off, {off}"
        scene.delivered(held)
    if scene.is_on_for_everybody(REPLAY_FLAG):
        with scene.lent(LiveRow(REPLAY_FLAG), enabled=False):
            scene.replay(company, 403, "feature_disabled", label="switched off for everybody", max=1)
