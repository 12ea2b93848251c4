"""Where samples end: the four metric types. Trends keep every value, 8 bytes a sample, until they are folded."""

from __future__ import annotations

import functools
import math
import operator
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from loadtests.engine.hdr import EXACT, RECORDER, RELATIVE_ERROR, Histogram, Ordered


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


@dataclass(slots=True)
class TrendSink:
    """Every value as measured, in order of arrival. Sorting is put off until somebody asks.

    Above the cap of exact values `folded` holds most of them, as a histogram; `values` then are those since.
    total: their sum, where it was added up in the order in which they arrived over all tags.
    """

    values: array[float] = field(default_factory=lambda: array("d"))
    folded: Histogram | None = None
    _sorted: Sequence[float] | None = None
    total: float | None = None

    def add(self, value: float) -> None:
        self.values.append(value)

    def merge(self, other: TrendSink) -> None:
        self.values.extend(other.values)
        if other.folded is not None:
            self.take(other.folded)

    def take(self, histogram: Histogram) -> None:
        """Add the values of a histogram; from here on this trend is rounded, too."""
        self.folded = self.folded or Histogram()
        self.folded.merge(histogram)
        self._sorted = None

    def fold(self, most: int | None = None) -> int:
        """Give up exact values, at most so many, for the histogram's. Returns how many. The array stays the same."""
        start = 0 if most is None else max(0, len(self.values) - most)
        part = self.values[start:]
        self.folded = self.folded or Histogram()
        self.folded.fold(part)
        del self.values[start:]  # from the end: nothing is moved
        self._sorted = None
        return len(part)

    def reset(self) -> None:
        del self.values[:]
        self.folded = self._sorted = None

    @property
    def recorder(self) -> str:
        """How the values were kept, for the report."""
        return EXACT if self.folded is None else RECORDER

    @property
    def error(self) -> float:
        """The relative error of what `in_order`, `percentile` and `mean` say; 0 for exact values."""
        return 0.0 if self.folded is None else RELATIVE_ERROR

    @property
    def samples(self) -> int:
        return len(self.values) + (0 if self.folded is None else self.folded.samples)

    def rounded(self) -> Iterator[tuple[float, int]]:
        """The folded values, each with its count; the exact ones are in `values`."""
        return iter(()) if self.folded is None else self.folded.pairs()

    def in_order(self) -> Sequence[float]:
        """All values, smallest first."""
        if self._sorted is None or len(self._sorted) != self.samples:
            self._sorted = array("d", sorted(self.values)) if self.folded is None else Ordered(self._whole(self.folded))
        return self._sorted

    def _whole(self, folded: Histogram) -> Histogram:
        if not self.values:
            return folded
        whole = Histogram()
        whole.merge(folded)
        whole.fold(self.values)
        return whole

    def mean(self) -> float:
        """Sum in order of arrival by the count, as k6 does it; 0 where there is nothing."""
        if not self.samples:
            return 0.0
        if self.folded is not None:
            return (self.folded.total + math.fsum(self.values)) / self.samples
        if self.total is not None:
            return self.total / len(self.values)
        return functools.reduce(operator.add, self.values, 0.0) / len(self.values)

    def variance(self, mean: float) -> float:
        """Of the values around their mean, as the variance of a sample; 0 for fewer than two."""
        squares = sum((v - mean) * (v - mean) for v in self.values)  # ** and fsum raise on an overflow
        squares += sum(n * (v - mean) * (v - mean) for v, n in self.rounded())
        return squares / max(1, self.samples - 1)

    def skewness(self, mean: float, variance: float) -> float:
        """Of the values, from those same; 0 where they do not vary, or vary beyond what a number holds."""
        scale = math.sqrt(variance) if 0.0 < variance < math.inf else math.inf
        parts = (((v - mean) / scale, 1) for v in self.values), (((v - mean) / scale, n) for v, n in self.rounded())
        return sum(n * one * one * one for some in parts for one, n in some) / max(1, self.samples)

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
