"""The threshold language of k6: expressions, numbers, durations, metric keys, and what each comes to.

Pure and free of I/O. The rules are those of `k6` as its binary shows them (see the differential test); what we add to
them lives in `judgement.py`.
"""

import enum
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from loadtests.engine.sinks import CounterSink, GaugeSink, RateSink, Sink, TrendSink

GO_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""What Go's strings.TrimSpace removes (Unicode White_Space); Python's strip() would also take U+001C..U+001F."""

OPERATORS: tuple[str, ...] = ("<=", "<", ">=", ">", "===", "==", "!=")
"""In the order in which they are looked for; the first that occurs anywhere cuts the expression."""

COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "===": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}


class ThresholdError(ValueError):
    """A threshold, its metric or its options are not what the threshold language allows."""


class MetricType(enum.StrEnum):
    """The four metric types of k6."""

    COUNTER = "counter"
    GAUGE = "gauge"
    RATE = "rate"
    TREND = "trend"


AGGREGATIONS: Mapping[MetricType, tuple[str, ...]] = {
    MetricType.COUNTER: ("count", "rate"),
    MetricType.GAUGE: ("value",),
    MetricType.RATE: ("rate",),
    MetricType.TREND: ("avg", "min", "max", "med", "p"),
}
METHODS = frozenset(name for names in AGGREGATIONS.values() for name in names)

_DECIMAL = re.compile(r"[+-]?(?:[0-9_]+\.?[0-9_]*|\.[0-9_]+)(?:[eE][+-]?[0-9_]+)?", re.ASCII)
_HEX = re.compile(r"[+-]?0[xX](?:[0-9a-fA-F_]+\.?[0-9a-fA-F_]*|\.[0-9a-fA-F_]+)[pP][+-]?[0-9_]+", re.ASCII)
_INFINITY = re.compile(r"[+-]?inf(?:inity)?", re.ASCII | re.IGNORECASE)


def parse_float(text: str) -> float:
    """A number as Go's strconv.ParseFloat reads it. Raise ThresholdError on anything else, and on an overflow."""
    if text.lower() == "nan":
        return math.nan
    if _INFINITY.fullmatch(text):
        return float(text)
    is_hex = _HEX.fullmatch(text)
    if not is_hex and not _DECIMAL.fullmatch(text):
        raise ThresholdError(f"{text!r} is not a number; write one like 2500, 0.02 or 1e3, without a unit")
    if "_" in text and not _underscores_are_fine(text, is_hex=bool(is_hex)):
        raise ThresholdError(f"{text!r} has an underscore that does not separate two digits")
    value = _read_digits(text.replace("_", ""), is_hex=bool(is_hex))
    if math.isinf(value):
        raise ThresholdError(f"{text!r} is out of range; a 64-bit float ends at about 1.8e308")
    return value


def _underscores_are_fine(text: str, *, is_hex: bool) -> bool:
    """An underscore stands between two digits, or between `0x` and a digit."""
    digits = "0123456789abcdefABCDEF" if is_hex else "0123456789"
    start = text.lower().find("x")
    for at, character in enumerate(text):
        if character != "_":
            continue
        before, after = text[at - 1 : at], text[at + 1 : at + 2]
        exponent = is_hex and at > text.lower().find("p")
        allowed = "0123456789" if exponent else digits
        if not after or after not in allowed or not ((before and before in allowed) or (is_hex and at == start + 1)):
            return False
    return True


def _read_digits(text: str, *, is_hex: bool) -> float:
    try:
        return float.fromhex(text) if is_hex else float(text)
    except OverflowError:
        return math.inf
    except ValueError as error:
        raise ThresholdError(f"{text!r} is not a number") from error


_UNITS_NS: Mapping[str, int] = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DAY_NS = 24 * _UNITS_NS["h"]
LEAST_NS, MOST_NS = -(2**63), 2**63 - 1
_DURATION_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]+)", re.ASCII)


def parse_duration_ns(value: str | float) -> int:
    """A k6 duration in nanoseconds: a number of milliseconds, or text like `10s`, `1m30s`, `1d2h`.

    What does not fit into 64 bits becomes what Go makes of it: a negative one. Raise ThresholdError on anything else.
    """
    if isinstance(value, int | float):
        return _milliseconds(float(value))
    try:
        return _milliseconds(parse_float(value))
    except ThresholdError:
        pass
    days, mark, rest = value.partition("d")
    if not mark:
        return _go_duration(value)
    if not re.fullmatch(r"[+-]?[0-9]+", days, re.ASCII) or not LEAST_NS <= int(days) <= MOST_NS:
        raise ThresholdError(f"{value!r} is no duration; days are a whole number, as in 1d or 2d12h")
    hours = _go_duration(rest) if rest else 0
    if hours < 0:
        raise ThresholdError(f"{value!r} is no duration; the part after the days must not be negative")
    whole = int(days) * _DAY_NS + (-hours if int(days) < 0 else hours)
    return (whole - LEAST_NS) % 2**64 + LEAST_NS


