"""Our verdict on a threshold: pass, fail or unknown, with its samples, its interval and its margin. Pure.

A threshold passes only if the whole 95 % interval lies inside the limit and fails only if it lies wholly outside.
Nothing observed, too few samples, or an interval across the limit is `unknown`. A share of failures that is proved too
large needs fewer samples than a small one does. k6's verdict stands beside it.

The risk of 5 % on each side is split over two tests (shares.py): an exact one for the look that was planned, and one
that may be looked at at any time, for a failure that shows earlier and for a run that goes on. Both count independent
samples; how many the samples are worth is seen from when the bad ones came (gates/decision/dependence.py).
"""

import enum
import math
from dataclasses import dataclass, replace

from gates.decision.intervals import ShareTest, mean_bounds_of, quantile_bounds, rate_minimum, share_bounds
from gates.decision.sequential import mean_proved
from gates.text.quantity import shown
from loadtests.engine.hdr import EXACT, widened
from loadtests.engine.sinks import CounterSink, GaugeSink, RateSink, Sink, TrendSink
from loadtests.judgement import shares
from loadtests.judgement.looks import Looks
from loadtests.thresholds.language import Expression, MetricKey, MetricType, Threshold, aggregate, k6_verdict

CONFIDENCE = 1.0 - shares.RISK
ONE_LOOK = Looks()
MEAN_MINIMUM = 30
"""Fewest samples for Student's t on latencies, which are skewed."""
EXACT_MINIMUM = 30
"""Fewest samples for a threshold about the run itself (max, rate==1), and for a rate that has surely failed."""


class ThresholdOutcome(enum.StrEnum):
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
    `independent` is how many independent samples they are worth, `stalls` how long each one lasted (s), `excluded_s`
    the longest stall that a pass excludes.
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
    low: float | None = None
    high: float | None = None
    method: str = ""
    samples: int = 0
    needed: int = 1
    margin: float | None = None
    message: str = ""
    recorder: str = EXACT
    independent: float | None = None
    stalls: tuple[float, ...] = ()
    excluded_s: float | None = None

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
    """`proved`: what the tests say of a limit on a share or a mean; None where the interval itself decides."""

    low: float
    high: float
    method: str
    minimum: int
    is_rounded: bool = False
    proved: ThresholdOutcome | None = None
    independent: float | None = None


def judge(
    key: MetricKey, threshold: Threshold, sink: Sink, elapsed_s: float, *, looks: Looks = ONE_LOOK, absent: str = ""
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
        observed=None if not sink.samples or math.isnan(value) else value,
        samples=sink.samples,
        recorder=sink.recorder if isinstance(sink, TrendSink) else EXACT,
    )
    if absent:
        why = Why.SWITCHED_OFF if absent.startswith("switched off") else Why.NO_DATA
        return replace(unknown, why=why, message=f"{key}: {absent}")
    if math.isnan(e.limit):
        return replace(unknown, why=Why.UNDECIDABLE, message=f"{key}: {e.source} compares with NaN; give a number")
    if not sink.samples and not isinstance(sink, CounterSink):
        by_k6 = "yes" if passes else "no"
        return replace(unknown, message=f"{key}: no sample was taken (k6 would have passed it: {by_k6})")
    estimate = _estimate(sink, e, value, looks)
    judged = replace(
        unknown,
        observed=value,
        low=estimate.low,
        high=estimate.high,
        method=estimate.method,
        needed=estimate.minimum,
        margin=margin(e, estimate.low, estimate.high),
        independent=estimate.independent,
        stalls=looks.dependence.stalls if estimate.proved is not None else (),
        excluded_s=_excluded_s(e, sink, looks),
    )
    return _decide(judged, e, sink, estimate, looks)


def _excluded_s(e: Expression, sink: Sink, looks: Looks) -> float | None:
    """The longest stall that a run without one excludes: were more of its time bad than allowed, it had seen one."""
    kind = MetricType.RATE if isinstance(sink, RateSink) else MetricType.TREND
    allowed = shares.allowed_bad(e, kind) if isinstance(sink, RateSink | TrendSink) else None
    return None if allowed is None or not looks.seconds else looks.seconds * allowed / -math.log(shares.RISK)


