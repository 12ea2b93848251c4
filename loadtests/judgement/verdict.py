"""Our verdict on a threshold: pass, fail or unknown, with its samples, its interval and its margin. Pure.

A threshold passes only if the whole 95 % interval lies inside the limit and fails only if it lies wholly outside.
Nothing observed, too few samples, or an interval across the limit is `unknown`. k6's verdict stands beside it.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

from gates.decision.intervals import mean_bounds_of, percentile_bounds, percentile_minimum, rate_bounds, rate_minimum
from loadtests.engine.hdr import EXACT, widened
from loadtests.engine.sinks import CounterSink, GaugeSink, RateSink, Sink, TrendSink
from loadtests.thresholds.language import Expression, MetricKey, Threshold, aggregate, k6_verdict

CONFIDENCE = 0.95
MEAN_MINIMUM = 30
"""Fewest samples for Student's t on latencies, which are skewed."""
EXACT_MINIMUM = 30
"""Fewest samples where a threshold is about the run itself (max, rate==1): a statement about nearly nothing is none."""


class ThresholdOutcome(enum.StrEnum):
    """The outcome of a threshold."""

    PASS = "pass"  # noqa: S105  -- a verdict, no password
    FAIL = "fail"
    UNKNOWN = "unknown"


class Why(enum.StrEnum):
    """Why a verdict is unknown; `needs more` kinds may be cured by running on."""

    DECIDED = "decided"
    UNDECIDED = "undecided"
    TOO_FEW = "too few samples"
    NO_DATA = "no data"
    SWITCHED_OFF = "switched off"
    INVALID_RUN = "invalid run"
    UNDECIDABLE = "undecidable"
    STARVED = "the gate itself was slow"


@dataclass(frozen=True, slots=True)
class ThresholdResult:
    """One threshold judged. `low`/`high` bound the estimate `observed`; `margin` is the distance from the nearer end of
    the interval to the limit, relative to the limit (negative outside). `needed` is how many samples it would take.
    """

    metric: str
    source: str
    aggregation: str
    operator: str
    limit: float
    verdict: ThresholdOutcome
    why: Why
    k6_passes: bool
    observed: float | None
    low: float | None
    high: float | None
    method: str
    samples: int
    needed: int
    margin: float | None
    message: str
    recorder: str = EXACT

    @property
    def check(self) -> str:
        """The id of the check: `load/<metric>/<aggregation>`."""
        return f"load/{self.metric}/{self.aggregation}"

    @property
    def wants_more(self) -> bool:
        """Whether more samples could turn this unknown into a verdict."""
        return self.why in {Why.UNDECIDED, Why.TOO_FEW}


@dataclass(frozen=True, slots=True)
class _Estimate:
    low: float
    high: float
    method: str
    minimum: int
    is_rounded: bool = False


