"""All samples of a run, or of one worker since its last report: recorded cheaply, merged exactly, selected by tags.

A request costs one dictionary look-up and a few array appends; what follows from it (http_reqs, http_req_failed,
tags) is derived when somebody asks. A report is plain bytes: 8 bytes a sample, no rounding. Only where all reports come
together, a trend with more values than `most_exact` goes over to a histogram of 3 significant digits, and says so.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtests.engine.hdr import Histogram, unpack
from loadtests.engine.metrics import TIMINGS, TYPES, empty_sink
from loadtests.engine.sinks import CounterSink, GaugeSink, RateSink, Sink, TrendSink
from loadtests.thresholds.language import MetricKey

Tags = tuple[tuple[str, str], ...]
FOLD_AT_ONCE = 100_000
"""Values folded in one go; it takes 10 to 20 ms. The process that folds may also send, and must not stall. Folding is
twice as fast as values arrive, so memory stays below the cap.
"""


@dataclass(slots=True)
class RequestGroup:
    """Requests that share all their tags. `timings` are milliseconds by name of the trend, in order of arrival.

    `check` names what was expected of the answers (nothing where it is empty), `passed` whether they were that.
    `starts` are seconds of the run, one a request since the last report: they are counted (tally.py) and not kept.
    """

    tags: Tags
    failed: bool
    refused: bool = False
    check: str = ""
    passed: bool = True
    sent: int = 0
    received: int = 0
    timings: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in TIMINGS})
    folded: dict[str, Histogram] = field(default_factory=dict)
    starts: array[float] = field(default_factory=lambda: array("d"))

    @property
    def count(self) -> int:
        folded = self.folded.get("http_req_duration")
        return len(self.timings["http_req_duration"]) + (0 if folded is None else folded.samples)

    def trend(self, name: str) -> TrendSink:
        """A timing as a trend; it shares the values with the group, so do not change it."""
        return TrendSink(self.timings[name], self.folded.get(name))

    def fold(self, name: str, most: int) -> int:
        """Give up exact values of a timing, at most so many; see TrendSink."""
        return TrendSink(self.timings[name], self.folded.setdefault(name, Histogram())).fold(most)


@dataclass(slots=True)
class Samples:
    """Groups of requests by their tags, and every other metric by name and tags. `folded` are the metrics that had more
    than `most_exact` values.
    """

    groups: dict[tuple[Tags, bool, str, bool], RequestGroup] = field(default_factory=dict)
    series: dict[tuple[str, Tags], Sink] = field(default_factory=dict)
    most_exact: int = 20_000_000
    folded: set[str] = field(default_factory=set)
    timed: dict[tuple[str, Tags], array[float]] = field(default_factory=dict)
    """Of other metrics, since the last report: when each sample began, and its value, by turns."""

    def group(
        self, tags: Mapping[str, str], *, failed: bool, refused: bool = False, check: str = "", passed: bool = True
    ) -> RequestGroup:
        """The group of these tags, made if it is new. Keep it: it stays the same object over reports."""
        key = (tuple(sorted(tags.items())), failed, check, passed)
        found = self.groups.get(key)
        if found is None:
            found = self.groups[key] = RequestGroup(key[0], failed, refused, check, passed)
        return found

    def sink(self, metric: str, tags: Mapping[str, str] | Tags = ()) -> Sink:
        """The sink of a metric that is not of a request, made if it is new. Pairs are taken as they are."""
        key = (metric, _pairs(tags))
        found = self.series.get(key)
        if found is None:
            found = self.series[key] = empty_sink(TYPES[metric])
        return found

    def add(self, metric: str, value: float, tags: Mapping[str, str] | Tags = (), at: float = 0.0) -> None:
        """Add one sample; `at` is its time and matters for gauges."""
        sink = self.sink(metric, tags)
        if isinstance(sink, GaugeSink):
            sink.add(value, at)
        else:
            sink.add(value)

    def pairs(self, metric: str, tags: Mapping[str, str] | Tags = ()) -> array[float]:
        """Where the times and values of a metric go; it stays the same array over reports."""
        return self.timed.setdefault((metric, _pairs(tags)), array("d"))

    def add_at(self, metric: str, value: float, at: float, tags: Mapping[str, str] | Tags = ()) -> None:
        """Add one sample that began at a second of the run, so that stalls show in it."""
        self.add(metric, value, tags)
        self.pairs(metric, tags).extend((at, value))

    def select(self, key: MetricKey) -> Sink:
        """All samples of a metric that carry the tags of the key, in one new sink."""
        if key.name == "checks":
            return self._checks(key)
        groups = [g for g in self.groups.values() if key.matches(dict(g.tags))]
        match key.name:
            case "http_reqs":
                return CounterSink(float(sum(g.count for g in groups)), sum(g.count for g in groups))
            case "http_req_failed":
                return RateSink(sum(g.count for g in groups if g.failed), sum(g.count for g in groups))
            case "data_sent" | "data_received":
                total = sum(g.sent if key.name == "data_sent" else g.received for g in groups)
                return CounterSink(float(total), sum(g.count for g in groups))
            case "expected_refusals":
                refused = sum(g.count for g in groups if g.refused)
                return CounterSink(float(refused), refused)
            case name if name in TIMINGS:
                trend = TrendSink()
                for group in groups:
                    trend.merge(group.trend(name))
                return trend
        result = empty_sink(TYPES[key.name])
        for (name, tags), sink in self.series.items():
            if name == key.name and key.matches(dict(tags)):
                result.merge(sink)  # type: ignore[arg-type]
        return result

    def by_request(self, key: MetricKey) -> dict[str, array[float]]:
        """The values of a timing with the tags of the key, in order, by the commonest answers of each request's name;
        nothing where some went into a histogram, which keeps no order.
        """
        if key.name in self.folded:
            return {}
        groups = sorted((g for g in self.groups.values() if key.matches(dict(g.tags))), key=lambda g: g.count)
        return {dict(g.tags).get("name", ""): g.timings[key.name] for g in groups}

    def _checks(self, key: MetricKey) -> RateSink:
        """One check a request: whether its answer was what the call expects; the tag `check` names it."""
        asked = [g for g in self.groups.values() if g.check and key.matches({**dict(g.tags), "check": g.check})]
        return RateSink(sum(g.count for g in asked if g.passed), sum(g.count for g in asked))

    @property
    def requests(self) -> int:
        return sum(g.count for g in self.groups.values())

    @property
    def answers(self) -> int:
        return sum(g.count for g in self.groups.values() if dict(g.tags).get("status", "0") != "0")

    def take_report(self) -> dict[str, Any]:
        """Everything since the last report, ready for msgpack; what was taken is gone from here."""
        groups = [_pack_group(g) for g in self.groups.values() if g.count]
        series = [_pack_sink(metric, tags, s) for (metric, tags), s in self.series.items() if s.samples]
        for group in self.groups.values():
            group.sent = group.received = 0
            group.folded.clear()
            for values in (group.starts, *group.timings.values()):
                del values[:]
        for sink in self.series.values():
            sink.reset()
        timed = [(metric, tags, pairs.tobytes()) for (metric, tags), pairs in self.timed.items() if pairs]
        for pairs in self.timed.values():
            del pairs[:]
        return {"groups": groups, "series": series, "timed": timed}

    def merge_report(self, report: Mapping[str, Any]) -> list[RequestGroup]:
        """Add a report of this or another process. Returns what came, group by group. Raise KeyError or TypeError on
        a report that is not one.
        """
        came, new = [_unpack_group(packed) for packed in report["groups"]], 0
        for group in came:
            mine = self.group(
                dict(group.tags), failed=group.failed, refused=group.refused, check=group.check, passed=group.passed
            )
            mine.sent += group.sent
            mine.received += group.received
            for name, values in group.timings.items():
                mine.timings[name].extend(values)
                new += len(values)
            for name, histogram in group.folded.items():
                mine.folded.setdefault(name, Histogram()).merge(histogram)
                self.folded.add(name)
        for packed in report["series"]:
            metric, tags, sink = _unpack_sink(packed)
            self.sink(metric, dict(tags)).merge(sink)  # type: ignore[arg-type]
            if isinstance(sink, TrendSink):
                new += len(sink.values)
                self.folded |= {metric} if sink.folded is not None else set()
        self._keep_cap(new)
        return came

    def _keep_cap(self, came: int) -> None:
        """Fold every trend that has more values than are kept exactly, with all of its tags; a piece at each report."""
        trends = [(metric, sink) for (metric, _), sink in self.series.items() if isinstance(sink, TrendSink)]
        counts = Counter({name: sum(len(g.timings[name]) for g in self.groups.values()) for name in TIMINGS})
        for metric, sink in trends:
            counts[metric] += len(sink.values)
        self.folded |= {metric for metric, count in counts.items() if count > self.most_exact}
        left = max(FOLD_AT_ONCE, 2 * came)
        for metric in sorted(self.folded):
            for group in self.groups.values() if metric in TIMINGS else ():
                if left > 0 and group.timings[metric]:
                    left -= group.fold(metric, left)
            for name, sink in trends:
                if left > 0 and name == metric and sink.values:
                    left -= sink.fold(left)


_PLAIN = ("failed", "refused", "check", "passed", "sent", "received")
"""The members of a group that a report has as they are."""


def _pack_group(group: RequestGroup) -> dict[str, Any]:
    return {
        **{name: getattr(group, name) for name in _PLAIN},
        "tags": [list(pair) for pair in group.tags],
        "timings": {name: values.tobytes() for name, values in group.timings.items() if values},
        "starts": group.starts.tobytes(),
        "folded": {name: histogram.pack() for name, histogram in group.folded.items()},
    }


def _unpack_group(packed: Mapping[str, Any]) -> RequestGroup:
    group = RequestGroup(_tags(packed["tags"]), **{name: packed[name] for name in _PLAIN})
    for name, data in packed["timings"].items():
        group.timings[name].frombytes(data)
    group.starts.frombytes(packed["starts"])
    group.folded.update({name: unpack(data) for name, data in packed.get("folded", {}).items()})
    return group


def _pack_sink(metric: str, tags: Tags, sink: Sink) -> dict[str, Any]:
    match sink:
        case TrendSink():
            data: Any = [sink.values.tobytes(), None if sink.folded is None else sink.folded.pack()]
        case CounterSink():
            data = [sink.total, sink.samples]
        case GaugeSink():
            data = [sink.value, sink.samples, sink.at]
        case RateSink():
            data = [sink.trues, sink.total]
    return {"metric": metric, "tags": [list(pair) for pair in tags], "data": data}


def _unpack_sink(packed: Mapping[str, Any]) -> tuple[str, Tags, Sink]:
    sink = empty_sink(TYPES[packed["metric"]])
    match sink:
        case TrendSink():
            values, folded = packed["data"]
            sink.values.frombytes(values)
            sink.folded = None if folded is None else unpack(folded)
        case CounterSink():
            sink.total, sink.samples = packed["data"]
        case GaugeSink():
            sink.value, sink.samples, sink.at = packed["data"]
        case RateSink():
            sink.trues, sink.total = packed["data"]
    return packed["metric"], _tags(packed["tags"]), sink


def timed_of(report: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str], array[float]]]:
    """Metric, tags, and times and values by turns, of the samples of a report that are not of a request."""
    for metric, tags, data in report["timed"]:
        pairs = array("d")
        pairs.frombytes(data)
        yield metric, dict(_tags(tags)), pairs


def _pairs(tags: Mapping[str, str] | Tags) -> Tags:
    return tags if isinstance(tags, tuple) else tuple(sorted(tags.items()))


def _tags(pairs: Iterable[Iterable[str]]) -> Tags:
    return tuple((key, value) for key, value in pairs)
