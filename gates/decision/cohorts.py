"""Whether the tenants that have a release on fare worse than those that have not. Pure, standard library only.

The unit is the tenant: ten events of one tenant are not ten tenants. Each has one number, its share of bad events since
the step, less what its own past foretells (CUPED: Deng, Xu, Kohavi and Walker, WSDM 2013; the slope 1 would be
difference in differences, the slope 0 none). Shares are averaged over tenants. A tenant weighs by its events before the
step, and at most as much as the median tenant: what the release does to its traffic changes no weight, and a few large
tenants cannot decide.

The difference of both means is bounded twice, and the risk is split. Once at the end of the bake, over what came in
it, whenever that is looked at: by Student's t (Welch). And at any time, however often one looks: by a normal mixture
over the information that has come in (Robbins 1970; Howard, Ramdas, McAuliffe and Sekhon, arXiv 1810.08240, equation
14), wider by Student's t for the few tenants that its variance is known from. The variance is that between tenants, and
at least the binomial one of their events with one bad event more than was seen: where nothing failed yet, little is
known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, median

from gates.decision.intervals import binomial_cdf, binomial_tail, bisect, hypergeometric_tail, student_quantile
from gates.evidence import JsonValue, Outcome

FAIL_RISK = 0.01
"""Risk of a wrong failure at the margin, over all looks together: any of several checks rolls back."""
PASS_RISK = 0.05
"""Risk of a wrong pass at the margin, over all looks together: all checks must pass."""
SHARE_RISK = 0.001
"""Risk of wrongly saying that another share of tenants than planned has the release. Each look is a new test."""
DRAW_RISK = 1e-6
"""The same risk if the flag's function picks the tenants: all looks see one draw, an unlucky one would always hold."""
TO_FAIL, TO_PASS = 1.5, 3.0
"""The bounds are tightest if the margin is so many standard errors."""
LEAST_BAKE_MINUTES = 10
"""A shorter bake counts as so long: that much time is compared, with as long a past."""
BEFORE_SHARE, BAKE_SHARE, SINCE_SHARE = 5 / 20, 12 / 20, 15 / 20
"""Which events a look reads: those before the step, those of its bake, and all since the step."""
SHOWN_TENANTS = 5
MOST_GROWTH = 50.0
"""If so many times as many events would be needed, only more tenants would decide."""


@dataclass(frozen=True, slots=True)
class CohortLimits:
    """What the policy allows (gate.yaml: rollout.cohorts). margin_points: by so many percentage points those with the
    release may do worse; margin_percent: by so much longer their events may wait, a wait under lag_floor_s counting as
    none; fewest_tenants: so many of equal weight are needed on either side; most_events: so many one look reads.
    """

    margin_points: float = 0.5
    margin_percent: float = 25.0
    lag_floor_s: float = 2.0
    fewest_tenants: int = 10
    most_events: int = 20_000


@dataclass(frozen=True, slots=True)
class TenantCounts:
    """Bad events and all events of one tenant, since the step (or in its bake) and for as long before it."""

    tenant: str
    is_on: bool
    bad: int
    events: int
    bad_before: int
    events_before: int


@dataclass(frozen=True, slots=True)
class Cohort:
    """One side: its tenants, their events, what so many tenants of equal weight would be worth, the mean share of bad
    events with its variance and third moment, and the least, quartiles and greatest of its tenants' shares.
    """

    tenants: int = 0
    events: int = 0
    worth: float = 0.0
    mean: float = 0.0
    variance: float = 0.0
    third: float = 0.0
    shares: tuple[float, ...] = ()

    def to_json(self) -> dict[str, JsonValue]:
        shares = [round(one, 6) for one in self.shares]
        return {"tenants": self.tenants, "events": self.events, "mean": round(self.mean, 6), "shares": [*shares]}


