"""Which breaches of an alert rule are proved, and which may be chance. Pure.

A rule that is judged by a share of its samples (one task in fifty may fail) breaks its limit now and then where the
true share keeps it: with 20 tenants of 50 tasks each at a true 99 % of successes, some tenant is seen under 98 % in 85
of 100 windows. A page rolls a release back, so it needs proof: of each tenant and of the fleet the exact probability
that so many bad samples come at the limit, and Holm's procedure over all of them, so that a release that keeps the
limit everywhere is paged in at most ALPHA of its windows, however many tenants it has.

Samples of one tenant are taken as independent. Tenants may differ: the fleet's bad samples are counted in the spread
that its tenants show (the ratio's variance with tenants as clusters; Korn and Graubard's effective sample size).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache

from gates.decision.intervals import incomplete_beta

FLEET = "all"
ALPHA = 0.05
"""The risk of one false page in a window, over the fleet and all tenants together."""
MOST_SAMPLES = 1_000_000

Counts = Mapping[str, tuple[int, int]]
"""Subject -> its bad samples and all its samples."""


def proved(counts: Counts, tenants: Iterable[tuple[int, int]], allowed: float) -> frozenset[str]:
    """Subjects of `counts` whose share of bad samples is over `allowed`, by Holm's procedure at ALPHA.

    tenants: bad samples and all samples of each tenant, also of those that have too few to be judged.
    """
    weight = clustering(tenants)
    chances = sorted(
        (_tail(bad / weight, n / weight, allowed) if subject == FLEET else _tail(bad, n, allowed), subject)
        for subject, (bad, n) in counts.items()
    )
    found = []
    for place, (chance, subject) in enumerate(chances):
        if chance > ALPHA / (len(chances) - place):
            break
        found.append(subject)
    return frozenset(found)


def needed(bad: int, samples: int, subjects: int, allowed: float) -> int | None:
    """Samples at which the share that was seen would be proof among so many subjects; None where no number would."""
    share = bad / samples
    if share <= allowed:
        return None

    def proves(n: int) -> bool:
        return _tail(n * share, n, allowed) <= ALPHA / subjects

    low, high = samples, samples
    while high < MOST_SAMPLES and not proves(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proves(middle) else (middle, high)
    return high if high < MOST_SAMPLES else None


@lru_cache(maxsize=65_536)
def _tail(bad: float, samples: float, allowed: float) -> float:
    """P(X >= bad) for X binomial over `samples` trials of probability `allowed`; both counts may be fractions."""
    return 1.0 if bad <= 0 else incomplete_beta(bad, samples - bad + 1, allowed)


def clustering(counts: Iterable[tuple[int, int]]) -> float:
    """By how much more the share of bad samples varies between tenants than independent samples would; at least 1."""
    pairs = [(bad, n) for bad, n in counts if n]
    total, clusters = sum(n for _, n in pairs), len(pairs)
    share = sum(bad for bad, _ in pairs) / total if total else 0.0
    if clusters < 2 or not 0.0 < share < 1.0:
        return 1.0
    variance = math.fsum((bad - share * n) ** 2 for bad, n in pairs) * clusters / (clusters - 1) / total**2
    return max(1.0, variance / (share * (1.0 - share) / total))
