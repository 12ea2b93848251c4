"""Where samples end: the four metric types, each kept exactly. Trends keep every value, 8 bytes a sample."""

from __future__ import annotations

import functools
import math
import operator
from array import array
from dataclasses import dataclass, field


@dataclass(slots=True)
class CounterSink:
    """Sum of the added values, and how many additions there were."""

    total: float = 0.0
    samples: int = 0

    def add(self, value: float) -> None:
        self.total += value
        self.samples += 1

    def merge(self, other: CounterSink) -> None:
        self.total += other.total
        self.samples += other.samples

    def reset(self) -> None:
        self.total, self.samples = 0.0, 0

    @property
    def is_empty(self) -> bool:
        return self.samples == 0


@dataclass(slots=True)
class GaugeSink:
    """The last value, with its time (seconds, one clock for all of a run) so that workers merge to the latest."""

    value: float = 0.0
    samples: int = 0
    at: float = -math.inf

    def add(self, value: float, at: float = 0.0) -> None:
        self.value = value
        self.at = at
        self.samples += 1

    def merge(self, other: GaugeSink) -> None:
        if other.samples and (not self.samples or other.at >= self.at):
            self.value, self.at = other.value, other.at
        self.samples += other.samples

    def reset(self) -> None:
        self.value, self.samples, self.at = 0.0, 0, -math.inf

    @property
    def is_empty(self) -> bool:
        return self.samples == 0


@dataclass(slots=True)
class RateSink:
    """How many of how many were not zero."""

    trues: int = 0
    total: int = 0

    def add(self, value: float) -> None:
        self.total += 1
        if value != 0:
            self.trues += 1

    def merge(self, other: RateSink) -> None:
        self.trues += other.trues
        self.total += other.total

    def reset(self) -> None:
        self.trues = self.total = 0

    @property
    def samples(self) -> int:
        return self.total

    @property
    def is_empty(self) -> bool:
        return self.total == 0


@dataclass(slots=True)
class TrendSink:
    """Every value as measured, in order of arrival. Sorting is put off until somebody asks."""

    values: array[float] = field(default_factory=lambda: array("d"))
    _sorted: array[float] | None = None

    def add(self, value: float) -> None:
        self.values.append(value)

    def merge(self, other: TrendSink) -> None:
        self.values.extend(other.values)

    def reset(self) -> None:
        del self.values[:]
        self._sorted = None

    @property
    def samples(self) -> int:
        return len(self.values)

    @property
    def is_empty(self) -> bool:
        return not self.values

    def in_order(self) -> array[float]:
        """All values, smallest first."""
        if self._sorted is None or len(self._sorted) != len(self.values):
            self._sorted = array("d", sorted(self.values))
        return self._sorted

    def mean(self) -> float:
        """Sum in order of arrival by the count, as k6 does it; 0 where there is nothing."""
        if not self.values:
            return 0.0
        return functools.reduce(operator.add, self.values, 0.0) / len(self.values)

    def percentile(self, percent: float) -> float:
        """k6's formula: between the two neighbours of `percent/100 * (n-1)`; 0 where there is nothing.

        numpy's linear method differs in the last bit.
        """
        ordered = self.in_order()
        if not ordered:
            return 0.0
        if len(ordered) == 1:
            return ordered[0]
        at = (percent / 100.0) * (len(ordered) - 1.0)
        low = math.floor(at)
        below, above = ordered[low], ordered[math.ceil(at)]
        return below + (above - below) * (at - low)


Sink = CounterSink | GaugeSink | RateSink | TrendSink