@dataclass(frozen=True, slots=True)
class CohortComparison:
    """What two cohorts show. difference: of the mean shares, on minus off, within [low, high] by the test of `look`.
    slope: how much of its past share a tenant keeps.
    """

    outcome: Outcome
    on: Cohort
    off: Cohort
    difference: float = 0.0
    low: float = -1.0
    high: float = 1.0
    slope: float = 0.0
    worst: tuple[TenantCounts, ...] = ()
    look: str = ""

    @property
    def variance(self) -> float:
        return self.on.variance + self.off.variance

    def skewed(self, half: float, side: float) -> float:
        """The half width on one side (-1, 1) of the difference, with Hall's correction for its skewness where that is
        towards this side: most means are then short of the true one.
        """
        error = math.sqrt(self.variance)
        skewness = side * (self.on.third - self.off.third) / error**3
        return half + error * max(0.0, skewness) * (2.0 * (half / error) ** 2 + 1.0) / 6.0

    @property
    def degrees(self) -> int:
        """Welch's degrees of freedom, of so many tenants as the cohorts are worth."""
        parts = [(side.variance, side.worth - 1.0) for side in (self.on, self.off)]
        return max(1, int(self.variance**2 / math.fsum(variance**2 / left for variance, left in parts)))


def compare(
    tenants: Sequence[TenantCounts], margin: float, fewest: int, planned: Sequence[TenantCounts] | None = None
) -> CohortComparison:
    """Whether those that are on have a share of bad events that is proved to be less, or more, than `margin` worse.

    tenants: their events since the step; planned: those of the bake alone, once it is over. fewest: so many tenants of
    equal weight must be on, and so many off. Tenants without a past are left out.
    """
    found = _compare(tenants, margin, fewest, ANYTIME)
    if planned is None or found.outcome is Outcome.FAIL:
        return found
    by_plan = _compare(planned, margin, fewest, PLANNED)
    return found if by_plan.outcome is Outcome.UNKNOWN else by_plan


def _compare(tenants: Sequence[TenantCounts], margin: float, fewest: int, look: RiskShare) -> CohortComparison:
    counted = [t for t in tenants if t.events and t.events_before]
    sides = [[t for t in counted if t.is_on is is_on] for is_on in (True, False)]
    if not all(sides):
        on, off = (Cohort(len(side), sum(t.events for t in side)) for side in sides)
        return CohortComparison(Outcome.UNKNOWN, on, off)
    cap = median(t.events_before for t in counted)
    weighed = [
        [(min(t.events_before, cap), t.bad / t.events, t.bad_before / t.events_before) for t in side] for side in sides
    ]
    slope, past = _slope(weighed), _mean([(w, before) for side in weighed for w, _, before in side])
    on, off = (_cohort(side, own, slope, past) for side, own in zip(sides, weighed, strict=True))
    found = CohortComparison(
        Outcome.UNKNOWN, on, off, on.mean - off.mean, slope=slope, worst=_worst(*sides), look=look.name
    )
    if min(on.worth, off.worth) < fewest:
        return found
    below = look.half_width(found.variance, found.degrees, margin / TO_FAIL, look.fail_risk)
    above = look.half_width(found.variance, found.degrees, margin / TO_PASS, look.pass_risk)
    low, high = found.difference - found.skewed(below, -1.0), found.difference + found.skewed(above, 1.0)
    found = replace(found, low=low, high=high)
    if low > margin:
        return replace(found, outcome=Outcome.FAIL)
    if high < margin:
        return replace(found, outcome=Outcome.PASS)
    return found


def half_width(variance: float, degrees: int, best: float, risk: float) -> float:
    """How far a difference with this variance may be from the true one on one side, whenever one looks. best: the
    standard error at which the bound is tightest.
    """
    scale = -2.0 * math.log(2.0 * risk)
    prior = best**-2 / (scale + math.log1p(scale))
    spent = prior * variance
    normal = math.sqrt(variance * (1.0 + spent) * (math.log1p(1.0 / spent) + scale))
    return normal * student_quantile(1.0 - risk, degrees) / NormalDist().inv_cdf(1.0 - risk)


def of_one_look(variance: float, degrees: int, _best: float, risk: float) -> float:
    """`half_width` for the one planned look: Student's t."""
    return math.sqrt(variance) * student_quantile(1.0 - risk, degrees)


@dataclass(frozen=True, slots=True)
class RiskShare:
    """A test with its part of the risk of each verdict."""

    name: str
    fail_risk: float
    pass_risk: float
    half_width: Callable[[float, int, float, float], float]


PLANNED = RiskShare("at the end of the bake", 0.45 * FAIL_RISK, 0.4 * PASS_RISK, of_one_look)
ANYTIME = RiskShare("at any time", 0.35 * FAIL_RISK, 0.1 * PASS_RISK, half_width)
"""Half of a pass's risk and a fifth of a failure's are left for the error of the approximations."""