def _decide(judged: ThresholdResult, e: Expression, sink: Sink, estimate: _Estimate, looks: Looks) -> ThresholdResult:
    """Compare the interval with the limit, once there are enough samples."""
    number = f"{judged.metric} {judged.aggregation} {shown(judged.observed)}"
    span = f"[{shown(judged.low)}, {shown(judged.high)}]"
    limit = f"limit {e.operator}{shown(e.limit)}"
    facts = f"{number}, {CONFIDENCE * 100:.4g} % bounds {span}, {judged.samples} samples{_worth(judged)}, {limit}"
    if judged.recorder != EXACT:
        facts += f", recorder: {judged.recorder}"
    if judged.samples < estimate.minimum and not isinstance(sink, CounterSink):
        message = f"{facts}: too few samples, {estimate.minimum} are needed"
        return replace(judged, why=Why.TOO_FEW, message=message)
    verdict = _by_interval(e, estimate) if estimate.proved is None else estimate.proved
    if verdict is ThresholdOutcome.PASS and e.holds(judged.observed or 0.0):
        return replace(judged, verdict=verdict, why=Why.DECIDED, message=f"{facts}: inside")
    if verdict is ThresholdOutcome.FAIL and not e.holds(judged.observed or 0.0):
        return replace(judged, verdict=verdict, why=Why.DECIDED, message=f"{facts}: outside")
    needed = _more(judged, e, sink, looks)
    message = f"{facts}: the interval reaches across the limit; about {needed} samples would decide it"
    return replace(judged, why=Why.UNDECIDED, needed=needed, message=message)


def _by_interval(e: Expression, estimate: _Estimate) -> ThresholdOutcome:
    if estimate.is_rounded and estimate.low <= e.limit <= estimate.high:
        return ThresholdOutcome.UNKNOWN
    inside = e.holds(estimate.low), e.holds(estimate.high)
    if all(inside):
        return ThresholdOutcome.PASS
    return ThresholdOutcome.UNKNOWN if any(inside) else ThresholdOutcome.FAIL


def _worth(judged: ThresholdResult) -> str:
    """What the samples are worth, where that is less than half their number."""
    if judged.independent is None or 2 * judged.independent > judged.samples:
        return ""
    worth = f"worth {judged.independent:.0f} independent ones"
    if not judged.stalls:
        return f" ({worth}: bad ones come together)"
    count = len(judged.stalls)
    return f" ({worth}: {count} stall{'s' * (count > 1)} of {math.fsum(judged.stalls) / count:.2g} s)"


def _estimate(sink: Sink, e: Expression, value: float, looks: Looks) -> _Estimate:
    """The interval of the estimate, its method in words, and the fewest samples that can decide."""
    match sink:
        case CounterSink() | GaugeSink():
            return _Estimate(value, value, "exact: a statement about the run itself", 1)
        case RateSink():
            allowed = shares.allowed_bad(e, MetricType.RATE)
            if allowed is None:
                return _Estimate(value, value, "exact: a limit at the edge of what a rate can be", EXACT_MINIMUM)
            minimum = rate_minimum(allowed, 1.0 - shares.FIXED_RISK, upper=True)
            found = _by_share(sink, e, allowed, looks, minimum)
            test, worth = _shown(looks), found.independent or sink.total
            low, high = share_bounds(sink.trues / sink.total * worth, worth, test)
            if found.proved is ThresholdOutcome.FAIL:
                minimum = min(minimum, EXACT_MINIMUM)
            return _fitted(replace(found, low=low, high=high, minimum=minimum), e)
        case TrendSink():
            return _estimate_trend(sink, e, value, looks)


def _shown(looks: Looks) -> ShareTest:
    return shares.FIXED if looks.is_one else shares.ANYTIME


def _by_share(sink: RateSink | TrendSink, e: Expression, allowed: float, looks: Looks, minimum: int) -> _Estimate:
    """What the two tests say of a share of bad samples; the interval is still to come."""
    n, (least, most) = sink.samples, shares.bad_of(e, sink)
    passes, fails = shares.proofs(least, most, n, allowed, looks)
    name = "binomial" if isinstance(sink, RateSink) else "order statistics"
    method = (
        f"{name}, exact at {shares.FIXED_RISK:g}" if looks.is_one else f"{name}, at any time at {shares.ANYTIME_RISK:g}"
    )
    _, worth = looks.dependence.effective(most, n, 1.0 - (shares.FIXED_RISK if looks.is_one else shares.ANYTIME_RISK))
    return _Estimate(
        -math.inf, math.inf, f"{method} on each side", minimum, proved=_outcome(passes, fails), independent=worth
    )


def _outcome(passes: bool, fails: bool) -> ThresholdOutcome:
    if passes is fails:
        return ThresholdOutcome.UNKNOWN
    return ThresholdOutcome.PASS if passes else ThresholdOutcome.FAIL


