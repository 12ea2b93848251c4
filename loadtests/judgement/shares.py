"""Thresholds as limits on a share of bad samples: a rate is one, and so is a percentile. Pure.

`p(95)<2500` says that fewer than 5 % of the samples take that long; `rate>0.98` that fewer than 2 % are no success.
"""

import bisect

from gates.decision.intervals import exact_test
from gates.decision.sequential import anytime_test
from loadtests.engine.hdr import widened
from loadtests.engine.sinks import RateSink, TrendSink
from loadtests.judgement.looks import Looks
from loadtests.thresholds.language import Expression, MetricType

RISK = 0.05
"""The risk of a wrong pass at the limit, and that of a wrong failure; each is split over the two tests."""
FIXED_RISK, ANYTIME_RISK = 0.04, 0.01
FIXED, ANYTIME = exact_test(FIXED_RISK), anytime_test(ANYTIME_RISK)
LEAST_SHARE = 1e-12
"""No run is long enough to decide a smaller share, and logarithms of one would overflow."""
UPPER, LOWER = frozenset({"<", "<="}), frozenset({">", ">="})


def allowed_bad(e: Expression, kind: MetricType) -> float | None:
    """The share of bad samples under which the threshold holds; None where it is no limit on a share."""
    if e.operator not in UPPER | LOWER:
        return None
    match kind:
        case MetricType.RATE:
            share = e.limit if e.operator in UPPER else 1.0 - e.limit
        case MetricType.TREND if e.method in {"p", "med"}:
            percent = 50.0 if e.method == "med" else e.percentile
            share = 1.0 - percent / 100.0 if e.operator in UPPER else percent / 100.0
        case _:
            return None
    return min(max(share, LEAST_SHARE), 1.0 - LEAST_SHARE) if 0.0 < share < 1.0 else None


def is_bad(e: Expression, value: float) -> bool:
    """Whether one sample is on the wrong side; of a rate, 1 is a sample that is not zero."""
    if e.method == "rate":
        return bool(value) is (e.operator in UPPER)
    return not e.holds(value)


def bad_of(e: Expression, sink: RateSink | TrendSink) -> tuple[int, int]:
    """Bad samples at least, and at most: they differ where values are rounded."""
    if isinstance(sink, RateSink):
        bad = sink.trues if e.operator in UPPER else sink.total - sink.trues
        return bad, bad
    ordered, found = sink.in_order(), []
    for limit in widened(e.limit, e.limit, sink.error):
        below = (bisect.bisect_left if e.operator in {"<", ">="} else bisect.bisect_right)(ordered, limit)
        found.append(len(ordered) - below if e.operator in UPPER else below)
    return min(found), max(found)


def proofs(least: float, most: float, n: int, allowed: float, looks: Looks) -> tuple[bool, bool]:
    """Whether the share of bad samples is proved to be under what is allowed, and whether over it.

    Of `n` samples at least `least` and at most `most` are bad.
    """
    effective = looks.dependence.effective
    passes = ANYTIME.under(*effective(most, n, 1.0 - ANYTIME_RISK), allowed)
    fails = ANYTIME.over(*effective(least, n, 1.0 - ANYTIME_RISK), allowed)
    if looks.reached:
        (of_pass, n_pass), (of_fail, n_fail) = looks.first or (most, n), looks.first or (least, n)
        passes = passes or FIXED.under(*effective(of_pass, n_pass, 1.0 - FIXED_RISK), allowed)
        fails = fails or FIXED.over(*effective(of_fail, n_fail, 1.0 - FIXED_RISK), allowed)
    return passes, fails
