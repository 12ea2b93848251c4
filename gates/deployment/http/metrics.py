"""Reading of Prometheus text (exposition format 0.0.4, and OpenMetrics): samples, sums, differences. Pure.

Our own, because the parser of prometheus_client drops a whole text for one bad line, and its time is quadratic in the
escapes of a label (more than 20 s for 2 MB). Every pattern here gives nothing back, so that reading is linear.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from gates.deployment.dialect.exchange import contract_metric

MEMORY_METRIC = "process_resident_memory_bytes"
"""The name that the Prometheus client libraries share."""

MOST_MEANWHILE = 24
"""How much one instance may have counted between two looks a second apart."""
MOST_LINES = 100_000
"""The most lines that are read: 4 MB hold fewer series with a label."""
OPENMETRICS = "application/openmetrics-text"
TYPES = ("counter", "gauge", "histogram", "summary", "untyped", "unknown", "info", "stateset", "gaugehistogram")
_UTF8 = re.compile("[^\ud800-\udfff]*+")
"""A line whose bytes were all UTF-8."""
_NAME = re.compile(r"[ \t]*+[a-zA-Z_:][a-zA-Z0-9_:]*+[ \t]*+")
_TYPE = re.compile(r"[ \t]*+#[ \t]++TYPE[ \t]++([a-zA-Z_:][a-zA-Z0-9_:]*+)[ \t]++(.*)")
_LABEL = re.compile(r'[ \t]*+([a-zA-Z_][a-zA-Z0-9_]*+)[ \t]*+=[ \t]*+"((?:[^"\\]|\\.)*+)"[ \t]*+,?')
_END = re.compile(r"[ \t]*+\}")
_STAMP = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?")
"""Milliseconds, or seconds in OpenMetrics."""
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


@dataclass(frozen=True, slots=True)
class MetricSample:
    """One series at one moment."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float

    def label(self, name: str) -> str:
        """The value of a label, or an empty string."""
        return dict(self.labels).get(name, "")


@dataclass(frozen=True, slots=True)
class Scrape:
    """All samples of one answer of /metrics. malformed: lines that are no sample and no comment. declared: families
    that have a type; one that is counted by label has no sample before the first count.
    """

    samples: tuple[MetricSample, ...]
    malformed: tuple[str, ...] = ()
    declared: frozenset[str] = frozenset()

    def named(self, name: str) -> list[MetricSample]:
        """The samples of a family; a counter is found with and without `_total`."""
        names = _spellings(name)
        return [s for s in self.samples if s.name in names]

    def total(self, name: str) -> float | None:
        """The sum over all label sets of a family; 0 without a sample, None without the family."""
        found = self.named(name)
        return sum(s.value for s in found) if found or self.declared & _spellings(name) else None

    def highest(self, name: str) -> float:
        """The highest over all label sets of a family; 0 without a sample."""
        return max((s.value for s in self.named(name)), default=0.0)

    def series(self) -> Mapping[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {(s.name, s.labels): s.value for s in self.samples}


def _spellings(name: str) -> set[str]:
    return {name, name.removesuffix("_total"), f"{name}_total"}


def parse_metrics(page: str | bytes, kind: str = "") -> Scrape:
    """Parse the page of /metrics; series get the contract's names. kind: its content type.

    Prometheus drops the whole page for one line that it cannot read, including a line of the other format; without a
    type, both formats are accepted.
    """
    text = page.decode("utf-8", "surrogateescape") if isinstance(page, bytes) else page
    is_openmetrics = kind.lower().startswith(OPENMETRICS)
    samples, malformed, declared = [], [], set()
    lines = text.split("\n", MOST_LINES)
    for line in lines[:MOST_LINES]:
        if not line.strip() or line.lstrip().startswith("#"):
            if found := _TYPE.match(line):
                declared.add(contract_metric(found[1]))
                malformed += [line] * (found[2].strip(" \t") not in TYPES)
            continue
        sample = _sample(line, is_text=kind.lower().startswith("text/"))
        if sample is None:
            malformed.append(line)
        else:
            samples.append(sample)
    if is_openmetrics:
        whole, end, behind = text.partition("# EOF")
        malformed += ["no # EOF at the end"] * (not end)
        malformed += [f"{behind.strip()} behind # EOF"] * bool(behind.strip("\n"))
        malformed += ["an empty line"] * ("\n\n" in whole)
    return Scrape(tuple(samples), (*malformed, *lines[MOST_LINES:]), frozenset(declared))


def _sample(line: str, *, is_text: bool) -> MetricSample | None:
    """The sample of a line; is_text: of the older format, which has no exemplars and whole milliseconds."""
    name = _NAME.match(line)
    if name is None or not _UTF8.fullmatch(line):
        return None
    at, pairs = name.end(), []
    if line.startswith("{", at):
        at += 1
        while (label := _LABEL.match(line, at)) is not None:
            pairs.append((label[1], re.sub(r'\\[n"\\]', lambda m: _ESCAPES[m[0]], label[2])))
            at = label.end()
        end = _END.match(line, at)
        if end is None:
            return None
        at = end.end()
    number_and_stamp, exemplar, _ = line[at:].partition(" # ")
    value, *stamp = number_and_stamp.split() or [""]
    number = _real(value)
    if number is None or len(stamp) > 1 or not all(map(_STAMP.fullmatch, stamp)) or len(dict(pairs)) < len(pairs):
        return None
    if is_text and (exemplar or "." in "".join(stamp)):
        return None
    return MetricSample(contract_metric(name.group().strip()), tuple(sorted(pairs)), number)


def _real(text: str) -> float | None:
    try:
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None


def broken_histograms(samples: Iterable[MetricSample]) -> list[str]:
    """Names (with labels) of histograms whose cumulative buckets decrease, or whose +Inf bucket is not their count."""
    broken: list[str] = []
    buckets: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = {}
    counts: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for s in samples:
        if s.name.endswith("_bucket") and s.label("le"):
            rest = tuple(p for p in s.labels if p[0] != "le")
            bound = _real(s.label("le"))
            if bound is None or math.isnan(bound):
                broken.append(f"{s.name}{dict(s.labels)}")
                continue
            buckets.setdefault((s.name.removesuffix("_bucket"), rest), []).append((bound, s.value))
        elif s.name.endswith("_count"):
            counts[s.name.removesuffix("_count"), s.labels] = s.value
    for key, pairs in buckets.items():
        values = [v for _, v in sorted(pairs)]
        rising = all(a <= b for a, b in pairwise(values))
        if not rising or (key in counts and counts[key] != values[-1]):
            broken.append(f"{key[0]}{dict(key[1])}")
    return broken


def of_each_instance(scrapes: Iterable[Scrape], counter: str) -> list[Scrape]:
    """The last scrape of each instance, told apart by a counter that scrapes do not change. An instance that is called
    meanwhile has counted a few more, and none less.
    """
    last: list[Scrape] = []
    for scrape in scrapes:
        between = [(calls, i) for i, one in enumerate(last) if (calls := _grown(one, scrape, counter)) is not None]
        if between:
            last[min(between)[1]] = scrape
        else:
            last.append(scrape)
    return last


def _grown(earlier: Scrape, later: Scrape, counter: str) -> float | None:
    """How much a counter grew between two scrapes; None if they are not of one instance."""
    before, after = ({s.labels: s.value for s in scrape.named(counter)} for scrape in (earlier, later))
    grown = sum(after.values()) - sum(before.values())
    only_grew = all(after.get(labels, -1.0) >= count for labels, count in before.items())
    return grown if only_grew and grown <= MOST_MEANWHILE else None
