"""Measures the checks by the matrix: the smallest set that still kills every fault, and its cost. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

MOST_COMBINATIONS = 200_000
"""The most sets that are tried for the exact answer; beyond that the answer is greedy, and says so."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a check took in a clean run: seconds, and things observed (each a request, a row or a sample)."""

    seconds: float = 0.0
    observed: int = 0


@dataclass(frozen=True, slots=True)
class Minimal:
    """The smallest set, cheapest first among those of one size; `exact` False: a smaller one may exist."""

    checks: tuple[str, ...] = ()
    seconds: float = 0.0
    observed: int = 0
    exact: bool = True
    faults: int = 0


def smallest_set(killers: Mapping[str, Iterable[str]], costs: Mapping[str, Cost]) -> Minimal:
    """A smallest set of checks that hits the killers of every fault (a hitting set), the cheapest in seconds.

    A check that is some fault's only killer is in every such set; the rest is small and tried in full, or else greedy.
    """
    needs = {fault: frozenset(checks) for fault, checks in killers.items() if checks}
    forced = {next(iter(checks)) for checks in needs.values() if len(checks) == 1}
    open_needs = [checks for checks in needs.values() if not checks & forced]
    rest, exact = _rest(open_needs, costs)
    chosen = tuple(sorted(forced | rest))
    spent = [costs.get(c, Cost()) for c in chosen]
    return Minimal(chosen, round(sum(c.seconds for c in spent), 2), sum(c.observed for c in spent), exact, len(needs))


def _rest(needs: Sequence[frozenset[str]], costs: Mapping[str, Cost]) -> tuple[set[str], bool]:
    greedy = _greedy(needs, costs)
    # of checks that hit the very same faults only the cheapest can be wanted
    by_hits: dict[frozenset[int], str] = {}
    for check in sorted({c for n in needs for c in n}, key=lambda c: (_seconds(c, costs), c)):
        by_hits.setdefault(frozenset(i for i, n in enumerate(needs) if check in n), check)
    candidates, tried = sorted(by_hits.values()), 0
    for size in range(1, len(greedy) + 1):
        best: tuple[float, tuple[str, ...]] | None = None
        for chosen in combinations(candidates, size):
            tried += 1
            if tried > MOST_COMBINATIONS:
                return greedy, False
            if all(n.intersection(chosen) for n in needs):
                rank = (sum(_seconds(c, costs) for c in chosen), chosen)
                best = min(best, rank) if best else rank
        if best:
            return set(best[1]), True
    return greedy, True


def _greedy(needs: Sequence[frozenset[str]], costs: Mapping[str, Cost]) -> set[str]:
    chosen: set[str] = set()
    left = list(needs)
    while left:
        found = sorted({c for n in left for c in n}, key=lambda c: (-sum(c in n for n in left), _seconds(c, costs), c))
        chosen.add(found[0])
        left = [n for n in left if found[0] not in n]
    return chosen


def _seconds(check: str, costs: Mapping[str, Cost]) -> float:
    return costs.get(check, Cost()).seconds
