"""Check by check over a history: values over time, slopes, flapping. Pure; standard library.

The slope is Theil and Sen's (the median of the slopes of all pairs of points), which an outlier cannot bend; it counts
only if the 95 % interval of Sen (1968, from Kendall's variance) excludes zero. Fewer than `LEAST_POINTS` values, or
values over less than `LEAST_SPAN_S`, have no slope: that is unknown, not zero.
"""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from gates.evidence import Outcome
from gates.watch.rounds import Reading, Round

WINDOW = dt.timedelta(hours=24)
LEAST_POINTS = 8
LEAST_SPAN_S = 600.0
MOST_POINTS = 150
"""The number of pairs grows with the square: above this, each group of points is replaced by its median."""
FLAPS = 4
"""So many changes between good and failing in the window are flapping."""
CLOCK_TOLERANCE = dt.timedelta(seconds=60)
NORMAL_95 = 1.96


@dataclass(frozen=True, slots=True)
class Slope:
    """Units per second: the median of all pairs, and its 95 % interval."""

    per_s: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class LimitForecast:
    """The limit that is reached first at the slope: its name, number, and in how many seconds (0: already)."""

    severity: str
    limit: float
    in_s: float


@dataclass(frozen=True, slots=True)
class Trend:
    """One check over the window.

    reading: the last one. since: the first round since which its outcome is the same. last_good: when it was last seen
    good, empty for never in this history. points: (seconds after the epoch, value). marks: (seconds after the epoch,
    outcome) of every round. changes: between good and failing. slope, forecast: None if unknown, and `doubt` says why.
    """

    check: str
    reading: Reading
    since: str
    last_good: str
    points: tuple[tuple[float, float], ...] = ()
    marks: tuple[tuple[float, str], ...] = ()
    changes: int = 0
    low: float | None = None
    middle: float | None = None
    high: float | None = None
    slope: Slope | None = None
    forecast: LimitForecast | None = None
    doubt: str = ""

    @property
    def flapping(self) -> bool:
        return self.changes >= FLAPS


@dataclass(frozen=True, slots=True)
class Before:
    """A check before the displayed rounds: its outcome, since when, and when it was last good."""

    outcome: str
    since: str
    last_good: str


def trends(rounds: Sequence[Round], now: dt.datetime, before: Mapping[str, Before] | None = None) -> dict[str, Trend]:
    """The trend of every check that a round of the window looked at. Rounds stamped in the future are left out."""
    earlier = before or {}
    past = [r for r in rounds if r.started <= now + CLOCK_TOLERANCE]
    checks: dict[str, list[tuple[Round, Reading]]] = {}
    for one in past:
        for name, reading in one.readings.items():
            checks.setdefault(name, []).append((one, reading))
    start = now - WINDOW
    return {
        name: _trend(seen, start, earlier.get(name))
        for name, seen in sorted(checks.items())
        if any(r.started >= start for r, _ in seen)
    }


def from_the_future(rounds: Sequence[Round], now: dt.datetime) -> int:
    """How many rounds are stamped later than now: a clock jumped."""
    return sum(r.started > now + CLOCK_TOLERANCE for r in rounds)


def _trend(seen: Sequence[tuple[Round, Reading]], start: dt.datetime, before: Before | None) -> Trend:
    last_round, last = seen[-1]
    since, whole = last_round.at, True
    for one, reading in reversed(seen):
        if reading.outcome is not last.outcome:
            whole = False
            break
        since = one.at
    if whole and before is not None and before.outcome == last.outcome.value:
        since = before.since
    good = next((r.at for r, reading in reversed(seen) if reading.outcome is Outcome.PASS), "")
    good = good or (before.last_good if before is not None else "")
    recent = sorted(
        ((r.started.timestamp(), reading) for r, reading in seen if r.started >= start), key=lambda pair: pair[0]
    )  # a clock may have gone back
    points = tuple((at, x.value) for at, x in recent if x.value is not None and math.isfinite(x.value))
    settled = [x.outcome for _, x in recent if x.outcome is not Outcome.UNKNOWN]
    values = [v for _, v in points]
    slope, doubt = slope_of(points)
    limits = next((x.limits for _, x in reversed(recent) if x.limits), ())
    forecast, why = forecast_of(points, limits, slope, rising=rising(recent))
    return Trend(
        last.check,
        last,
        since,
        good,
        points,
        tuple((at, x.outcome.value) for at, x in recent),
        sum(a is not b for a, b in pairwise(settled)),
        min(values, default=None),
        median(values) if values else None,
        max(values, default=None),
        slope,
        forecast,
        doubt or why,
    )