def _milliseconds(number: float) -> int:
    ns = number * 1_000_000.0
    return int(ns) if LEAST_NS <= ns < -LEAST_NS else LEAST_NS


def _go_duration(text: str) -> int:
    sign, body = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if body == "0":
        return 0
    total, at = 0, 0
    while at < len(body):
        part = _DURATION_PART.match(body, at)
        if not part or not (part[1] or part[2]) or part[3] not in _UNITS_NS:
            raise ThresholdError(f"{text!r} is no duration; write one like 500ms, 10s, 1m30s or 1d")
        unit = _UNITS_NS[part[3]]
        digits = (part[2] or "")[:18]
        total += int(part[1] or 0) * unit + int(float(digits or 0) * (unit / 10.0 ** len(digits)))
        at = part.end()
    if not body:
        raise ThresholdError("an empty text is no duration; write one like 10s")
    if not LEAST_NS <= sign * total <= MOST_NS:
        raise ThresholdError(f"{text!r} is longer than 292 years, the longest duration; write a shorter one")
    return sign * total


@dataclass(frozen=True, slots=True)
class Expression:
    """`<method> <operator> <limit>`; `percentile` (0..100) has a meaning only where the method is `p`."""

    source: str
    method: str
    operator: str
    limit: float
    percentile: float = 0.0

    @property
    def aggregation(self) -> str:
        """The method as the id of a check spells it: `p95`, `p99.9`, `avg`, `rate`."""
        return f"p{self.percentile:.15g}" if self.method == "p" else self.method

    def holds(self, value: float) -> bool:
        """Whether the comparison is true; with NaN on either side only `!=` is."""
        return COMPARE[self.operator](value, self.limit)

    @property
    def stays_broken(self) -> bool:
        """Whether no later sample can undo a failure; of counters, that nothing negative is added is taken for sure."""
        edge = self.method == "rate" and (self.operator[0], self.limit) in {("<", 0.0), (">", 1.0)}
        return edge or (self.method, self.operator[0]) in {("max", "<"), ("min", ">"), ("count", "<")}


def parse_expression(source: str) -> Expression:
    """Read one threshold expression. Raise ThresholdError, saying what was found and what is allowed."""
    for op in OPERATORS:
        left, found, right = source.partition(op)
        if found:
            break
    else:
        raise ThresholdError(f"{source!r} has no operator; one of {' '.join(OPERATORS)} is needed, as in p(95)<2500")
    method, percentile = _parse_method(left.strip(GO_SPACE), source)
    try:
        limit = parse_float(right.strip(GO_SPACE))
    except ThresholdError as error:
        raise ThresholdError(f"right side of {source!r}: {error}") from error
    return Expression(source, method, op, limit, percentile)


def _parse_method(left: str, source: str) -> tuple[str, float]:
    if left in METHODS:
        return left, 0.0
    if not (left.startswith("p(") and left.endswith(")")):
        allowed = "value, count, rate, avg, min, med, max or p(N)"
        raise ThresholdError(f"left side of {source!r} is {left!r}; it must be {allowed}")
    try:
        percentile = parse_float(left[2:-1])
    except ThresholdError as error:
        raise ThresholdError(f"percentile in {source!r}: {error}; no space is allowed inside p(N)") from error
    if not 0 <= percentile <= 100:
        raise ThresholdError(f"percentile in {source!r} is {percentile:g}; it must lie between 0 and 100")
    return "p", percentile


@dataclass(frozen=True, slots=True)
class MetricKey:
    """The name of a metric and the tags that a sample must carry to count. Pairs are sorted: order means nothing."""

    name: str
    tags: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        pairs = ",".join(f"{k}:{v}" for k, v in self.tags)
        return f"{self.name}{{{pairs}}}" if self.tags else self.name

    def matches(self, tags: Mapping[str, str]) -> bool:
        """Whether a sample with these tags belongs to it."""
        return all(tags.get(k) == v for k, v in self.tags)


