"""When the load stage looks at the samples of a threshold, and its verdict; for the models in this folder."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from gates.decision.dependence import Dependence, dependence
from loadtests.judgement.looks import Looks
from loadtests.judgement.shares import ANYTIME, FIXED, FIXED_RISK, proofs

SLOT_S, EARLY_S, LOOK_S = 0.05, 3.0, 2.0
"""As in loadtests/engine."""


@dataclass(frozen=True, slots=True)
class Load:
    """A threshold in a run of the load: its samples a second, the planned seconds and the most, and what is allowed.

    bad: the true share of bad samples; stall_s: how long each stall lasts in which they come (0: one by one).
    """

    per_s: float
    planned_s: float
    most_s: float
    allowed: float
    bad: float
    stall_s: float = 0.0


def looks_at_s(load: Load) -> list[float]:
    """The seconds at which the load stage looks."""
    step_s = max(1.0, load.planned_s / 10.0)
    early = [EARLY_S + step_s * i for i in range(math.ceil(max(0.0, load.planned_s - EARLY_S) / step_s))]
    return early + [load.planned_s + LOOK_S * i for i in range(int((load.most_s - load.planned_s) / LOOK_S) + 1)]


def at_looks(
    load: Load,
    bad: Sequence[bool],
    until: Callable[[float], int],
    at_s: Callable[[int], float],
    stands: Callable[[int], bool] = lambda _n: True,
) -> tuple[str, float]:
    """The verdict on samples. until: how many there are by a second; at_s: when one came; stands: whether a failure
    after so many is one.
    """
    fewest = math.ceil(math.log(FIXED_RISK) / math.log1p(-load.allowed))
    first: tuple[int, int] | None = None
    for at in looks_at_s(load):
        n = until(at)
        k = sum(bad[:n])
        reached = at >= load.planned_s
        counts = first or (k, n)
        if n >= fewest and _may_decide(k, n, counts if reached else None, load.allowed):
            seen = Looks(_dependence(bad[:n], at_s), reached, first)
            passes, fails = proofs(k, k, n, load.allowed, seen)
            if fails and not passes and k >= load.allowed * n and stands(n):
                return "fail", at
            if reached and passes and not fails and k < load.allowed * n:
                return "pass", at
        first = first or ((k, n) if reached else None)
    return "unknown", load.most_s


@lru_cache(maxsize=1_000_000)
def _may_decide(k: int, n: int, planned: tuple[int, int] | None, allowed: float) -> bool:
    """Whether independent samples would decide: if not, dependent ones do not either, and need not be looked at."""
    tests = [(ANYTIME, k, n)] + ([(FIXED, *planned)] if planned else [])
    return any(test.under(a, b, allowed) or test.over(a, b, allowed) for test, a, b in tests)


def _dependence(bad: Sequence[bool], at_s: Callable[[int], float]) -> Dependence:
    if not any(bad):
        return Dependence()
    slots: dict[int, list[int]] = {}  # empty ones change nothing
    for place, flag in enumerate(bad):
        slot = slots.setdefault(int(at_s(place) / SLOT_S), [0, 0])
        slot[0] += flag
        slot[1] += 1
    return dependence([(a, b) for a, b in slots.values()], SLOT_S)
