"""Slopes, limits ahead, flapping, and when they are unknown."""

import datetime as dt
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gates.evidence import Outcome
from gates.watch.rounds import Reading, Round
from gates.watch.trends import Before, forecast_of, from_the_future, rising, slope_of, thinned, trends
from gates.watch.view import forecast_text, slope_text

NOW = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
CHECK = "alert/outbox-lag"
LIMITS = (("page", 5.0), ("warn", 2.0))
STEP_S = 300.0


def rounds(*readings: Reading | None, end: dt.datetime = NOW) -> list[Round]:
    """One round every five minutes, the last one at `end`."""
    made = []
    for i, reading in enumerate(readings):
        at = (end - dt.timedelta(seconds=STEP_S * (len(readings) - 1 - i))).isoformat()
        seen = {reading.check: reading} if reading is not None else {}
        made.append(Round(i + 1, at, at, "t", "good", interval_s=STEP_S, readings=seen))
    return made


def value(number: float, limits: tuple[tuple[str, float], ...] = LIMITS) -> Reading:
    return Reading(CHECK, Outcome.PASS, value=number, limits=limits, unit="s")


GOOD = Reading(CHECK, Outcome.PASS)
BAD = Reading(CHECK, Outcome.FAIL, "rollback")
BLIND = Reading(CHECK, Outcome.UNKNOWN, "hold")


def test_a_value_that_rises_says_when_it_meets_its_next_limit() -> None:
    """It is extrapolated from the last value; the milder limit comes first."""
    trend = trends(rounds(*(value(0.1 * i) for i in range(13))), NOW)[CHECK]
    assert [trend.low, trend.middle, trend.high] == pytest.approx([0.0, 0.6, 1.2])
    assert trend.slope is not None
    assert trend.slope.per_s == pytest.approx(0.1 / STEP_S)
    assert trend.forecast is not None
    assert (trend.forecast.severity, trend.forecast.limit) == ("warn", 2.0)
    assert trend.forecast.in_s == pytest.approx(8 * STEP_S)
    assert slope_text(trend) == "+1.2 s/h"
    assert forecast_text(trend) == "warn 2 s in 40 min"


def test_beyond_the_milder_limit_the_graver_one_is_ahead() -> None:
    """A limit that is passed is not announced; beyond the last one it is now."""
    rise = trends(rounds(*(value(2.0 + 0.1 * i) for i in range(1, 13))), NOW)[CHECK]
    assert rise.forecast is not None
    assert rise.forecast.severity == "page"
    past = trends(rounds(*(value(5.0 + i) for i in range(1, 13))), NOW)[CHECK]
    assert past.forecast is not None
    assert (past.forecast.severity, past.forecast.in_s) == ("page", 0.0)
    assert forecast_text(past) == "beyond page 5"


def test_a_rate_that_must_not_fall_is_met_from_above() -> None:
    """With one limit, the side of the good values is the good side."""
    limit = (("page", 0.98),)
    trend = trends(rounds(*(value(1.0 - 0.001 * i, limit) for i in range(11))), NOW)[CHECK]
    assert trend.forecast is not None
    assert trend.forecast.in_s == pytest.approx(10 * STEP_S)


def test_a_value_that_moves_away_from_its_limit_never_meets_it() -> None:
    """A falling lag announces no limit."""
    trend = trends(rounds(*(value(1.9 - 0.1 * i) for i in range(12))), NOW)[CHECK]
    assert trend.forecast is None
    assert forecast_text(trend) == "no"


@pytest.mark.parametrize(
    ("readings", "doubt"),
    [
        ([value(0.1 * i) for i in range(5)], "5 of 8 values"),
        ([GOOD] * 20, "0 of 8 values"),
        ([value(0.1 * i, ()) for i in range(20)], ""),
    ],
)
def test_too_few_values_have_no_slope_and_meet_no_limit(readings: list[Reading], doubt: str) -> None:
    """The slope is unknown, not zero."""
    trend = trends(rounds(*readings), NOW)[CHECK]
    assert trend.forecast is None
    assert trend.doubt == doubt
    assert (trend.slope is None) == bool(doubt)
    assert forecast_text(trend) == "unknown"
    assert "unknown" in slope_text(trend) or not doubt


def test_many_values_within_a_moment_have_no_slope() -> None:
    """Ten rounds in one minute show no trend."""
    slope, doubt = slope_of([(float(i), float(i)) for i in range(10)])
    assert slope is None
    assert doubt == "under 10 min of values"


def test_noise_is_steady() -> None:
    """A slope whose interval contains zero announces nothing."""
    dice = random.Random(4)
    trend = trends(rounds(*(value(1 + dice.random() * 0.5) for _ in range(60))), NOW)[CHECK]
    assert trend.slope is not None
    assert not trend.slope.certain
    assert slope_text(trend) == "steady"
    assert trend.forecast is None


