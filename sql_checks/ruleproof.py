"""Which breaches of an alert rule are proved, which may be chance, and whether a pass is worth something. Pure.

A rule that is judged by a share of its samples (one task in fifty may fail) breaks its limit now and then where the
true share keeps it: with 20 tenants of 50 tasks each at a true 99 % of successes, some tenant is seen under 98 % in 85
of 100 windows. A page rolls a release back, so it needs proof: of each tenant and of the fleet the exact probability
that so many bad samples come at the limit, and Holm's procedure over all of them, so that a release that keeps the
limit everywhere is paged in at most ALPHA of its windows, however many tenants it has.

A pass needs proof, too, of less: that the fleet is better than a floor. By the bare number a fleet at 95 % passes a
limit of 98 % in 28 of 100 windows of 50 samples; to prove the limit itself takes two thousand samples of a fleet that
is a point better, and a healthy small fleet would hold for ever. A tenant passes by its bare number: with the 50
samples that it needs to be judged, that excludes five times what is allowed.

Samples of one tenant are taken as independent. Tenants may differ: the fleet's bad samples are counted in the spread
that its tenants show (the ratio's variance with tenants as clusters; Korn and Graubard's effective sample size).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from gates.decision.dependence import spread
from gates.decision.intervals import binomial_cdf, binomial_tail, hypergeometric_tail

FLEET = "all"
ALPHA = 0.05
"""The risk of one false page in a window, over the fleet and all tenants together."""
FLOOR_ODDS = 2.5
"""A pass of the fleet excludes so many times the odds of a bad sample that are allowed: 4.9 % where 2 % are."""
CHANCE = 0.02
"""Tenants over the limit are taken for chance where, in a fleet of equals, such a one and so many are no rarer."""
MOST_SAMPLES = 1_000_000

Counts = Mapping[str, tuple[int, int]]
"""Subject -> its bad samples and all its samples."""


def proved(counts: Counts, tenants: Iterable[tuple[int, int]], allowed: float) -> frozenset[str]:
    """Subjects of `counts` whose share of bad samples is over `allowed`, by Holm's procedure at ALPHA.

    tenants: bad samples and all samples of each tenant, also of those that have too few to be judged.
    """
    weight = spread(tenants)
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


def is_chance(breaching: int, counts: Counts, allowed: float) -> bool:
    """Whether tenants that all fail as often as the fleet would look like this: none of `counts` stands out from the
    others, and no more are over the limit than the number that is `breaching`. False where the fleet is over it, too.
    """
    bad, samples = counts.get(FLEET, (1, 1))
    tenants = [one for subject, one in counts.items() if subject != FLEET]
    if bad > allowed * samples or not tenants:
        return False

    def beside_others(b: int, n: int) -> float:
        if 2 * n > samples:  # the others are too few to know their share by: both are compared (Fisher's exact test)
            return hypergeometric_tail(b, n, bad, samples)
        return _tail(b, n, min(allowed, (bad - b + 0.5) / (samples - n + 1)))  # half a failure more: nobody is perfect

    if any(beside_others(b, n) <= CHANCE / len(tenants) for b, n in tenants):
        return False
    usual = min(allowed, (bad + 0.5) / (samples + 1))
    expected = sum(_tail(int(allowed * n + 1e-9) + 1, n, usual) for _, n in tenants)
    return _tail(breaching, len(tenants), expected / len(tenants)) > CHANCE


def needed(bad: int, samples: int, subjects: int, allowed: float) -> int | None:
    """Samples at which the share that was seen would be proof among so many subjects; None where no number would."""
    share = bad / samples
    if share <= allowed:
        return None
    found = _fewest(samples, lambda n: _tail(n * share, n, allowed) <= ALPHA / subjects)
    return found if found < MOST_SAMPLES else None


def is_sound(bad: int, samples: int, tenants: Iterable[tuple[int, int]], allowed: float) -> bool:
    """Whether so few bad samples of the fleet exclude that its true share is at the floor, or worse."""
    weight = spread(tenants)
    return binomial_cdf(bad / weight, samples / weight, floor_of(allowed)) <= ALPHA


def needed_for_sound(bad: int, samples: int, tenants: Iterable[tuple[int, int]], allowed: float) -> int:
    """Samples at which the share that was seen would exclude the floor; the share keeps the limit."""
    weight, share = spread(tenants), bad / samples
    return _fewest(samples, lambda n: binomial_cdf(share * n / weight, n / weight, floor_of(allowed)) <= ALPHA)


def floor_of(allowed: float) -> float:
    """The share of bad samples that a pass of the fleet excludes: FLOOR_ODDS times the odds that are allowed."""
    odds = FLOOR_ODDS * allowed / (1.0 - allowed)
    return odds / (1.0 + odds)


def _fewest(samples: int, proves: Callable[[int], bool]) -> int:
    """The fewest samples, from so many on, that prove something; MOST_SAMPLES where fewer do not."""
    low, high = samples, samples
    while high < MOST_SAMPLES and not proves(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proves(middle) else (middle, high)
    return min(high, MOST_SAMPLES)


@lru_cache(maxsize=65_536)
def _tail(bad: float, samples: float, allowed: float) -> float:
    """The probability of so many bad samples, or more, where the true share is what is allowed."""
    return binomial_tail(bad, samples, allowed)
