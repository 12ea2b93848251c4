"""Back-off: what failed is tried again later, by waits that grow by a factor and differ from event to event.

All checks need an agent that can be made to fail. How often it is tried, and after how long, is the deployment's
business: a check makes the next attempt due by SQL instead of waiting for it.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest

from drills.workbench.checks import AGENT, DELIVERS
from drills.workbench.scene import Scene
from drills.workbench.tenant_data import POISON
from gates.checks.recorder import check
from gates.evidence import Severity

drill = partial(check, needs=AGENT, after=DELIVERS)

JITTER_SHARE = 0.05
"""Of a wait: what is spread less than that is not spread at all."""
PROOF_SHARE = 0.02
"""Of a wait: a slow commit makes waits differ by less."""
NEAR_S = 0.1
"""Apart are two looks that tell a wait from none."""
COMMIT_S = 0.02
"""From the moment that a failure takes its time to the one at which others see it, mostly."""
ATTEMPTS = 4
"""So many failures are looked at."""
CROWD = 16
"""Events that fail together: the longest of so many waits is near the longest that jitter allows."""
MOST_OF_THEM = 14
SLOWS, SLOW = 0.87, 1.45
"""Waits that grow by an amount: their factor shrinks to less than SLOWS of itself, and ends below SLOW."""
CLEAR_SHARE = 0.25
"""Of a wait: looks that are further apart say too little of how it grows."""
LOOK_S = 8.0
"""Of looks by the server, which a statement's own limit must not end."""
LOOK = f"""
select coalesce(jsonb_agg(jsonb_build_array(id, attempts, pending and not dead, due) order by id), '[]') as seen,
       case when count(*) = {CROWD} then min(failed) else 0 end as step
from (select id, attempts, pending, dead, due,
             case when dead then {ATTEMPTS} when pending then coalesce(attempts, 0)
                  else coalesce(attempts, 1) - 1 end as failed
      from (select id, attempts, dead_at is not null as dead,
                   (claimed_until is null or claimed_until <= clock_timestamp()) as pending,
                   extract(epoch from next_attempt_at)::float8 as due
            from public.event_outbox where company_id = %s) looked) counted
"""


@pytest.mark.waits(0.5)
@drill("drill/outbox/back-off-grows", covers=("K15",), severity=Severity.WARN)
def test_back_off_grows(scene: Scene) -> None:
    """From one failure to the next (up to four) the wait grows, as far as two looks tell, and not by the same amount
    each time.

    Retries at a constant pace overload an agent that tries to recover. Over two waits jitter may hide the growth; over
    three it cannot, unless the first is at the cap already. Four tell linear growth from exponential.
    """
    scene.claims_drill_agent()
    company, other = scene.company("a"), scene.company("b")
    found, waits = _waits(scene, company), list[list[tuple[float, float]]]()
    alive = scene.count("event_outbox", company, "dead_at is null")
    for attempt, seen in enumerate(found, 1):
        if len(seen) < 6 and ((not alive and waits) or (alive < CROWD and len(waits) > 1) or attempt == ATTEMPTS):
            break  # this deployment makes no more attempts, or no more could be observed
        told = f"of {CROWD} events {len(seen)} were seen to fail for time {attempt}, {CROWD - alive} are dead already"
        scene.seen.require(len(seen) >= 6, told)
        waits.append(seen)
    # the delay of a look counts in the deployment's favour: lower bound of the first wait, upper of the last
    first, last = (sum(w[i] for w in ws) / len(ws) for ws, i in ((waits[0], 0), (waits[-1], 1)))
    scene.seen.value([round(first, 3), round(last, 3)], "growing", "s")
    # waits too short to be seen are no back-off, if the looks are frequent enough
    ahead, most = (max(w[i] for ws in waits for w in ws) for i in (0, 1))
    scene.seen.require(ahead > 0 or most <= NEAR_S, f"the looks at the failing events were up to {most:.2f} s apart")
    assert ahead > 0, f"no failure put the next attempt ahead; all were due within {most * 1000:.0f} ms"
    least = 0.8 if len(waits) < 3 else 1.15
    assert last >= first * least, (
        f"the mean wait went from {first:.2f} s to {last:.2f} s in {len(waits)} failures; due: {least} times"
    )
    (early, early_gap), (late, late_gap) = (_middle(ws) for ws in (waits[0], waits[-1]))
    scene.seen.require(
        late >= early * least or max(early_gap, late_gap) > early / 2,  # looks so far apart give no useful mean
        f"the looks leave it open whether the wait grows: it is about {early:.2f} s, and {late:.2f} s at last",
    )
    longest = _longest(waits)
    assert not _slows(longest), f"the longest waits were {longest} s: each grows by a smaller factor; due: exponential"
    scene.seen.count(CROWD * len(waits))
    scene.passes_by(other, 1)


