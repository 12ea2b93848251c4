"""Confidence bounds, exact where exact ones exist. Pure, standard library only.

Every bound is one-sided: with `confidence` 0.95 the true value lies above `low` with 95 % and below `high` with 95 %.

* rate: Clopper-Pearson (from the binomial distribution itself, no approximation);
* percentile: order statistics (distribution-free: the number of samples under a quantile is binomial);
* mean: Student's t.

All three take samples as independent; samples of one stall are not, so an interval is never wider than reality.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

_TINY = 1e-300


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method."""
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    result = d
    for m in range(1, 20_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + numerator * d
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = 1.0 + numerator / c
            c = c if abs(c) > _TINY else _TINY
            result *= c * d
        if abs(c * d - 1.0) < 1e-13:
            break
    return result


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    front = math.exp(log_front)
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _beta_fraction(a, b, x) / a
    return 1.0 - front * _beta_fraction(b, a, 1.0 - x) / b


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) for X the number of successes in n trials of probability p."""
    if k < 0:
        return 0.0
    return 1.0 if k >= n else incomplete_beta(n - k, k + 1, 1.0 - p)


def _bisect(low: float, high: float, is_below: Callable[[float], bool]) -> float:
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def rate_bounds(trues: int, total: int, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson bounds of a probability of which `trues` of `total` trials were seen."""
    alpha = 1.0 - confidence
    low = 0.0 if trues == 0 else _bisect(0.0, 1.0, lambda p: 1.0 - binomial_cdf(trues - 1, total, p) < alpha)
    high = 1.0 if trues == total else _bisect(0.0, 1.0, lambda p: binomial_cdf(trues, total, p) > alpha)
    return low, high


def percentile_bounds(ordered: Sequence[float], percent: float, confidence: float) -> tuple[float, float]:
    """Order-statistic bounds of a percentile; infinite where there are too few samples for a bound on that side."""
    n, p, alpha = len(ordered), percent / 100.0, 1.0 - confidence
    below = _last(n, lambda r: binomial_cdf(r - 1, n, p) <= alpha)
    low = ordered[below - 1] if below >= 1 else -math.inf
    above = _last(n, lambda r: binomial_cdf(r - 1, n, p) < confidence) + 1
    high = ordered[above - 1] if above <= n else math.inf
    return low, high


def _last(n: int, holds: Callable[[int], bool]) -> int:
    """The last rank 1..n for which a condition holds that holds up to somewhere and then no more; 0 if for none."""
    low, high = 0, n
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def student_quantile(confidence: float, degrees: int) -> float:
    """The quantile of Student's t distribution for confidence in (0.5, 1)."""

    def cdf(t: float) -> float:
        return 1.0 - 0.5 * incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + t * t))

    return _bisect(0.0, 1e4, lambda t: cdf(t) < confidence)


def mean_bounds(values: Sequence[float], mean: float, confidence: float) -> tuple[float, float]:
    """Student-t bounds of a mean; infinite for fewer than two values."""
    return mean_bounds_of(len(values), math.fsum((v - mean) ** 2 for v in values), mean, confidence)


def mean_bounds_of(n: int, squares: float, mean: float, confidence: float) -> tuple[float, float]:
    """The same from the sum of the squared distances from the mean."""
    if n < 2:
        return -math.inf, math.inf
    spread = math.sqrt(squares / (n - 1))
    half = student_quantile(confidence, n - 1) * spread / math.sqrt(n)
    return mean - half, mean + half


def percentile_minimum(percent: float, confidence: float, *, upper: bool) -> int:
    """The fewest samples for which a bound on that side exists: 59 for p95 at 95 %, 299 for p99."""
    p = percent / 100.0 if upper else 1.0 - percent / 100.0
    if not 0.0 < p < 1.0:
        return 1
    return math.ceil(math.log(1.0 - confidence) / math.log(p) - 1e-9)


def rate_minimum(limit: float, confidence: float, *, upper: bool) -> int:
    """The fewest samples with which a perfect rate is inside the limit: 149 for `rate<0.02` at 95 %."""
    share = limit if upper else 1.0 - limit
    if not 0.0 < share < 1.0:
        return 1
    return math.ceil(math.log(1.0 - confidence) / math.log1p(-share) - 1e-9)
