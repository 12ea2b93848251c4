"""Measures the checks by the matrix: the smallest set that kills every fault, the best one for a few seconds. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from gates.evidence import CheckSpec, TargetKind, Where

MOST_COMBINATIONS = 200_000
"""The most sets that are tried for an exact answer; beyond that the answer is greedy, and says so."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a check in a clean run: seconds, and things observed (each a request, a row or a sample)."""

    seconds: float = 0.0
    observed: int = 0


def cheaper(before: Mapping[str, Cost], now: Mapping[str, Cost]) -> dict[str, Cost]:
    """The costs of both; of a check in both the lower one, which is that of the least disturbed run."""
    return {**before, **{c: cost for c, cost in now.items() if c not in before or cost.seconds < before[c].seconds}}


@dataclass(frozen=True, slots=True)
class Minimal:
    """The smallest set, the cheapest among equals; `exact` False: a smaller one may exist."""

    checks: tuple[str, ...] = ()
    seconds: float = 0.0
    observed: int = 0
    exact: bool = True
    faults: int = 0


def smallest_set(killers: Mapping[str, Iterable[str]], costs: Mapping[str, Cost]) -> Minimal:
    """A smallest set of checks that hits the killers of every fault (a hitting set), the cheapest in seconds. A check
    that is some fault's only killer is in every such set; the rest is small and tried in full, or else greedy.
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
    # of checks that hit exactly the same faults only the cheapest is useful
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


@dataclass(frozen=True, slots=True)
class Worth:
    """A check: how many faults it killed, how many of them alone, and its cost in a clean run."""

    check: str
    kills: int
    alone: int
    cost: Cost


def worth(killers: Iterable[Sequence[str]], costs: Mapping[str, Cost]) -> tuple[Worth, ...]:
    """The value of each check that killed something, or ran in a clean run: the most valuable first, and the most
    expensive last among equals. killers: of each fault that was killed.
    """
    kills = Counter(check for checks in killers for check in checks)
    alone = Counter(checks[0] for checks in killers if len(checks) == 1)
    every = [Worth(c, kills[c], alone[c], costs.get(c, Cost())) for c in {*kills, *costs}]
    return tuple(sorted(every, key=lambda w: (-w.alone, -w.kills, w.cost.seconds, w.check)))


CANARY_S = 6.0
"""Seconds of drills in a round of the watch, one after another; in parallel it is a third of that."""


@dataclass(frozen=True, slots=True)
class Canary:
    """The drills of a round of the watch. Together with the read-only checks they kill so many of the production faults
    that all checks kill; the others are given up.
    """

    checks: tuple[str, ...] = ()
    seconds: float = 0.0
    kills: int = 0
    of: int = 0
    given_up: tuple[str, ...] = ()


def canary(
    killers: Mapping[str, Iterable[str]], costs: Mapping[str, Cost], catalogue: Sequence[CheckSpec], most_s: float
) -> Canary:
    """The drills, safe in production, that kill the most faults in so many seconds (greedy, by faults per second), each
    with its prerequisites. killers: of each production fault that was killed.
    """
    drilled = (s for s in catalogue if not s.id.startswith("load/"))
    safe = {s.id: s for s in drilled if TargetKind.PRODUCTION.allows(s.where) and not s.deep}
    seen_anyway = {s.id for s in safe.values() if s.id.startswith(("sql/", "alert/")) and s.where is Where.READ_ONLY}
    left = {f: safe.keys() & set(checks) for f, checks in killers.items() if seen_anyway.isdisjoint(checks)}
    chosen, spent = set[str](), 0.0
    while True:
        best: tuple[float, str, frozenset[str]] | None = None
        for check in sorted({c for checks in left.values() for c in checks}):
            more = _with_what_it_comes_after(check, safe) - chosen
            cost = sum(max(_seconds(c, costs), 0.01) for c in more)
            if spent + cost <= most_s:
                worth = sum(not checks.isdisjoint(more) for checks in left.values()) / cost
                best = max(best, (worth, check, more)) if best else (worth, check, more)
        if best is None:
            break
        chosen |= best[2]
        spent += sum(max(_seconds(c, costs), 0.01) for c in best[2])
        left = {f: checks for f, checks in left.items() if checks.isdisjoint(chosen)}
    return Canary(tuple(sorted(chosen)), round(spent, 1), len(killers) - len(left), len(killers), tuple(sorted(left)))


def _with_what_it_comes_after(check: str, known: Mapping[str, CheckSpec]) -> frozenset[str]:
    found, waiting = {check}, [check]
    while waiting:
        before = {c for c in known[waiting.pop()].after if c.startswith("drill/") and c in known} - found
        found |= before
        waiting += before
    return frozenset(found)
