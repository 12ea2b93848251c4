"""Start times: arrivals in the open model, users in the closed model. Pure."""

import heapq
import itertools
import math
from collections.abc import Iterator

from loadtests.plan import LoadPlan
from loadtests.scenario import Executor, Scenario


def arrivals(plan: LoadPlan, index: int, of: int) -> Iterator[tuple[float, int]]:
    """Times (seconds from the start) of the arrivals of one process, in order, each with the place of its scenario.

    Arrival number j comes when the rate has summed up to j + 1/2; process `index` takes every `of`-th.
    """
    return heapq.merge(
        *(
            zip(_times(one, over_s(one, plan), index, of), itertools.repeat(place))
            for place, one in enumerate(plan.scenarios)
            if one.executor is Executor.ARRIVALS
        )
    )


def _times(scenario: Scenario, end_s: float, index: int, of: int) -> Iterator[float]:
    due, summed, level, at = index + 0.5, 0.0, scenario.level, scenario.start_s
    for stage in scenario.stages:
        per_s = (stage.target - level) / stage.duration_s if stage.duration_s else 0.0
        after = summed + stage.duration_s * (level + stage.target) / 2.0
        while due < after:
            more = due - summed
            # the root of level*t + per_s*t*t/2 = more that stays exact where the rate does not change
            yield at + 2.0 * more / (level + math.sqrt(max(0.0, level * level + 2.0 * per_s * more)))
            due += of
        summed, level, at = after, stage.target, at + stage.duration_s
    while level > 0 and at + (due - summed) / level < end_s:
        yield at + (due - summed) / level
        due += of


def spells(scenario: Scenario, number: int, end_s: float) -> Iterator[tuple[float, float]]:
    """From when to when user `number`, counted from 0, is there. It comes and goes when k6's would."""
    level, at = scenario.level, scenario.start_s
    since = at if level > number else None
    for stage in scenario.stages:
        rise = stage.target - level
        if level <= number < stage.target:
            since = at + stage.duration_s * (number + 1 - level) / rise
        elif stage.target <= number < level and since is not None:
            yield since, at + stage.duration_s * (number - level) / rise
            since = None
        level, at = stage.target, at + stage.duration_s
    if since is not None:
        yield since, end_s


def over_s(scenario: Scenario, plan: LoadPlan) -> float:
    """When a scenario starts nothing more. What is there at the end of a run goes on while that is undecided."""
    end_s = scenario.end_s
    if end_s is None or (plan.run_on and not scenario.is_counted and end_s >= length_s(plan)):
        return math.inf
    return end_s


def length_s(plan: LoadPlan) -> float:
    """How long the run is meant to take; one of a number of iterations may end earlier."""
    return max((plan.duration_s if one.end_s is None else one.end_s for one in plan.scenarios), default=plan.duration_s)