def slope_of(points: Sequence[tuple[float, float]]) -> tuple[Slope | None, str]:
    """Theil and Sen's slope with its interval, or None and why there is none."""
    ordered = thinned(sorted(points))
    if len(ordered) < LEAST_POINTS:
        return None, f"{len(ordered)} of {LEAST_POINTS} values"
    if ordered[-1][0] - ordered[0][0] < LEAST_SPAN_S:
        return None, f"under {LEAST_SPAN_S / 60:.0f} min of values"
    slopes = sorted(
        (y2 - y1) / (x2 - x1) for i, (x1, y1) in enumerate(ordered) for x2, y2 in ordered[i + 1 :] if x2 > x1
    )
    n = len(ordered)
    ties: dict[float, int] = {}
    for _, y in ordered:
        ties[y] = ties.get(y, 0) + 1
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties.values())) / 18
    reach = NORMAL_95 * math.sqrt(max(variance, 0.0))
    low = max(0, math.floor((len(slopes) - reach) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + reach) / 2))
    return Slope(median(slopes), slopes[low], slopes[high]), ""


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS points: the median time and value of each equal group."""
    if len(points) <= MOST_POINTS:
        return list(points)
    cuts = [round(i * len(points) / MOST_POINTS) for i in range(MOST_POINTS + 1)]
    pieces = [points[a:b] for a, b in pairwise(cuts)]
    return [(median(x for x, _ in p), median(y for _, y in p)) for p in pieces]


def rising(readings: Sequence[tuple[float, Reading]]) -> bool | None:
    """Whether more is worse; None if the readings do not show it. With two limits, it is so if the worse limit is the
    higher one; else good values that all lie on one side of the limit tell.
    """
    for _, one in reversed(readings):
        named = dict(one.limits)
        graded = [named[s] for s in ("page", "warn", "investigate") if s in named]
        if len(graded) > 1 and graded[0] != graded[-1]:
            return graded[0] > graded[-1]
    sides = {
        one.value < limit
        for _, one in readings
        if one.outcome is Outcome.PASS and one.value is not None
        for _, limit in one.limits
        if one.value != limit
    }
    return sides.pop() if len(sides) == 1 else None


def forecast_of(
    points: Sequence[tuple[float, float]],
    limits: Sequence[tuple[str, float]],
    slope: Slope | None,
    *,
    rising: bool | None,
) -> tuple[LimitForecast | None, str]:
    """When the next limit is reached, from the last value at the slope; None if unknown or never."""
    if not points or not limits:
        return None, ""
    if rising is None:
        return None, "no good value shows on which side of the limit it is"
    now = max(points)[1]
    sign = 1.0 if rising else -1.0
    ahead = sorted((sign * (limit - now), name, limit) for name, limit in limits)
    over = [a for a in ahead if a[0] < 0]
    left = [a for a in ahead if a[0] >= 0]
    if not left:
        return LimitForecast(over[-1][1], over[-1][2], 0.0), ""
    if slope is None:
        return None, ""
    if not slope.certain or slope.per_s * sign <= 0:
        return None, "it does not move towards its limit"
    room, name, limit = left[0]
    return LimitForecast(name, limit, room / (slope.per_s * sign)), ""
