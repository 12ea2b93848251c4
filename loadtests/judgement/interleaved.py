"""Judges a release against the previous one within one run: a rate over pairs of calls like any other. Pure.

The samples come from pairs.py; the thresholds are here.
"""

from collections.abc import Iterator
from dataclasses import replace

from gates.decision.intervals import exact_test, share_bounds
from loadtests.engine.sinks import RateSink, Sink
from loadtests.judgement.verdict import CONFIDENCE, ThresholdOutcome, ThresholdResult, Why
from loadtests.thresholds.language import MetricKey, Threshold, parse_expression

SLOWER = {"baseline_slower_p50": 0.5, "baseline_slower_p95": 0.95}
"""Metrics over pairs in which only one release was slow (1: the new one) -> the percentile beyond which it is slow."""
FAILED, SPARED, ANSWERED = "baseline_failed", "baseline_spared", "baseline_answered"
"""Of all pairs: whether only the release, and whether only the baseline failed; whether the baseline answered."""
DIFFERS = "baseline_differs"
"""Of the pairs that ask which release it is: whether the two are not the same build."""
METRICS = (*SLOWER, FAILED, SPARED, ANSWERED)
LEAST_ANSWERED = 0.5


def thresholds(failed_percent: float) -> Iterator[tuple[MetricKey, Threshold]]:
    """The additional thresholds of a run with a baseline."""
    for metric in SLOWER:
        yield MetricKey(metric), Threshold(parse_expression("rate<0.5"))
    yield MetricKey(FAILED), Threshold(parse_expression(f"rate<{failed_percent / 100.0!r}"))


def lacks(answered: Sink, differs: Sink) -> str:
    """Why nothing can be compared; empty where the baseline answered most calls as expected, and is another release."""
    if isinstance(differs, RateSink) and differs.total and not differs.trues:
        return "BASELINE_URL answers /version as BASE_URL does: it is no release before. Name that one, or none"
    if not isinstance(answered, RateSink) or not answered.total:
        return "no call was made to the baseline (BASELINE_URL)"
    if answered.trues < LEAST_ANSWERED * answered.total:
        return f"the baseline answered {answered.trues} of {answered.total} calls as expected; is BASELINE_URL right?"
    return ""


def against(one: ThresholdResult, failed: Sink, spared: Sink) -> ThresholdResult:
    """More failures than the margin are the release's only if the baseline, which meets the same chances, has fewer."""
    if one.verdict is not ThresholdOutcome.FAIL or not isinstance(failed, RateSink) or not isinstance(spared, RateSink):
        return one
    test = exact_test((1.0 - CONFIDENCE) / 2)
    worth = one.independent or failed.total
    low, _ = share_bounds(failed.trues / failed.total * worth, worth, test)
    _, high = share_bounds(spared.trues / spared.total * worth, worth, test)
    if low - high > one.limit:
        return one
    why = f"the baseline failed alone in {spared.trues} of {spared.total} pairs, so the difference is not proved"
    return replace(one, verdict=ThresholdOutcome.UNKNOWN, why=Why.UNDECIDED, message=f"{one.message}, but {why}")
