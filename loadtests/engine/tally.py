"""Counts by time: how many samples of each slot break a threshold, counted as reports come in.

What is kept are three numbers a slot and threshold, never the samples, so that a look costs the same for a thousand
samples as for a million. And of a mean the sum, added up in the order in which samples arrive, whatever their tags: as
k6 adds, to the last bit.
"""

from __future__ import annotations

import functools
import math
import operator
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress

from gates.decision.dependence import Counts, dependence
from loadtests.engine.metrics import TIMINGS, TYPES
from loadtests.engine.samples import RequestGroup
from loadtests.judgement.looks import Looks
from loadtests.judgement.shares import allowed_bad, is_bad
from loadtests.thresholds.language import Expression, MetricKey, MetricType, ThresholdSet

SLOT_S, LEAST_SLOTS, MOST_SLOTS = 0.05, 200, 12_000
"""A slot is 50 ms, unless the planned time would then have fewer or more slots than these."""
BLOCK_STALLS = 5
"""A bet on a mean is made on blocks of so many mean stalls (see docs/decision.md)."""


@dataclass(slots=True)
class Timeline:
    """Of each slot: samples, bad ones, and the sum of the values where their mean is judged."""

    samples: Counter[int] = field(default_factory=Counter)
    bad: Counter[int] = field(default_factory=Counter)
    sums: dict[int, float] = field(default_factory=dict)
    total: float = 0.0
    summed: int = 0

    def counts(self, until: float = math.inf) -> tuple[list[Counts], list[Counts]]:
        """Bad samples and all samples of each slot before a slot; sums and samples of the same."""
        if not self.samples:
            return [], []
        slots = range(min(self.samples), int(min(max(self.samples) + 1, max(0.0, until))))
        return (
            [(self.bad[one], self.samples[one]) for one in slots],
            [(self.sums.get(one, 0.0), self.samples[one]) for one in slots],
        )