def _middle(waits: list[tuple[float, float]]) -> tuple[float, float]:
    """The mean wait half-way between its bounds, and how far they are apart, in s."""
    low, high = (sum(bounds) / len(waits) for bounds in zip(*waits, strict=True))
    return (low + high) / 2, high - low


def _longest(waits: list[list[tuple[float, float]]]) -> list[float]:
    """The longest wait after each failure, halfway between the looks, while most of the crowd was seen closely."""
    found: list[float] = []
    for seen in waits:
        low, high = max(seen, key=sum)
        if len(seen) < MOST_OF_THEM or high - low > CLEAR_SHARE * high:
            break
        found.append(round((low + high) / 2, 3))
    return found


def _slows(longest: list[float]) -> bool:
    """Whether the wait grows by an amount: its factor shrinks each time and is small in the end. The cap is not why,
    since the fourth wait is longer than the third; nor is decorrelated jitter, whose last factor is about two.
    """
    if len(longest) < ATTEMPTS:
        return False
    first, second, third = (after / before for before, after in pairwise(longest))
    return 1.1 < third < min(second, SLOW) and second < SLOWS * first


@drill("drill/outbox/back-off-jittered", covers=("K15",), severity=Severity.WARN)
def test_back_off_jittered(scene: Scene) -> None:
    """Of events that fail equally often, some wait longer than others.

    A crowd that fell together comes back together, and fells the agent again. Each failure is seen between two looks;
    where one wait fits all of them, and the looks are near enough to tell, there is no jitter.
    """
    scene.claims_drill_agent()
    company, other = scene.company("a"), scene.company("b")
    steady: list[str] = []
    proved = False
    for attempt, seen in enumerate(_waits(scene, company), 1):
        if len(seen) < 8:
            break  # so many attempts are all that this deployment makes
        least, most = max(low for low, _ in seen), min(high for _, high in seen)
        scene.seen.count(len(seen))
        proved = least - most > PROOF_SHARE * most
        if proved:
            scene.seen.value(round(least - most, 4), 0, "s")
            break
        apart = max(high - low for low, high in seen)
        if apart <= JITTER_SHARE * most:
            steady.append(f"{most:.3f} s after failure {attempt}, seen within {apart * 1000:.0f} ms")
    scene.seen.require(proved or steady, "the looks at the failing events were too far apart to see a jitter")
    assert proved, f"{len(seen)} events that failed equally often all wait {steady[-1]}"
    scene.passes_by(other, 1)


def _waits(scene: Scene, company: str) -> list[list[tuple[float, float]]]:
    """Let a crowd of events fail: for each time the least and the most that each was put off by, as far as two looks
    tell, in s. The server looks itself, from before they are there on: one that is far would be asked too rarely.
    """
    acts: list[Callable[[], object]] = [
        partial(scene.write_outbox, company, CROWD, payload=POISON),
        # only what was seen to be put off: another failure in between keeps its own time
        *(partial(scene.make_due, company, attempts=number) for number in range(1, ATTEMPTS)),
    ]
    found: list[dict[int, tuple[float, float]]] = [{} for _ in range(ATTEMPTS)]
    for before, ended, rows in scene.looks_through(acts, LOOK, company, within_s=LOOK_S):
        for number, attempts, pending, due in rows:
            if before and pending and 1 <= (attempts or 0) <= ATTEMPTS:
                found[attempts - 1].setdefault(number, (due - ended, due - before + COMMIT_S))
    return [list(waits.values()) for waits in found]