def judge(
    key: MetricKey,
    threshold: Threshold,
    sink: Sink,
    elapsed_s: float,
    *,
    confidence: float = CONFIDENCE,
    absent: str = "",
) -> ThresholdResult:
    """Judge one threshold over what was seen. `absent` says why a metric could not be measured at all."""
    e = threshold.expression
    value = aggregate(sink, e, elapsed_s)
    passes = k6_verdict(sink, e, elapsed_s)
    unknown = ThresholdResult(
        metric=str(key),
        source=e.source,
        aggregation=e.aggregation,
        operator=e.operator,
        limit=e.limit,
        verdict=ThresholdOutcome.UNKNOWN,
        why=Why.NO_DATA,
        k6_passes=passes,
        observed=None if sink.is_empty or math.isnan(value) else value,
        low=None,
        high=None,
        method="",
        samples=sink.samples,
        needed=1,
        margin=None,
        message="",
        recorder=sink.recorder if isinstance(sink, TrendSink) else EXACT,
    )
    if absent:
        why = Why.SWITCHED_OFF if absent.startswith("switched off") else Why.NO_DATA
        return replace(unknown, why=why, message=f"{key}: {absent}")
    if math.isnan(e.limit):
        return replace(unknown, why=Why.UNDECIDABLE, message=f"{key}: {e.source} compares with NaN; give a number")
    if sink.is_empty and not isinstance(sink, CounterSink):
        return replace(unknown, message=f"{key}: no sample was taken (k6 would have passed it: {_yes(passes)})")
    estimate = _estimate(sink, e, value, confidence)
    judged = replace(
        unknown,
        observed=value,
        low=estimate.low,
        high=estimate.high,
        method=estimate.method,
        needed=estimate.minimum,
        margin=margin(e, estimate.low, estimate.high),
    )
    return _decide(judged, e, sink, estimate, confidence)


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def _decide(
    judged: ThresholdResult, e: Expression, sink: Sink, estimate: _Estimate, confidence: float
) -> ThresholdResult:
    """Compare the interval with the limit, once there are enough samples."""
    number = f"{judged.metric} {judged.aggregation} {number_text(judged.observed)}"
    span = f"[{number_text(judged.low)}, {number_text(judged.high)}]"
    limit = f"limit {e.operator}{number_text(e.limit)}"
    facts = f"{number}, {confidence * 100:.4g} % bounds {span}, {judged.samples} samples, {limit}"
    if judged.recorder != EXACT:
        facts += f", recorder: {judged.recorder}"
    if judged.samples < estimate.minimum and not isinstance(sink, CounterSink):
        message = f"{facts}: too few samples, {estimate.minimum} are needed"
        return replace(judged, why=Why.TOO_FEW, message=message)
    inside = e.holds(estimate.low), e.holds(estimate.high)
    blurred = estimate.is_rounded and estimate.low <= e.limit <= estimate.high
    if all(inside) and not blurred:
        return replace(judged, verdict=ThresholdOutcome.PASS, why=Why.DECIDED, message=f"{facts}: inside")
    if not any(inside) and not blurred and not e.holds(judged.observed or 0.0):
        return replace(judged, verdict=ThresholdOutcome.FAIL, why=Why.DECIDED, message=f"{facts}: outside")
    needed = _more(judged, e, sink, confidence)
    message = f"{facts}: the interval reaches across the limit; about {needed} samples would decide it"
    return replace(judged, why=Why.UNDECIDED, needed=needed, message=message)


def _estimate(sink: Sink, e: Expression, value: float, confidence: float) -> _Estimate:
    """The interval of the estimate, its method in words, and the fewest samples that can decide."""
    upper = e.operator in {"<", "<="}
    exact = e.operator not in {"<", "<=", ">", ">="}
    match sink:
        case CounterSink() | GaugeSink():
            return _Estimate(value, value, "exact: a statement about the run itself", 1)
        case RateSink():
            if exact or not 0.0 < e.limit < 1.0:
                return _Estimate(value, value, "exact: a limit at the edge of what a rate can be", EXACT_MINIMUM)
            low, high = rate_bounds(sink.trues, sink.total, confidence)
            minimum = rate_minimum(e.limit, confidence, upper=upper)
            return _Estimate(low, high, f"Clopper-Pearson, {confidence:.4g} on each side", minimum)
        case TrendSink():
            return _estimate_trend(sink, e, value, confidence, exact=exact, upper=upper)


def _estimate_trend(
    sink: TrendSink, e: Expression, value: float, confidence: float, *, exact: bool, upper: bool
) -> _Estimate:
    percent = 50.0 if e.method == "med" else e.percentile
    if e.method in {"min", "max"} or (e.method == "p" and percent in {0.0, 100.0}):  # exact in a histogram, too
        return _Estimate(value, value, "exact: a statement about the run itself", EXACT_MINIMUM)
    rounded = sink.folded is not None
    blur = f"; {sink.error:.1%} of the recorder on top" if rounded else ""
    if exact and rounded:
        low, high = widened(value, value, sink.error)
        return _Estimate(low, high, f"a statement about the run itself{blur}", EXACT_MINIMUM, is_rounded=True)
    if exact:
        return _Estimate(value, value, "exact: a statement about the run itself", EXACT_MINIMUM)
    if e.method == "avg":
        squares = math.fsum((v - value) ** 2 for v in sink.values)
        squares += math.fsum(n * (v - value) ** 2 for v, n in sink.rounded())
        low, high = widened(*mean_bounds_of(sink.samples, squares, value, confidence), sink.error)
        method = f"Student's t, {confidence:.4g} on each side{blur}"
        return _Estimate(low, high, method, MEAN_MINIMUM, is_rounded=rounded)
    low, high = widened(*percentile_bounds(sink.in_order(), percent, confidence), sink.error)
    minimum = percentile_minimum(percent, confidence, upper=upper)
    return _Estimate(low, high, f"order statistics, {confidence:.4g} on each side{blur}", minimum, is_rounded=rounded)