class Tally:
    """The timelines of all thresholds that are judged by a share or a mean. `slot_s` in seconds."""

    def __init__(self, thresholds: ThresholdSet, planned_s: float) -> None:
        self.slot_s = max(min(SLOT_S, planned_s / LEAST_SLOTS), planned_s / MOST_SLOTS, 0.001)
        self._by_key: dict[MetricKey, dict[Expression, Timeline]] = {}
        for key, some in thresholds.by_metric.items():
            kind = TYPES[key.name]
            for one in some:
                if allowed_bad(one.expression, kind) is not None or one.expression.method == "avg":
                    self._by_key.setdefault(key, {})[one.expression] = Timeline()

    def take(
        self, groups: Iterable[RequestGroup], timed: Iterable[tuple[str, dict[str, str], array[float]]], shift_s: float
    ) -> None:
        """Count what one report brought. shift_s: from the clock of the load process to that of the run."""
        arrived: dict[MetricKey, list[tuple[float, float]]] = {key: [] for key in self._means()}
        for group in groups:
            tags = dict(group.tags)
            slots = self._slots(group.starts, shift_s)
            of_check = {**tags, "check": group.check} if group.check else None
            for key, timelines in self._by_key.items():
                if key.name == "http_req_failed" and key.matches(tags):
                    _count_flags(timelines, slots, value=group.failed)
                elif key.name == "checks" and of_check and key.matches(of_check):
                    _count_flags(timelines, slots, value=group.passed)
                elif key.name in TIMINGS and key.matches(tags):
                    _count_values(timelines, slots, group.timings[key.name])
                    if key in arrived:
                        ends = map(_ended, group.starts, group.timings["http_req_duration"])
                        arrived[key] += zip(ends, group.timings[key.name], strict=False)
        for name, tags, pairs in timed:
            count = _count_values if TYPES[name] is MetricType.TREND else _count_rate
            for key, timelines in self._by_key.items():
                if key.name == name and key.matches(tags):
                    count(timelines, self._slots(pairs[::2], shift_s), pairs[1::2])
                    if key in arrived:
                        arrived[key] += zip(pairs[::2], pairs[1::2], strict=True)
        for key, some in arrived.items():
            values = [value for _, value in sorted(some, key=operator.itemgetter(0))]
            for timeline in self._means()[key]:
                timeline.total = functools.reduce(operator.add, values, timeline.total)
                timeline.summed += len(values)

    def _means(self) -> dict[MetricKey, list[Timeline]]:
        found = {key: [one for e, one in some.items() if e.method == "avg"] for key, some in self._by_key.items()}
        return {key: some for key, some in found.items() if some}

    def total(self, key: MetricKey, e: Expression, samples: int) -> float | None:
        """The sum of so many samples of a threshold on a mean, in the order in which they arrived; None for others."""
        timeline = self._by_key.get(key, {}).get(e)
        return timeline.total if timeline is not None and timeline.summed == samples and e.method == "avg" else None

    def counts(self, key: MetricKey, e: Expression) -> bool:
        """Whether a threshold is one that is counted by time, and samples of it came."""
        timeline = self._by_key.get(key, {}).get(e)
        return timeline is not None and bool(timeline.samples)

    def _slots(self, starts: Iterable[float], shift_s: float) -> list[int]:
        per_s = 1.0 / self.slot_s
        return [int((start + shift_s) * per_s) for start in starts]

    def looks(
        self, key: MetricKey, e: Expression, *, reached_s: float | None, ran_on: bool, variance: float, most: float
    ) -> Looks:
        """What the timeline of a threshold says of how its samples may be judged.

        reached_s: when the planned time was over; None while it is not. most: a value that none can exceed.
        """
        timeline = self._by_key.get(key, {}).get(e)
        if timeline is None or not timeline.samples:
            return Looks(reached=reached_s is not None)
        slots, sums = timeline.counts()
        is_mean = e.method == "avg"
        found = dependence(slots, self.slot_s, *((sums, variance) if is_mean else ()))
        first, at = None, math.inf if reached_s is None else reached_s / self.slot_s
        if reached_s is not None and ran_on:
            early, early_sums = timeline.counts(until=at)
            kept = early_sums if is_mean else early
            first = (sum(one for one, _ in kept), sum(n for _, n in kept))
        seconds = sum(1 for _, n in slots if n) * self.slot_s
        blocks = tuple(_blocks(sums, found.stalls, self.slot_s)) if is_mean else ()
        return Looks(found, reached_s is not None, first, seconds, blocks, most)


def _ended(start_s: float, took_ms: float) -> float:
    return start_s + took_ms / 1000.0


def _blocks(sums: Sequence[Counts], stalls: Sequence[float], slot_s: float) -> Iterable[float]:
    """The means of blocks of time, each several times as long as a stall."""
    mean_s = math.fsum(stalls) / len(stalls) if stalls else 0.0
    step = max(1, math.ceil(BLOCK_STALLS * mean_s / slot_s))
    for start in range(0, len(sums) - step + 1, step):
        part = sums[start : start + step]
        samples = sum(n for _, n in part)
        if samples:
            yield sum(one for one, _ in part) / samples


def _count_flags(timelines: Mapping[Expression, Timeline], slots: list[int], *, value: bool) -> None:
    counted = Counter(slots)
    for e, timeline in timelines.items():
        timeline.samples.update(counted)
        if is_bad(e, float(value)):
            timeline.bad.update(counted)


def _count_rate(timelines: Mapping[Expression, Timeline], slots: list[int], values: array[float]) -> None:
    for flag in (False, True):
        some = [slot for slot, value in zip(slots, values, strict=True) if bool(value) is flag]
        _count_flags(timelines, some, value=flag)


def _count_values(timelines: Mapping[Expression, Timeline], slots: list[int], values: array[float]) -> None:
    if not values or len(values) != len(slots):
        return
    counted = Counter(slots)
    for e, timeline in timelines.items():
        timeline.samples.update(counted)
        if is_bad(e, max(values)) or is_bad(e, min(values)):
            timeline.bad.update(compress(slots, map(functools.partial(is_bad, e), values)))
        if e.method == "avg":
            for slot, value in zip(slots, values, strict=True):
                timeline.sums[slot] = timeline.sums.get(slot, 0.0) + value
