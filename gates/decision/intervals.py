"""Confidence bounds, exact where exact ones exist. Pure, standard library only.

Every bound is one-sided: with `confidence` 0.95 the true value lies above `low` with 95 % and below `high` with 95 %.

* rate: Clopper-Pearson (from the binomial distribution itself, no approximation);
* percentile: order statistics (distribution-free: the number of samples under a quantile is binomial);
* mean: Student's t, corrected for skewed values (Hall, "Inverting an Edgeworth expansion", Annals of Statistics 11,
  1983). Where they are too few for that (Cochran, Sampling Techniques, 1977: fewer than 25 times the squared skewness),
  Cantelli's inequality.

All three take samples as independent and are for one look. Samples of one stall are not independent: dependence.py says
how many they are worth. Looking again and again needs the tests of sequential.py.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

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


def log_incomplete_beta(a: float, b: float, x: float) -> float:
    """The logarithm of the regularised incomplete beta function I_x(a, b); it stays exact where that underflows."""
    if x <= 0.0:
        return -math.inf
    if x >= 1.0:
        return 0.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1.0) / (a + b + 2.0):
        return log_front + math.log(_beta_fraction(a, b, x) / a)
    rest = math.exp(log_front) * _beta_fraction(b, a, 1.0 - x) / b
    return math.log1p(-rest) if rest < 1.0 else -math.inf


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    return math.exp(log_incomplete_beta(a, b, x))


def binomial_cdf(k: float, n: float, p: float) -> float:
    """P(X <= k) for X the number of bad samples of n; both counts may be fractions (dependence.py)."""
    if k < 0:
        return 0.0
    return 1.0 if k >= n else incomplete_beta(n - k, k + 1.0, 1.0 - p)


def binomial_tail(k: float, n: float, p: float) -> float:
    """P(X >= k), likewise."""
    return 1.0 if k <= 0 else incomplete_beta(k, n - k + 1.0, p)


def hypergeometric_tail(k: int, n: int, bad: int, total: int) -> float:
    """The probability that `n` of `total` samples, of which `bad` are bad, have at least k of these (Fisher's test)."""
    least, most = max(0, n + bad - total), min(n, bad)
    if k <= least:
        return 1.0
    if k > most:
        return 0.0
    if k * total <= n * bad:  # sum the smaller tail
        return 1.0 - hypergeometric_tail(n - k + 1, n, total - bad, total)
    logs = math.lgamma(n + 1) + math.lgamma(total - n + 1) + math.lgamma(bad + 1) + math.lgamma(total - bad + 1)
    logs -= math.lgamma(total + 1) + math.lgamma(k + 1) + math.lgamma(n - k + 1)
    logs -= math.lgamma(bad - k + 1) + math.lgamma(total - n - bad + k + 1)
    term = found = math.exp(logs)
    for one in range(k, most):
        term *= (n - one) / (one + 1) * (bad - one) / (total - n - bad + one + 1)
        found += term
        if term < found * 1e-12:
            break
    return min(1.0, found)


def bisect(low: float, high: float, is_below: Callable[[float], bool]) -> float:
    """Where a condition that holds at `low` stops holding before `high`."""
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True, slots=True)
class ShareTest:
    """Whether (bad samples, all samples, a limit) prove that the true share is below, or above, the limit."""

    under: Callable[[float, float, float], bool]
    over: Callable[[float, float, float], bool]


def exact_test(risk: float) -> ShareTest:
    """The test of Clopper and Pearson, for one look at a number of samples that was fixed in advance."""
    return ShareTest(
        lambda bad, n, limit: binomial_cdf(bad, n, limit) <= risk,
        lambda bad, n, limit: binomial_tail(bad, n, limit) <= risk,
    )


def share_bounds(bad: float, n: float, test: ShareTest) -> tuple[float, float]:
    """The shares that a test does not rule out."""
    share = bad / n
    low = 0.0 if bad <= 0 else bisect(0.0, share, lambda p: test.over(bad, n, p))
    high = 1.0 if bad >= n else bisect(share, 1.0, lambda p: not test.under(bad, n, p))
    return low, high


def rate_bounds(trues: int, total: int, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson bounds of a probability of which `trues` of `total` trials were seen."""
    return share_bounds(trues, total, exact_test(1.0 - confidence))


def quantile_bounds(
    ordered: Sequence[float], percent: float, test: ShareTest, worth: float | None = None
) -> tuple[float, float]:
    """Order-statistic bounds of a percentile; infinite on a side with too few samples. worth: how many independent
    samples the values are worth; None: all of them.
    """
    n, p = len(ordered), percent / 100.0
    one = 1.0 if worth is None else worth / n
    below = _last(n, lambda r: test.under((r - 1) * one, n * one, p))
    low = ordered[below - 1] if below >= 1 else -math.inf
    above = _last(n, lambda r: not test.over(r * one, n * one, p)) + 1
    high = ordered[above - 1] if above <= n else math.inf
    return low, high


def percentile_bounds(ordered: Sequence[float], percent: float, confidence: float) -> tuple[float, float]:
    """`quantile_bounds` by the exact test, for independent samples."""
    return quantile_bounds(ordered, percent, exact_test(1.0 - confidence))


def _last(n: int, holds: Callable[[int], bool]) -> int:
    """The last rank 1..n up to which a condition holds; 0 if it never does."""
    low, high = 0, n
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


@lru_cache(maxsize=4096)
def student_quantile(confidence: float, degrees: int) -> float:
    """The quantile of Student's t distribution for confidence in (0.5, 1)."""

    def cdf(t: float) -> float:
        return 1.0 - 0.5 * incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + t * t))

    return bisect(0.0, 1e4, lambda t: cdf(t) < confidence)


def mean_bounds(values: Sequence[float], mean: float, confidence: float) -> tuple[float, float]:
    """Student-t bounds of a mean; infinite for fewer than two values."""
    squares = sum((v - mean) * (v - mean) for v in values)
    return mean_bounds_of(len(values), squares / max(1, len(values) - 1), mean, confidence)


COCHRAN = 25.0


def mean_bounds_of(
    n: float, variance: float, mean: float, confidence: float, skewness: float = 0.0
) -> tuple[float, float]:
    """`mean_bounds` from the variance of the values; n: how many independent ones they are worth.

    skewness: of the values. If positive, the sample mean is mostly below the true one, so the upper bound moves out;
    the other one stays, on the safe side.
    """
    if n < 2:
        return -math.inf, math.inf
    error, quantile = math.sqrt(variance / n), student_quantile(confidence, round(n) - 1)
    farther = quantile + abs(skewness) * (2.0 * quantile**2 + 1.0) / (6.0 * math.sqrt(n))
    if n < COCHRAN * skewness * skewness:
        farther = max(farther, math.sqrt(confidence / (1.0 - confidence)))
    low, high = (farther, quantile) if skewness < 0.0 else (quantile, farther)
    found = mean - low * error, mean + high * error
    return found if all(map(math.isfinite, found)) else (-math.inf, math.inf)


def rate_minimum(limit: float, confidence: float, *, upper: bool) -> int:
    """The fewest samples with which a perfect rate is inside the limit: 149 for `rate<0.02` at 95 %."""
    share = limit if upper else 1.0 - limit
    if not 0.0 < share < 1.0:
        return 1
    return math.ceil(min(math.log(1.0 - confidence) / math.log1p(-share), 1e18) - 1e-9)
