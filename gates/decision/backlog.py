"""When a falling backlog will be gone. Pure; standard library only."""

from collections.abc import Sequence
from itertools import pairwise

from gates.decision.assessment import number
from gates.evidence import Evidence, Outcome

LEAST_BACKLOG_SAMPLES = 4


def backlog_gone_in_s(lines: Sequence[Evidence]) -> float | None:
    """Seconds until the backlog is gone at the observed rate; None unless it fell during the whole observation.

    `details.samples` of each line is a list of `[seconds, events]`. It fell if the mean of each quarter of the samples
    is below that of the quarter before.
    """
    estimates = []
    for line in lines:
        estimate = _falling(_series(line.details.get("samples")))
        if line.outcome is not Outcome.PASS or estimate is None:
            return None
        estimates.append(estimate)
    return max(estimates, default=None)


def _series(samples: object) -> list[tuple[float, float]]:
    pairs = [p for p in samples if isinstance(p, list) and len(p) == 2] if isinstance(samples, list) else []
    points = [(number(at), number(events)) for at, events in pairs]
    return sorted((at, events) for at, events in points if at is not None and events is not None)


def _falling(series: Sequence[tuple[float, float]]) -> float | None:
    if len(series) < LEAST_BACKLOG_SAMPLES or series[-1][0] <= series[0][0]:
        return None
    cuts = [round(i * len(series) / 4) for i in range(5)]
    means = [sum(n for _, n in series[a:b]) / (b - a) for a, b in pairwise(cuts)]
    if not all(later < earlier for earlier, later in pairwise(means)):
        return None
    rate = (series[0][1] - series[-1][1]) / (series[-1][0] - series[0][0])
    return series[-1][1] / rate if rate > 0 else None
