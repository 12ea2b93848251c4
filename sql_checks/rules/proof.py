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

Tenants may differ: the fleet's bad samples are counted in the spread that its tenants show (the ratio's variance with
tenants as clusters). Samples of one tenant are independent, but where a rule's query says into how many groups they
fall (those of one second): what fails together counts once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from gates.decision.intervals import binomial_cdf, binomial_tail, hypergeometric_tail

FLEET = "all"
ALPHA = 0.05
"""The risk of one false page in a window, over the fleet and all tenants together."""
FLOOR_ODDS = 2.5
"""A pass of the fleet excludes so many times the odds of a bad sample that are allowed: 4.9 % where 2 % are."""
CHANCE = 0.02
"""Tenants over the limit are taken for chance where, in a fleet of equals, such a one and so many are no rarer."""
MOST_SAMPLES = 1_000_000


@dataclass(frozen=True, slots=True)
class Count:
    """Bad samples and all samples of a subject. `weight`: how many samples count as one independent sample."""

    bad: int
    samples: int
    weight: float = 1.0

    @property
    def independent(self) -> tuple[float, float]:
        """Bad samples and all samples, in independent ones. Both are fractions."""
        return self.bad / self.weight, self.samples / self.weight


Counts = Mapping[str, Count]
"""Subject -> what was counted of it."""


def proved(counts: Counts, allowed: float) -> frozenset[str]:
    """Subjects whose share of bad samples is over `allowed`, by Holm's procedure at ALPHA."""
    chances = sorted((_tail(*one.independent, allowed), subject) for subject, one in counts.items())
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
    fleet = counts.get(FLEET, Count(1, 1))
    tenants = [one for subject, one in counts.items() if subject != FLEET]
    if fleet.bad > allowed * fleet.samples or not tenants:
        return False

    def beside_others(one: Count) -> float:
        if 2 * one.samples > fleet.samples:  # the others are too few to know their share by: Fisher's exact test
            in_independent = (round(number / one.weight) for number in (one.bad, one.samples, fleet.bad, fleet.samples))
            return hypergeometric_tail(*in_independent)
        others = (fleet.bad - one.bad + 0.5) / (fleet.samples - one.samples + 1)  # half a failure: never zero
        return _tail(*one.independent, min(allowed, others))

    if any(beside_others(one) <= CHANCE / len(tenants) for one in tenants):
        return False
    usual = min(allowed, (fleet.bad + 0.5) / (fleet.samples + 1))
    failed = [one for one in tenants if one.bad]  # the others show no dependence
    together = sum(one.bad for one in failed) / sum(one.independent[0] for one in failed) if failed else 1.0
    expected = sum(
        _tail((int(allowed * one.samples + 1e-9) + 1) / together, one.samples / together, usual) for one in tenants
    )
    return _tail(breaching, len(tenants), expected / len(tenants)) > CHANCE


def needed(one: Count, subjects: int, allowed: float) -> int | None:
    """Samples at which the share that was seen would be proof among so many subjects; None where no number would."""
    share = one.bad / one.samples
    if share <= allowed:
        return None
    found = _fewest(one, lambda n: _tail(n * share, n, allowed) <= ALPHA / subjects)
    return found if found < MOST_SAMPLES else None


def is_sound(fleet: Count, allowed: float) -> bool:
    """Whether so few bad samples of the fleet exclude that its true share is at the floor, or worse."""
    return binomial_cdf(*fleet.independent, floor_of(allowed)) <= ALPHA


def needed_for_sound(fleet: Count, allowed: float) -> int:
    """Samples at which the share that was seen would exclude the floor; the share keeps the limit."""
    share = fleet.bad / fleet.samples
    return _fewest(fleet, lambda n: binomial_cdf(share * n, n, floor_of(allowed)) <= ALPHA)


def floor_of(allowed: float) -> float:
    """The share of bad samples that a pass of the fleet excludes: FLOOR_ODDS times the odds that are allowed."""
    odds = FLOOR_ODDS * allowed / (1.0 - allowed)
    return odds / (1.0 + odds)


def _fewest(one: Count, proves: Callable[[float], bool]) -> int:
    """The fewest samples, from those that were counted on, that prove something, were they as dependent as those;
    `proves` takes independent ones. MOST_SAMPLES where fewer do not.
    """
    low, high = one.samples, one.samples
    while high < MOST_SAMPLES and not proves(high / one.weight):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proves(middle / one.weight) else (middle, high)
    return min(high, MOST_SAMPLES)


@lru_cache(maxsize=65_536)
def _tail(bad: float, samples: float, allowed: float) -> float:
    """The probability of so many bad samples, or more, where the true share is what is allowed."""
    return binomial_tail(bad, samples, allowed)
