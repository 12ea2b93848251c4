"""How often a threshold on a mean (`avg<...`) is wrong: latencies with tails, judged by the code that judges."""

import math
import random
from array import array
from collections import Counter
from collections.abc import Callable

from benchmarks.at_looks import Load, looks_at_s
from loadtests.engine.sinks import TrendSink
from loadtests.engine.tally import Tally
from loadtests.judgement.verdict import ThresholdOutcome, judge
from loadtests.thresholds.language import MetricKey, Threshold, ThresholdSet, parse_expression

KEY, LIMIT_MS, GRACE_S = MetricKey("outbox_lag_ms"), 1000.0, 30.0
THRESHOLD = Threshold(parse_expression(f"avg<{LIMIT_MS:g}"))
LOAD = Load(50, 10, 30, 0.0, 0.0)
TAILS = {0.5: "light tail", 1.0: "heavy tail", 1.5: "very heavy tail"}
"""The sigma of a lognormal distribution; their skewness is 1.8, 6.2 and 33."""
MEANS = (0.8, 1.0, 1.25)


def verdict(rng: random.Random, sigma: float, mean: float) -> tuple[str, float]:
    """pass, fail or unknown, and after how many seconds, where the true mean is so many times the limit."""
    tally, sink = Tally(ThresholdSet({KEY: (THRESHOLD,)}), LOAD.planned_s), TrendSink()
    place = math.log(mean * LIMIT_MS) - sigma * sigma / 2.0
    looks = 0
    for at in looks_at_s(LOAD):
        pairs, n = array("d"), len(sink.values)
        for number in range(n, int(at * LOAD.per_s)):
            value = rng.lognormvariate(place, sigma)
            sink.add(value)
            pairs.extend(((number + 0.5) / LOAD.per_s, value))
        tally.take([], [(KEY.name, {}, pairs)], 0.0)
        reached = at >= LOAD.planned_s
        most = max((LOAD.most_s + GRACE_S) * 1000.0, sink.percentile(100.0))
        seen = tally.looks(
            KEY,
            THRESHOLD.expression,
            reached_s=LOAD.planned_s if reached else None,
            ran_on=looks > 0,
            variance=sink.variance(sink.mean()),
            most=most,
        )
        looks += reached
        found = judge(KEY, THRESHOLD, sink, at, looks=seen).verdict
        if found is ThresholdOutcome.FAIL or (reached and found is ThresholdOutcome.PASS):
            return found.value, at
    return "unknown", LOAD.most_s


def rows(runs: int, rate: Callable[[int, int], str]) -> list[list[str]]:
    """The tail, the true mean, and the rates of the three verdicts with the mean time to them."""
    found = []
    for sigma, said in TAILS.items():
        for mean in MEANS:
            rng = random.Random(f"mean {sigma} {mean}")
            seen = [verdict(rng, sigma, mean) for _ in range(runs)]
            counts = Counter(word for word, _ in seen)
            rates = [rate(counts[word], runs) for word in ("pass", "fail", "unknown")]
            found.append([said, f"{100 * mean:g} % of the limit", *rates, f"{sum(at for _, at in seen) / runs:.0f} s"])
    return found
