"""Whether a lag or a latency inside its limit is growing towards it. Pure.

The bounds assume independent samples of one distribution. Samples of a queue, or of a leak, that grows through the
whole run are neither. Ten seconds of such a run say nothing about its end, so it is unknown: no pass,
and, inside the limit, no failure.
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from loadtests.judgement.verdict import ThresholdOutcome, ThresholdResult, Why

FEWEST = 60
LEAST_VALUES = 9
LEAST_RISE_MS = 500.0
"""From the first third of a run to the last."""
LEAST_SLOWER_MS = 100.0
"""Of a latency, beyond what the null requests rose by."""
PARTS = 6
LEAST_SHARE = 0.2
"""Of the rise each half of the run has at least this: one hiccup at the end is no rise."""


def thirds(values: Sequence[float]) -> tuple[float, float, float]:
    """What nine in ten exceed in the first, the middle and the last third.

    Not the medians: a worker that looks every two seconds has a sawtooth, of which a third holds one tooth and a part.
    Its quick deliveries stay quick to the end; those of a queue that grows do not.
    """
    first, middle, last = _lowest(values, 3)
    return first, middle, last


def _lowest(values: Sequence[float], parts: int) -> list[float]:
    """What nine in ten exceed in each part of a run; the last part has what is over."""
    n = len(values) // parts
    ends = [*range(n, n * parts, n), len(values)]
    return [statistics.quantiles(values[i * n : end], n=10)[0] for i, end in enumerate(ends)]


def is_rising(values: Sequence[float]) -> bool:
    """Whether lags in ms, in order of arrival, rise through the whole of a run."""
    return len(values) >= FEWEST and rise_of(values) > LEAST_RISE_MS


def rise_of(values: Sequence[float]) -> float:
    """By how much values rise from the first third to the last; 0 unless they do so in both halves of the run."""
    if len(values) < LEAST_VALUES:
        return 0.0
    first, middle, last = thirds(values)
    rise = last - first
    return rise if rise > 0 and min(middle - first, last - middle) > LEAST_SHARE * rise else 0.0


def leak_of(sessions: Sequence[float], unused: Sequence[float]) -> float:
    """By how much connections grew that nobody uses. A leak opens new ones all the time, so both numbers rise, and the
    sessions in all parts of the run but one. A pool that has become idle opens none; a new instance opens its own at
    once.
    """
    return min(rise_of(sessions), rise_of(unused)) if _rises_in_most_parts(sessions) else 0.0


def _rises_in_most_parts(values: Sequence[float]) -> bool:
    """Whether values rise from each part of a run to the next, but for one."""
    lowest = _lowest(values, PARTS) if len(values) >= 2 * PARTS else list(thirds(values))
    return sum(after > before for before, after in itertools.pairwise(lowest)) >= len(lowest) - 2


def is_slowing(values: Sequence[float], null: Sequence[float]) -> bool:
    """Whether latencies of one kind of request, in order, grow through the whole of a run, so that nine in ten at its
    end are slower than half of those at its begin; null: what the instrument added to its own requests meanwhile.
    """
    if len(values) < FEWEST or len(null) < LEAST_VALUES or not _rises_in_most_parts(values):
        return False
    begin, of_null = statistics.median(values[: len(values) // 3]), thirds(null)
    least = LEAST_SLOWER_MS + max(0.0, of_null[2] - of_null[0])
    return rise_of(values) > least and thirds(values)[2] > begin


def distrust_rise(judged: ThresholdResult, values: Sequence[float]) -> ThresholdResult:
    """A pass of a limit from above is unknown where the values rise through the run."""
    if judged.verdict is not ThresholdOutcome.PASS or judged.operator not in {"<", "<="} or not is_rising(values):
        return judged
    steps = ", ".join(f"{one:.0f}" for one in thirds(values))
    message = (
        f"{judged.message}, but the lag rises through the whole run (nine in ten exceed {steps} ms by thirds): events"
        " come faster than they are delivered; give the worker more capacity, or load less"
    )
    return replace(judged, verdict=ThresholdOutcome.UNKNOWN, why=Why.UNDECIDABLE, message=message)


def distrust_slowing(
    judged: ThresholdResult, by_request: Mapping[str, Sequence[float]], null: Sequence[float]
) -> ThresholdResult:
    """A pass of a latency is undecided where that of a request rises through the run: what was a disturbance does not
    go on while the run does.
    """
    if judged.verdict is not ThresholdOutcome.PASS or judged.operator not in {"<", "<="}:
        return judged
    slowing = [name for name, values in by_request.items() if is_slowing(values, null)]
    if not slowing:
        return judged
    steps = ", ".join(f"{one:.0f}" for one in thirds(by_request[slowing[0]]))
    message = (
        f"{judged.message}, but {slowing[0]} becomes slower through the whole run at an even load (nine in ten take"
        f" more than {steps} ms by thirds): something grows with each request; look for a leak or a missing index"
    )
    return replace(judged, verdict=ThresholdOutcome.UNKNOWN, why=Why.UNDECIDED, message=message)