def margin(e: Expression, low: float, high: float) -> float | None:
    """Distance of the worse end of the interval from the limit, as a share of the limit; None where it is no number."""
    if e.operator in {"<", "<="}:
        distance = e.limit - high
    elif e.operator in {">", ">="}:
        distance = low - e.limit
    else:
        return None
    scale = abs(e.limit) or 1.0
    found = distance / scale
    return found if math.isfinite(found) else None


def _more(judged: ThresholdResult, e: Expression, sink: Sink, confidence: float) -> int:
    """About how many samples would decide at the present estimate: intervals shrink with the root of n."""
    if isinstance(sink, RateSink) and sink.total:
        return _more_trials(sink.trues / sink.total, e.limit, sink.total, confidence)
    if isinstance(sink, TrendSink) and e.method in {"p", "med"}:
        beyond = sum(value > e.limit for value in sink.values)
        beyond += sum(count for value, count in sink.rounded() if value > e.limit)
        percent = 50.0 if e.method == "med" else e.percentile
        return _more_trials(beyond / sink.samples, 1.0 - percent / 100.0, sink.samples, confidence)
    if judged.low is None or judged.high is None or not math.isfinite(judged.high - judged.low):
        return judged.samples * 4
    gap = abs((judged.observed or 0.0) - e.limit)
    width = max(judged.high - (judged.observed or 0.0), (judged.observed or 0.0) - judged.low)
    factor = (width / gap) ** 2 if gap > 0 else 100.0
    return max(judged.samples + 1, math.ceil(judged.samples * min(factor, 100.0)))


def _more_trials(share: float, limit: float, total: int, confidence: float) -> int:
    """How many trials at this share would have bounds on one side of the limit; a percentile is such a share, too."""
    for _ in range(12):
        total = math.ceil(total * 1.5)
        low, high = rate_bounds(min(total, round(share * total)), total, confidence)
        if low > limit or high < limit:
            break
    return total


def number_text(value: float | None) -> str:
    """A number for people: four digits, nothing where there is none."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 10_000 and math.isfinite(value) else f"{value:.4g}"


def certain_failure(threshold: Threshold, sink: Sink, most_samples: int, *, confidence: float = CONFIDENCE) -> bool:
    """Whether the threshold must fail even if every sample still to come (up to `most_samples` in all) is perfect."""
    e = threshold.expression
    if e.operator not in {"<", "<=", ">", ">="} or sink.is_empty:
        return False
    upper, total = e.operator in {"<", "<="}, max(most_samples, sink.samples)
    if isinstance(sink, RateSink):
        if not 0.0 < e.limit < 1.0:
            return False
        bad = sink.trues if upper else sink.total - sink.trues
        low, _ = rate_bounds(bad, total, confidence)
        return low > (e.limit if upper else 1.0 - e.limit)
    if isinstance(sink, TrendSink) and e.method in {"p", "med"} and upper:
        percent = 50.0 if e.method == "med" else e.percentile
        bad = sum(1 for value in sink.values if not e.holds(value))
        surely = 1.0 - sink.error
        bad += sum(count for value, count in sink.rounded() if not e.holds(value * surely))
        low, _ = rate_bounds(bad, total, confidence)
        return 0.0 < percent < 100.0 and low > 1.0 - percent / 100.0
    return False
