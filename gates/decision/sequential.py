"""Tests that may be looked at as often as one likes: the chance of ever deciding wrongly stays under the risk. Pure.

An E value is the gain of a bet against a claim. While the claim holds, the chance that it ever reaches 1/risk is at
most the risk (Ville's inequality), whenever one looks and whatever made one look.

* share: the beta-binomial mixture of Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic
  confidence sequences" (arXiv 1810.08240; `beta_binomial` of gostevehoward/confseq), its prior cut off at the limit.
* mean of values in [0, most]: bets on blocks, averaged over a grid, of Waudby-Smith and Ramdas, "Estimating means of
  bounded random variables by betting" (arXiv 2010.09686).

Counts may be fractions: effective numbers of dependent samples (dependence.py).
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from gates.decision.intervals import ShareTest, log_incomplete_beta

OPTIMUM = 6.0
"""The mixture is best at the sample size at which a share at the limit gives so many bad samples: 300 at 2 %."""
LEAST_NULL = 1e-12
"""No number of bets decides about a smaller part of the possible range."""
_GRID = tuple(place / 8.0 for place in range(1, 8))
"""Stakes of the bets on a mean, as shares of the largest stake that cannot lose everything."""


@lru_cache(maxsize=256)
def _prior(limit: float, risk: float) -> tuple[float, float]:
    """The two parameters of the prior: its mean is the limit, its weight fits the size it is best for."""
    half = math.log(1.0 / (2.0 * risk))
    weight = max(0.001, OPTIMUM / min(limit, 1.0 - limit) / (2.0 * half + math.log(1.0 + 2.0 * half)) - 1.0)
    return weight * limit, weight * (1.0 - limit)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_part(a: float, b: float, limit: float, *, under: bool) -> float:
    """The logarithm of the part of a beta distribution on one side of the limit."""
    return log_incomplete_beta(a, b, limit) if under else log_incomplete_beta(b, a, 1.0 - limit)


def log_evidence(bad: float, samples: float, limit: float, risk: float, *, under: bool) -> float:
    """The logarithm of the E value for "the share of bad samples is under the limit" (or over it).

    limit: in (0, 1). risk: it tunes the prior; the test decides at log(1/risk).
    """
    if not 0.0 < limit < 1.0:
        return -math.inf
    a, b = _prior(limit, risk)
    good = samples - bad
    mixture = _log_beta(a + bad, b + good) - _log_beta(a, b)
    sides = _log_part(a + bad, b + good, limit, under=under) - _log_part(a, b, limit, under=under)
    return mixture + sides - bad * math.log(limit) - good * math.log1p(-limit)


def proves(bad: float, samples: float, limit: float, risk: float, *, under: bool) -> bool:
    """Whether the share is proved to be below (or above) the limit, however often this was asked before."""
    return log_evidence(bad, samples, limit, risk, under=under) >= -math.log(risk)


def anytime_test(risk: float) -> ShareTest:
    """The test for any number of looks."""
    return ShareTest(
        lambda bad, n, limit: proves(bad, n, limit, risk, under=True),
        lambda bad, n, limit: proves(bad, n, limit, risk, under=False),
    )


def mean_proved(blocks: Sequence[float], limit: float, most: float, risk: float, *, under: bool) -> bool:
    """Whether the mean is proved to be below (or above) the limit by the means of blocks, each in [0, most]."""
    null = limit / most if 0.0 < limit < most else 0.0
    if null < LEAST_NULL:
        return False
    stakes = [share / (1.0 - null if under else null) for share in _GRID]
    shares = [min(block / most, 1.0) for block in blocks]
    gains = [null - share if under else share - null for share in shares]
    logs = [math.fsum(math.log1p(stake * gain) for gain in gains) for stake in stakes]
    best = max(logs)
    return best + math.log(math.fsum(math.exp(one - best) for one in logs) / len(logs)) >= -math.log(risk)