def parse_metric_key(source: str) -> MetricKey:
    """Read `name` or `name{tag:value,...}`. Raise ThresholdError on a malformed key."""
    name, brace, rest = source.partition("{")
    if not brace:
        if "}" in source:
            raise ThresholdError(f"metric {source!r} has a closing brace without an opening one")
        return MetricKey(source)
    if not rest.endswith("}"):
        raise ThresholdError(f"metric {source!r} must end in a closing brace")
    pairs: dict[str, str] = {}
    for pair in rest[:-1].split(","):
        key, colon, value = pair.partition(":")
        if not colon or not value:
            raise ThresholdError(f"metric {source!r}: {pair!r} is no tag; write tag:value, separated by commas")
        if not _bare(key):
            raise ThresholdError(f"metric {source!r}: {pair!r} has no tag name (k6 crashes on it)")
        pairs[_bare(key)] = _bare(value)
    return MetricKey(name, tuple(sorted(pairs.items())))


def _bare(text: str) -> str:
    return text.strip(GO_SPACE).strip("\"'")


@dataclass(frozen=True, slots=True)
class Threshold:
    """One threshold of one metric; `delay_abort_ns` is None where `delayAbortEval` was not given."""

    expression: Expression
    abort_on_fail: bool = False
    delay_abort_ns: int | None = None

    def aborts(self, elapsed_ns: int) -> bool:
        """Whether a failure at this time of the run stops the run."""
        return self.abort_on_fail and (self.delay_abort_ns is None or self.delay_abort_ns < elapsed_ns)


@dataclass(frozen=True, slots=True)
class ThresholdSet:
    """Thresholds by metric, keys that mean the same metric merged, in the order of the source."""

    by_metric: Mapping[MetricKey, tuple[Threshold, ...]] = field(default_factory=dict)

    def validate(self, types: Mapping[str, MetricType]) -> None:
        """Raise ThresholdError for a metric that does not exist and an aggregation that its type does not have."""
        for key, thresholds in self.by_metric.items():
            if key.name not in types:
                raise ThresholdError(f"metric {key.name!r} does not exist; there are {', '.join(sorted(types))}")
            allowed = AGGREGATIONS[types[key.name]]
            for threshold in thresholds:
                if threshold.expression.method not in allowed:
                    raise ThresholdError(
                        f"{threshold.expression.source!r} on {key}: a {types[key.name]} has no"
                        f" {threshold.expression.method!r}; it has {', '.join(allowed)}"
                    )


def aggregate(sink: Sink, expression: Expression, elapsed_s: float) -> float:
    """The left side of an expression as k6 computes it; an empty gauge or trend is 0, an empty rate NaN."""
    match sink:
        case CounterSink():
            if expression.method == "count":
                return sink.total
            return (
                sink.total / elapsed_s if elapsed_s else math.copysign(math.inf, sink.total) if sink.total else math.nan
            )
        case GaugeSink():
            return sink.value
        case RateSink():
            return sink.trues / sink.total if sink.total else math.nan
        case TrendSink():
            return _aggregate_trend(sink, expression)


def _aggregate_trend(sink: TrendSink, expression: Expression) -> float:
    match expression.method:
        case "avg":
            return sink.mean()
        case "med":
            return sink.percentile(50.0)
        case "max":
            return sink.percentile(100.0)
        case "min":
            return sink.percentile(0.0)
        case _:
            return sink.percentile(expression.percentile)


def k6_verdict(sink: Sink, expression: Expression, elapsed_s: float) -> bool:
    """What k6 says at the end of a run. A rate without samples passes whatever is asked of it, as it does in k6."""
    if isinstance(sink, RateSink) and not sink.samples:
        return True
    return expression.holds(aggregate(sink, expression, elapsed_s))


def lint(key: MetricKey, threshold: Threshold) -> list[str]:
    """Thresholds that are legal and surely not what was meant; each entry is one sentence."""
    e = threshold.expression
    found = []
    if e.method == "p" and "p(" not in e.source:
        found.append(f"{key}: {e.source!r} has no percentile and means the minimum; write p(95){e.operator}{e.limit:g}")
    elif e.method == "p" and 0 < e.percentile < 1:
        meant = f"p({e.percentile * 100:g})"
        found.append(
            f"{key}: {e.source!r} is the {e.percentile:g}th percentile, close to the minimum; {meant} was meant"
        )
    if not math.isfinite(e.limit):
        found.append(f"{key}: {e.source!r} compares with no finite number and can never decide anything")
    if threshold.abort_on_fail and (threshold.delay_abort_ns or 0) < 0:
        found.append(f"{key}: delayAbortEval of {e.source!r} is negative or too long, so nothing is waited for")
    if threshold.delay_abort_ns is not None and not threshold.abort_on_fail:
        found.append(f"{key}: {e.source!r} has delayAbortEval without abortOnFail, which does nothing")
    return found
