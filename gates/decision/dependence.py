"""How many independent samples a run is worth: samples of one stall fail together. Pure, standard library only.

Counts are kept by slots of time. Two things are seen in them, and the worse of both counts:

* blocks: by how much more the share of bad samples varies between stretches of time (or between tenants) than that of
  independent samples would: the design effect of a ratio, with Korn and Graubard's correction for the few blocks that
  it is known from ("Confidence intervals for proportions with small expected number of positive counts estimated from
  survey data", Survey Methodology 24, 1998; R's survey::svyciprop, method "beta");
* stalls: runs of slots in which most samples are bad. A stall longer than a block is seen only here: a run with one
  stall has one bad sample, however many requests met it.

Where nothing bad was seen, nothing is known of dependence: samples count as independent, and `excluded_s` says which
stalls that leaves open.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gates.decision.intervals import student_quantile

FEWEST_BLOCKS = 20
BY_CHANCE = 2.0
"""Runs of bad slots with a smaller design effect are not called stalls."""
Counts = tuple[float, int]
"""Bad samples (or the sum of values), and all samples."""


@dataclass(frozen=True, slots=True)
class Dependence:
    """What the slots of a run show. effect: so many samples are worth one. blocks: how many blocks that is estimated
    from. stalls: the length of each, in seconds.
    """

    effect: float = 1.0
    blocks: int = 0
    stalls: tuple[float, ...] = ()

    def effective(self, bad: float, samples: float, confidence: float) -> tuple[float, float]:
        """Bad samples and all samples, in independent ones. Both are fractions."""
        if self.effect <= 1.0 or samples < 2:
            return bad, samples
        left = samples / self.effect
        if self.blocks > 1:
            ratio = student_quantile(confidence, round(samples) - 1) / student_quantile(confidence, self.blocks - 1)
            left *= ratio**2
        left = max(1.0, left)
        return bad / samples * left, left


def spread(counts: Iterable[Counts], variance: float | None = None) -> float:
    """How much more a share varies between groups than that of independent samples would; at least 1.

    The variance of a ratio with groups as clusters, over that of a binomial share. For sums of values: over that of a
    mean, from the variance of the values.
    """
    pairs = [(bad, n) for bad, n in counts if n]
    total, groups = sum(n for _, n in pairs), len(pairs)
    share = sum(bad for bad, _ in pairs) / total if total else 0.0
    alone = share * (1.0 - share) if variance is None else variance
    if groups < 2 or alone <= 0.0:
        return 1.0
    found = sum((bad - share * n) * (bad - share * n) for bad, n in pairs) * groups / (groups - 1) / total
    return max(1.0, found / alone)


def together(bad: float, samples: float, groups: int, bad_groups: int) -> float:
    """How many samples of a group are worth one if those of a group (a second, a batch) may fail together; at least 1.

    `groups`: with a sample; `bad_groups`: with a bad one. Samples that fail one by one reach a share `1 - (1 - p)^s` of
    the groups of s samples, those that fail together only a share p. The s that fits is the number of independent
    samples in a group. With one group, or only bad ones, nothing is known.
    """
    if not 0 < bad < samples or not 0 < bad_groups < groups:
        return 1.0
    independent = math.log1p(-bad_groups / groups) / math.log1p(-bad / samples)
    return max(1.0, samples / groups / independent)


def dependence(
    slots: Sequence[Counts], slot_s: float, sums: Sequence[Counts] | None = None, variance: float | None = None
) -> Dependence:
    """What consecutive slots of `slot_s` seconds, some perhaps empty, show of the dependence of samples. sums,
    variance: of the values themselves, if their mean is wanted; `slots` then still show the stalls.
    """
    blocks = [one for one in (sums or slots) if one[1]]
    effect, known_from = 1.0, len(blocks)
    while len(blocks) >= 2:
        found = spread(blocks, variance)
        if found > effect:
            effect, known_from = found, len(blocks)
        if len(blocks) < 2 * FEWEST_BLOCKS:
            break
        blocks = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(blocks[::2], blocks[1::2], strict=False)]
    lengths, by_stalls = _stalls(slots)
    if by_stalls > effect:
        effect, known_from = by_stalls, 0
    seen = (length * slot_s for length in lengths if length > 1 and by_stalls >= BY_CHANCE)
    return Dependence(effect, known_from, tuple(seen))


def _stalls(slots: Iterable[Counts]) -> tuple[list[int], float]:
    """The lengths of the runs of bad slots, and the design effect that they cause.

    Runs of independent bad slots have a length-weighted mean of (1+q)/(1-q), q being their share; that is subtracted.
    An empty slot neither ends a run nor lengthens it.
    """
    lengths, samples, run, filled = [], 0, 0, 0
    for bad, n in slots:
        if not n:
            continue
        filled += 1
        if 2 * bad >= n:
            run, samples = run + 1, samples + n
        elif run:
            lengths.append(run)
            run = 0
    if run:
        lengths.append(run)
    saturated = sum(lengths)
    if not saturated or saturated == filled:
        return lengths, 1.0
    share = saturated / filled
    excess = sum(one * one for one in lengths) / saturated - (1.0 + share) / (1.0 - share)
    return lengths, 1.0 + max(0.0, excess) * samples / saturated
