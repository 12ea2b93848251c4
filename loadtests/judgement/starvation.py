"""Whether a latency over its limit is the target's fault, or could be the gate's own. Pure.

Let T be the time of the target and I the time that the instrument adds. Null requests measure I. For every d,
P(T > L) >= P(T + I > L + d) - P(I > d), however T and I depend on each other. So a percentile fails only if it still
fails with the limit raised by d and the share P(I > d) taken off. The claim holds for every d, so two are tried:
1. The nulls' p99. p95 < 2500 fails if p94 is above 2500 ms + that: a fifth of the 5 % is conceded to the instrument.
2. The slowest of n nulls, which the next one exceeds once in n + 1. A sound instrument is conceded next to nothing, so
   a slow tail is not lost.
From a mean, the nulls' mean is subtracted.
"""

from dataclasses import replace

from gates.decision.intervals import mean_bounds
from loadtests.engine.metrics import TIMINGS
from loadtests.engine.sinks import Sink, TrendSink
from loadtests.judgement.looks import Looks
from loadtests.judgement.verdict import CONFIDENCE, ONE_LOOK, ThresholdOutcome, ThresholdResult, Why, judge
from loadtests.thresholds.language import Expression, MetricKey, Threshold

CLOCKED = {*TIMINGS, "iteration_duration", "outbox_lag_ms"}
"""Trends that are measured with the clock of a load process; all others are counts, statuses, or the target's times."""
NULL, LATENESS = "null_request_ms", "loop_lateness_ms"
CONCEDED = 0.2
FEWEST = 20


def excuse(
    one: ThresholdResult, key: MetricKey, threshold: Threshold, sink: Sink, null: TrendSink, *, looks: Looks = ONE_LOOK
) -> ThresholdResult:
    """A failed latency that the instrument could have made becomes unknown; all else stays what it is."""
    e = threshold.expression
    if one.verdict is not ThresholdOutcome.FAIL or key.name not in CLOCKED or e.operator not in {"<", "<="}:
        return one
    if null.samples < FEWEST:
        why = f"only {null.samples} null requests tell how fast the gate itself was, {FEWEST} are needed"
        return replace(
            one, verdict=ThresholdOutcome.UNKNOWN, why=Why.STARVED, message=f"{one.message}, but {why}; run again"
        )
    harder = without_instrument(e, null)
    of_all = replace(looks, first=None)  # the planned part was counted for the limit itself alone
    for tried in harder:
        again = judge(key, replace(threshold, expression=tried), sink, 0.0, looks=of_all)
        if again.verdict is ThresholdOutcome.FAIL:
            return one
    why = (
        f"the gate itself was slow: it may have added {harder[0].limit - e.limit:.0f} ms (null requests: p95"
        f" {null.percentile(95.0):.0f} ms, slowest {null.percentile(100.0):.0f} ms); run again when this machine is"
        " idle, or load from another one"
    )
    return replace(one, verdict=ThresholdOutcome.UNKNOWN, why=Why.STARVED, message=f"{one.message}, but {why}")


def conceded(percent: float) -> float:
    """Percent of all requests that the instrument may have made slow, of those that a percentile leaves over."""
    return min(percent, CONCEDED * (100.0 - percent))


def without_instrument(e: Expression, null: TrendSink) -> tuple[Expression, ...]:
    """The expressions of which one must fail, too, before the target is blamed."""
    slowest = null.percentile(100.0)
    match e.method:
        case "avg":
            return (replace(e, limit=e.limit + mean_bounds(null.in_order(), null.mean(), CONFIDENCE)[1]),)
        case "p" | "med":
            percent = e.percentile if e.method == "p" else 50.0
            share, rest = conceded(percent), min(percent, 100.0 / (null.samples + 1))
            ways = ((share, null.percentile(100.0 - share)), (rest, slowest))
            return tuple(replace(e, method="p", percentile=percent - off, limit=e.limit + ms) for off, ms in ways)
        case _:
            return (replace(e, limit=e.limit + slowest),)
