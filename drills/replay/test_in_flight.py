"""How much of a run is in flight at once, and what of it waits."""

from functools import partial

import pytest

from drills.workbench.checks import AGENT, DELIVERS
from drills.workbench.scene import Scene
from drills.workbench.tenant_data import PUT_OFF, as_jsonb
from gates.checks.recorder import check

pytestmark = pytest.mark.beside_load

drill = partial(check, needs=AGENT, after=DELIVERS)

DUE = """update public.event_outbox set next_attempt_at = now(), claimed_until = now() - interval '1 minute'
where replay_run_id = %s and processed_at is null"""


@pytest.mark.waits(0.5)
@drill("drill/lifecycle/ten-in-flight", covers=("E10",))
def test_ten_in_flight(scene: Scene) -> None:
    """However many items a run has, at no moment more than ten of them are in flight.

    The limit bounds the harm of a bad replay before somebody stops it.
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
    scene.seen.require(most, "no item was ever in flight: no claimed_until lay ahead while its agent worked")
    scene.seen.count(25)


@pytest.mark.waits(2)
@pytest.mark.rewrites
@drill("drill/lifecycle/item-waits-until-it-is-due", covers=("E10", "K14"))
def test_item_waits_until_it_is_due(scene: Scene) -> None:
    """A postponed item of a run waits until it is due, while the others are delivered; ten expired claims stop no run.

    What somebody put off until the partner is back is sent at once; a run whose worker was killed never goes on.
    """
    scene.claims_drill_agent()
    behind_ten = "id in (select id from public.event_outbox where replay_run_id = %s order by id offset 10 limit 12)"
    put_off = f"{PUT_OFF} where {behind_ten} and coalesce(processed_at, claimed_until) is null returning event_id"
    for took_s in (1, 4):  # a slow service answers when the first ten are done already
        company = scene.company(items=24, payload=as_jsonb({"drill": {"delay_ms": took_s * 1000}}))
        run = str(scene.run(company, max=24)["replay_run_id"])
        kept = scene.rows(put_off, run)  # and not the last two
        if len(kept) == 12:
            break
    scene.seen.require(len(kept) == 12, f"{12 - len(kept)} of the items 11 to 22 were taken before they were put off")
    done = "select count(processed_at) from public.event_outbox where replay_run_id = %s"
    scene.until(lambda: scene.number(done, run) >= 12, "all items that are due", within_s=6 + 2 * took_s)
    scene.passes_by(company, 2)
    early = scene.effects([str(r["event_id"]) for r in kept])
    assert not early, f"{len(early)} of 12 items were delivered an hour before they were due"
    scene.rows(DUE, run)
    scene.until(lambda: scene.number(done, run) == 24, "items of a run whose claims ran out", within_s=8)
    row = scene.ended(run, within_s=8)
    assert row["success_count"] == 24, f"{row['success_count']} of 24 items were delivered when all were due"
    scene.seen.count(24)