def test_one_wild_value_does_not_bend_the_slope() -> None:
    """The slope is the median over all pairs."""
    values = [0.01 * i for i in range(40)]
    values[20] = 1e6
    slope, _ = slope_of([(STEP_S * i, v) for i, v in enumerate(values)])
    assert slope is not None
    assert slope.per_s == pytest.approx(0.01 / STEP_S, rel=0.1)


POINTS = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(-1000, 1000)), min_size=8, max_size=30, unique_by=lambda p: p[0]
)


@given(POINTS, st.integers(-50, 50), st.integers(-50, 50))
def test_the_slope_follows_what_is_added(points: list[tuple[int, int]], lift: int, tilt: int) -> None:
    """An added line adds its slope, negated values negate it, and the interval contains it."""
    spread = [(float(x) + 1000 * (i == len(points) - 1), float(y)) for i, (x, y) in enumerate(sorted(points))]
    base, _ = slope_of(spread)
    moved, _ = slope_of([(x, y + lift + tilt * x) for x, y in spread])
    turned, _ = slope_of([(x, -y) for x, y in spread])
    if base is None or moved is None or turned is None:
        return
    assert moved.per_s == pytest.approx(base.per_s + tilt, abs=1e-6)
    assert turned.per_s == pytest.approx(-base.per_s, abs=1e-9)
    assert base.low <= base.per_s <= base.high


def test_many_points_are_thinned_without_losing_their_ends() -> None:
    """A day of rounds becomes at most 150 points, in order."""
    few = thinned([(float(i), float(i % 7)) for i in range(2880)])
    assert len(few) == 150
    assert few == sorted(few)
    assert (few[0][0] < 20, few[-1][0] > 2860) == (True, True)


def test_flapping_is_many_changes_between_seen_good_and_seen_failing() -> None:
    """An unknown in between is no change."""
    assert trends(rounds(GOOD, BAD, GOOD, BAD, GOOD), NOW)[CHECK].flapping
    assert not trends(rounds(GOOD, BLIND, GOOD, BLIND, GOOD, BLIND), NOW)[CHECK].flapping
    assert trends(rounds(GOOD, BLIND, BAD, BLIND, GOOD), NOW)[CHECK].changes == 2


def test_since_when_and_when_it_was_good_last() -> None:
    """Rounds before the window count, too; never is reported as never."""
    seen = rounds(GOOD, BAD, BAD)
    trend = trends(seen, NOW)[CHECK]
    assert (trend.since, trend.last_good) == (seen[1].at, seen[0].at)
    assert trends(rounds(BAD, BAD), NOW)[CHECK].last_good == ""
    trend = trends(
        rounds(BAD, BAD), NOW, {CHECK: Before("fail", "2026-01-01T00:00:00+00:00", "2025-12-31T00:00:00+00:00")}
    )[CHECK]
    assert (trend.since[:10], trend.last_good[:10]) == ("2026-01-01", "2025-12-31")


def test_rounds_from_the_future_are_left_out_and_counted() -> None:
    """A clock that jumped does not change the trend."""
    ahead = rounds(*[value(100.0)] * 3, end=NOW + dt.timedelta(days=2))
    trend = trends([*ahead, *rounds(*(value(0.1) for _ in range(10)))], NOW)[CHECK]
    assert trend.high == 0.1
    assert from_the_future(ahead, NOW) == 3


def test_rounds_out_of_order_are_put_in_order() -> None:
    """A clock that went back leaves times that are not sorted."""
    made = rounds(*(value(0.1 * i) for i in range(12)))
    assert trends(made[::-1], NOW)[CHECK].points == trends(made, NOW)[CHECK].points


def test_a_check_that_was_not_looked_at_in_a_day_has_no_trend() -> None:
    """It appears only with an open incident."""
    assert trends(rounds(GOOD, end=NOW - dt.timedelta(hours=25)), NOW) == {}


@pytest.mark.parametrize(
    ("readings", "way"),
    [
        ([value(1.0)], True),
        ([value(1.0, (("page", 0.5), ("warn", 0.9)))], False),
        ([value(1.0, (("page", 5.0),))], True),
        ([value(1.0, (("page", 0.98),))], False),
        ([value(1.0, (("page", 1.0),))], None),
        ([value(1.0, (("limit", 2.0),)), value(3.0, (("limit", 2.0),))], None),
        ([BLIND], None),
    ],
)
def test_which_side_of_a_limit_is_bad(readings: list[Reading], way: bool | None) -> None:
    """Two limits show it by their order, one by the good values; otherwise it is unknown."""
    assert rising([(0.0, r) for r in readings]) is way


def test_without_knowing_the_side_no_limit_is_announced() -> None:
    """The reason is given."""
    assert (
        forecast_of([(0.0, 1.0)], LIMITS, None, rising=None)[1]
        == "no good value shows on which side of the limit it is"
    )