def _fitted(found: _Estimate, e: Expression) -> _Estimate:
    """The interval with what the other of the two tests adds or leaves open at the limit."""
    low, high = found.low, found.high
    below = found.proved is (ThresholdOutcome.PASS if e.operator in shares.UPPER else ThresholdOutcome.FAIL)
    if found.proved is ThresholdOutcome.UNKNOWN:
        return replace(found, low=min(low, e.limit), high=max(high, e.limit))
    if below:
        high = min(high, math.nextafter(e.limit, -math.inf))
    else:
        low = max(low, math.nextafter(e.limit, math.inf))
    return replace(found, low=min(low, high), high=max(low, high))


def _estimate_trend(sink: TrendSink, e: Expression, value: float, looks: Looks) -> _Estimate:
    percent = 50.0 if e.method == "med" else e.percentile
    if e.method in {"min", "max"} or (e.method == "p" and percent in {0.0, 100.0}):  # exact in a histogram, too
        return _Estimate(value, value, "exact: a statement about the run itself", EXACT_MINIMUM)
    rounded = sink.folded is not None
    blur = f"; {sink.error:.1%} of the recorder on top" if rounded else ""
    if e.operator not in {"<", "<=", ">", ">="}:
        low, high = widened(value, value, sink.error)
        return _Estimate(low, high, f"a statement about the run itself{blur}", EXACT_MINIMUM, is_rounded=rounded)
    if e.method == "avg":
        return _estimate_mean(sink, e, value, looks, blur)
    allowed = shares.allowed_bad(e, MetricType.TREND) or 0.5
    minimum = rate_minimum(allowed, 1.0 - shares.FIXED_RISK, upper=True)
    found = _by_share(sink, e, allowed, looks, minimum)
    low, high = quantile_bounds(sink.in_order(), percent, _shown(looks), found.independent)
    low, high = widened(low, high, sink.error)
    return _fitted(replace(found, low=low, high=high, method=f"{found.method}{blur}", is_rounded=rounded), e)


def _estimate_mean(sink: TrendSink, e: Expression, value: float, looks: Looks, blur: str) -> _Estimate:
    """Student's t for the look that was planned, bets on blocks of time for all others."""
    n, effective = sink.samples, looks.dependence.effective
    variance = sink.variance(value)
    skewness, sure = sink.skewness(value, variance), 1.0 - shares.FIXED_RISK
    spans = [(value, *mean_bounds_of(effective(0, n, sure)[1], variance, value, sure, skewness))]
    if looks.first and looks.first[1]:
        mean = looks.first[0] / looks.first[1]
        worth = effective(0, looks.first[1], sure)[1]
        spans.append((mean, *mean_bounds_of(worth, variance, mean, sure, skewness)))
    low, high = widened(spans[-1][1], spans[-1][2], sink.error)
    passes = looks.reached and e.holds(low) and e.holds(high)
    fails = looks.reached and not (e.holds(low) or e.holds(high))
    under = e.operator in shares.UPPER
    passes = passes or mean_proved(looks.blocks, e.limit, looks.most, shares.ANYTIME_RISK, under=under)
    fails = fails or mean_proved(looks.blocks, e.limit, looks.most, shares.ANYTIME_RISK, under=not under)
    shown = widened(spans[0][1], spans[0][2], sink.error)
    method = f"Student's t at {shares.FIXED_RISK:g}, bets at {shares.ANYTIME_RISK:g} on each side{blur}"
    found = _Estimate(*shown, method, MEAN_MINIMUM, sink.folded is not None, _outcome(passes, fails))
    return _fitted(replace(found, independent=effective(0, n, sure)[1]), e)


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


def _more(judged: ThresholdResult, e: Expression, sink: Sink, looks: Looks) -> int:
    """About how many samples would decide at the present estimate: intervals shrink with the root of n."""
    kind = MetricType.RATE if isinstance(sink, RateSink) else MetricType.TREND
    allowed = shares.allowed_bad(e, kind)
    if isinstance(sink, RateSink | TrendSink) and allowed is not None:
        bad, n = looks.dependence.effective(shares.bad_of(e, sink)[1], sink.samples, 1.0 - shares.ANYTIME_RISK)
        times = 1.0
        for _ in range(12):
            times *= 1.5
            if shares.ANYTIME.under(times * bad, times * n, allowed) or shares.ANYTIME.over(
                times * bad, times * n, allowed
            ):
                break
        return math.ceil(times * sink.samples)
    if judged.low is None or judged.high is None or not math.isfinite(judged.high - judged.low):
        return judged.samples * 4
    gap = abs((judged.observed or 0.0) - e.limit)
    width = max(judged.high - (judged.observed or 0.0), (judged.observed or 0.0) - judged.low)
    factor = min(width / gap, 10.0) ** 2 if gap > 0 else 100.0
    return max(judged.samples + 1, math.ceil(judged.samples * factor))
