"""Reading of Prometheus text (exposition format 0.0.4): samples, sums, differences. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

MEMORY_METRIC = "process_resident_memory_bytes"
"""The name that the Prometheus client libraries share."""

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*$")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One series at one moment."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float

    def label(self, name: str) -> str:
        """The value of a label, or an empty string."""
        return dict(self.labels).get(name, "")


@dataclass(frozen=True, slots=True)
class Scrape:
    """All samples of one answer of /metrics; `malformed` holds the lines that are no sample and no comment."""

    samples: tuple[Sample, ...]
    malformed: tuple[str, ...] = ()

    def named(self, name: str) -> list[Sample]:
        """The samples of a family; a counter is found with and without `_total`."""
        names = {name, name.removesuffix("_total"), f"{name}_total"}
        return [s for s in self.samples if s.name in names]

    def total(self, name: str) -> float | None:
        """The sum over all label sets of a family, or None where there is none."""
        found = self.named(name)
        return sum(s.value for s in found) if found else None

    def series(self) -> Mapping[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {(s.name, s.labels): s.value for s in self.samples}


def parse_metrics(text: str) -> Scrape:
    """Parse the text of /metrics."""
    samples, malformed = [], []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        sample = _sample(line)
        if sample is None:
            malformed.append(line)
        else:
            samples.append(sample)
    return Scrape(tuple(samples), tuple(malformed))


def _sample(line: str) -> Sample | None:
    match = _SAMPLE.match(line)
    if match is None:
        return None
    name, labels, number = match.groups()
    try:
        value = float(number)
    except ValueError:
        return None
    pairs = tuple((k, _unescape(v)) for k, v in _LABEL.findall(labels or ""))
    return Sample(name, tuple(sorted(pairs)), value)


def _unescape(text: str) -> str:
    return re.sub(r'\\[n"\\]', lambda m: _ESCAPES[m.group()], text)


def broken_histograms(samples: Iterable[Sample]) -> list[str]:
    """Names (with labels) of histograms whose cumulative buckets fall, or whose +Inf bucket is not their count."""
    buckets: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = {}
    counts: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for s in samples:
        if s.name.endswith("_bucket") and s.label("le"):
            rest = tuple(p for p in s.labels if p[0] != "le")
            buckets.setdefault((s.name.removesuffix("_bucket"), rest), []).append((float(s.label("le")), s.value))
        elif s.name.endswith("_count"):
            counts[s.name.removesuffix("_count"), s.labels] = s.value
    broken = []
    for key, pairs in buckets.items():
        values = [v for _, v in sorted(pairs)]
        rising = all(a <= b for a, b in pairwise(values))
        if not rising or (key in counts and counts[key] != values[-1]):
            broken.append(f"{key[0]}{dict(key[1])}")
    return broken
