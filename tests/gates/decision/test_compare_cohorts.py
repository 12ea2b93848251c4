"""What a comparison of two cohorts proves, what it leaves open, and what cannot decide it."""

import math
from dataclasses import replace

import pytest

from benchmarks import cohort_rates as rates
from gates.decision import cohorts
from gates.evidence import Outcome

MARGIN = 0.005


def fleet(
    on: int = 50, off: int = 50, events: int = 100, bad_on: int = 0, bad_off: int = 0
) -> list[cohorts.TenantCounts]:
    """Equal tenants on both sides, without bad events in the past."""
    sides = [(f"on{i}", True, bad_on) for i in range(on)] + [(f"off{i}", False, bad_off) for i in range(off)]
    return [cohorts.TenantCounts(name, is_on, bad, events, 0, events) for name, is_on, bad in sides]


def test_equal_cohorts_pass_and_a_worse_one_fails() -> None:
    """No bad event passes; five more in a hundred fail, with the least difference that is proved."""
    assert cohorts.compare(fleet(), MARGIN, 10).outcome is Outcome.PASS
    found = cohorts.compare(fleet(bad_on=5), MARGIN, 10)
    assert found.outcome is Outcome.FAIL
    assert MARGIN < found.low < found.difference == pytest.approx(0.05)
    assert found.worst[0].tenant == "on0"


def test_few_events_prove_nothing_though_all_are_good() -> None:
    """Few good events are not enough for a pass; `growth` says how many times as many are."""
    found = cohorts.compare(fleet(events=4), MARGIN, 10)
    assert found.outcome is Outcome.UNKNOWN
    times = cohorts.growth(found, MARGIN)
    assert times is not None
    more = [replace(t, events=math.ceil(t.events * times)) for t in fleet(events=4)]
    assert cohorts.compare(more, MARGIN, 10).outcome is Outcome.PASS


def test_what_came_in_the_bake_is_looked_at_once_besides() -> None:
    """One look at the bake's events may decide what later looks leave open; a failure at any time stands."""
    pattern = [1 + 7 * i % 4 - i % 2 for i in range(20)] + [int(i % 3 == 0) for i in range(20)]
    worse = [replace(t, bad=bad) for t, bad in zip(fleet(on=20, off=20), pattern, strict=True)]
    assert cohorts.compare(worse, MARGIN, 10).outcome is Outcome.UNKNOWN
    for since in (worse, fleet(20, 20, events=4)):
        found = cohorts.compare(since, MARGIN, 10, worse)
        assert (found.outcome, found.look) == (Outcome.FAIL, "at the end of the bake")
    assert cohorts.compare(fleet(bad_on=5), MARGIN, 10, fleet()).outcome is Outcome.FAIL


def test_events_are_not_tenants() -> None:
    """Nine tenants decide nothing, however many bad events they have."""
    for on, off in ((9, 100), (100, 9), (0, 100), (100, 0), (1, 1)):
        assert cohorts.compare(fleet(on, off, 100_000, bad_on=90_000), MARGIN, 10).outcome is Outcome.UNKNOWN
    assert cohorts.compare([], MARGIN, 10).outcome is Outcome.UNKNOWN


def test_a_few_large_tenants_count_as_a_few() -> None:
    """Two huge tenants among fifty neither fail nor pass the comparison."""
    large = [cohorts.TenantCounts(f"large{i}", True, 300_000, 1_000_000, 0, 1_000_000) for i in range(2)]
    found = cohorts.compare([*fleet(on=48), *large], MARGIN, 10)
    assert found.outcome is Outcome.UNKNOWN
    assert {one.tenant for one in found.worst[:2]} == {"large0", "large1"}
    tiny = [replace(t, events_before=1) for t in fleet(on=48)]
    assert cohorts.compare([*tiny, *large, *fleet(on=0, off=200)], MARGIN, 10).on.worth < 10


def test_traffic_after_the_step_moves_no_weight() -> None:
    """A tenant's weight is from before the step, however much it sends afterwards."""
    tenants = fleet(bad_on=1)
    loud = [replace(tenants[0], bad=5000, events=10_000), *tenants[1:]]
    quiet = [replace(tenants[0], bad=50, events=100), *tenants[1:]]
    assert cohorts.compare(loud, MARGIN, 10).difference == pytest.approx(cohorts.compare(quiet, MARGIN, 10).difference)


def test_what_was_so_before_the_step_is_not_its_doing() -> None:
    """A tenant is compared with its own past, and a change for all alike does not count."""
    poor = [
        replace(t, bad=b, bad_before=b)
        for i, t in enumerate(fleet())
        for b in [20 + i % 7 if i < 25 else i % 7]  # the poor ones are on, by chance
    ]
    assert cohorts.compare(poor, MARGIN, 10).difference == pytest.approx(0.0, abs=1e-9)
    assert cohorts.compare(poor, MARGIN, 10).slope == pytest.approx(1.0)
    worse = [replace(t, bad=t.bad + 10) for t in poor]
    assert cohorts.compare(worse, MARGIN, 10).difference == pytest.approx(0.0, abs=1e-9)


def test_the_bound_is_the_published_one() -> None:
    """With many degrees of freedom it is GrowthBook's published confidence sequence: 0.0960 at 1,000 of 1,000."""
    assert cohorts.half_width(0.001, 10**6, 1000.0**-0.5, 0.025) == pytest.approx(0.0960, abs=5e-5)
    assert cohorts.half_width(0.001, 9, 0.1, 0.025) > 1.1 * cohorts.half_width(0.001, 10**6, 0.1, 0.025)


@pytest.mark.parametrize(("tenants", "low", "high"), [(20, 0, 7), (50, 0, 13), (200, 8, 35)])
def test_shares_that_may_be_chance(tenants: int, low: int, high: int) -> None:
    """The test is exact, at one in a thousand, where 10 % are planned."""
    assert [on for on in range(tenants + 1) if cohorts.is_as_planned(on, tenants, 10)] == list(range(low, high + 1))
    assert [on for on in range(tenants + 1) if cohorts.is_as_planned(on, tenants, 0)] == [0]
    assert [on for on in range(tenants + 1) if cohorts.is_as_planned(on, tenants, 100)] == [tenants]


@pytest.mark.parametrize(
    ("on", "off", "chance"),
    [
        ((0, 0), (0, 0), True),
        ((0, 20), (9, 20), True),
        ((9, 20), (9, 20), True),
        ((7, 20), (0, 20), True),
        ((9, 20), (0, 20), False),
        ((20, 20), (20, 20), True),
        ((3, 100), (0, 900), False),
        ((1, 1), (0, 400), True),
    ],
)
def test_silence_that_may_be_chance(on: tuple[int, int], off: tuple[int, int], chance: bool) -> None:
    """Silence fails only if chance would explain it less often than once in a thousand."""
    assert cohorts.silent_by_chance(on, off) is chance


@pytest.mark.parametrize(
    ("fleet_of", "wrong"),
    [(rates.Fleet(50, 50, 100, MARGIN), "both"), (rates.Fleet(50, 50, 100, 0.0), "failed")],
    ids=["at the margin", "equal"],
)
def test_rates_are_kept_over_all_looks(fleet_of: rates.Fleet, wrong: str) -> None:
    """With another seed than the page's, errors stay about within the stated risk."""
    found = rates.many(fleet_of, 60, "again")
    assert sum(one.failed is not None for one in found) <= 60 * cohorts.FAIL_RISK + 3
    if wrong == "both":
        assert sum(one.passed is not None for one in found) <= 60 * cohorts.PASS_RISK + 6
