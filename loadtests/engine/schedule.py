"""Start times: arrivals in the open model, users in the closed model. Pure."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator

from loadtests.plan import LoadPlan, Stream


def arrivals(streams: tuple[Stream, ...], index: int, of: int) -> Iterator[tuple[float, str]]:
    """Times (seconds from the start) and kinds of the arrivals of one process, in order, without end.

    Arrival number j of a stream comes at (j + 1/2) / rate; process `index` takes every `of`-th.
    """

    def one(stream: Stream) -> Iterator[tuple[float, str]]:
        for number in itertools.count(index, of):
            yield (number + 0.5) / stream.per_s, stream.kind

    return heapq.merge(*(one(stream) for stream in streams if stream.per_s > 0))


def users_at(plan: LoadPlan, elapsed_s: float) -> int:
    """How many users the closed model has at this time: straight lines between the stages, from 1 user on."""
    if not plan.stages:
        return plan.vus
    before, start = 1, 0.0
    for stage in plan.stages:
        if elapsed_s < start + stage.duration_s:
            return round(before + (stage.target - before) * (elapsed_s - start) / stage.duration_s)
        before, start = stage.target, start + stage.duration_s
    return before


def length_s(plan: LoadPlan) -> float:
    """How long the run is meant to take."""
    return sum(stage.duration_s for stage in plan.stages) if plan.stages else plan.duration_s