def growth(found: CohortComparison, margin: float, planned: float | None = None) -> float | None:
    """How many times as many events would decide, if the true difference is the one seen. planned: how many times as
    many there will be at the end of the bake; None if it is over. Returns None if only more tenants would decide.
    """
    room, variance, degrees = abs(margin - found.difference), found.variance, found.degrees
    is_better = found.difference < margin
    best = margin / (TO_PASS if is_better else TO_FAIL)

    def decides(times: float, look: RiskShare = ANYTIME) -> bool:
        risk = look.pass_risk if is_better else look.fail_risk
        return look.half_width(variance / times, degrees, best, risk) < room

    times = bisect(1.0, MOST_GROWTH, lambda one: not decides(one)) if decides(MOST_GROWTH) else None
    if planned is None or not decides(planned, PLANNED):
        return times
    return planned if times is None else min(times, planned)


def is_as_planned(on: int, tenants: int, percent: int, risk: float = SHARE_RISK) -> bool:
    """Whether so many tenants may be on by chance, if the plan has `percent` of them on."""
    share = percent / 100.0
    if share <= 0.0 or share >= 1.0:
        return on == round(share * tenants)
    return min(binomial_cdf(on, tenants, share), binomial_tail(on, tenants, share)) >= risk / 2.0


def silent_by_chance(on: tuple[int, int], off: tuple[int, int]) -> bool:
    """Whether so many of the tenants that are on may be silent by chance, compared with those that are off (Fisher's
    test). on, off: how many had events before the step and none since, and how many had events before it.
    """
    return hypergeometric_tail(on[0], on[1], on[0] + off[0], on[1] + off[1]) >= SHARE_RISK


Weighed = Sequence[tuple[float, float, float]]
"""Of each tenant: its weight, its share of bad events since the step, and before it."""


def _mean(weighed: Sequence[tuple[float, float]]) -> float:
    return math.fsum(weight * value for weight, value in weighed) / math.fsum(weight for weight, _ in weighed)


def _slope(sides: Sequence[Weighed]) -> float:
    """The least-squares slope within both cohorts, between 0 (the past tells nothing) and 1."""
    shared = spread = 0.0
    for side in sides:
        since, before = _mean([(w, now) for w, now, _ in side]), _mean([(w, then) for w, _, then in side])
        shared += math.fsum(w * (then - before) * (now - since) for w, now, then in side)
        spread += math.fsum(w * (then - before) ** 2 for w, _, then in side)
    return min(1.0, max(0.0, shared / spread)) if spread else 0.0


def _cohort(side: Sequence[TenantCounts], weighed: Weighed, slope: float, past: float) -> Cohort:
    adjusted = [(w, now - slope * (then - past)) for w, now, then in weighed]
    mean, count = _mean(adjusted), len(side)
    total, squares = math.fsum(w for w, _ in adjusted), math.fsum(w * w for w, _ in adjusted)
    apart = [w * (one - mean) / total for w, one in adjusted]
    between = math.fsum(one * one for one in apart)
    events = sum(t.events for t in side)
    share = (sum(t.bad for t in side) + 1) / (events + 2)
    thin = math.fsum(w * w / t.events for (w, _), t in zip(adjusted, side, strict=True)) / total**2
    shares = sorted(now for _, now, _ in weighed)
    return Cohort(
        count,
        events,
        total**2 / squares,
        mean,
        max(between * count / (count - 1), share * (1.0 - share) * thin) if count > 1 else math.inf,
        math.fsum(one * one * one for one in apart),
        tuple(shares[round(quarter * (count - 1) / 4)] for quarter in range(5)),
    )


def _worst(on: Sequence[TenantCounts], off: Sequence[TenantCounts]) -> tuple[TenantCounts, ...]:
    """The tenants that are on with the most bad events beyond what the others' share predicts."""
    usual = (sum(t.bad for t in off) + 1) / (sum(t.events for t in off) + 2)

    def excess(t: TenantCounts) -> float:
        return (t.bad - usual * t.events) / math.sqrt(usual * t.events)

    return tuple(sorted((t for t in on if excess(t) > 0.0), key=lambda t: (-excess(t), t.tenant))[:SHOWN_TENANTS])
