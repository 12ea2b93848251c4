"""How often the comparison with the previous release is wrong: pairs of a model, judged by the code that judges.

Latencies have a heavy tail (lognormal, sigma 1, median 20 ms); a slow moment of the machine slows both. Every release
gets the same calls as the baseline, 50 pairs a second, in a run of 10 to 30 s. `decision_rates.py` makes the table.
"""

import bisect
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.at_looks import Load, at_looks
from loadtests.engine.drive import Drive
from loadtests.engine.pairs import LEAST_MS, Pairs
from loadtests.engine.sinks import RateSink
from loadtests.judgement import interleaved
from loadtests.judgement.verdict import ThresholdOutcome, judge
from loadtests.plan import LoadPlan
from loadtests.thresholds.language import Threshold, parse_expression

PER_S, PLANNED_S, MOST_S = 50, 10.0, 30.0
MARGIN, FAILED_PERCENT = 1.25, 2.0
"""The policy's: 25 % slower, and failures of the release alone in 2 % of the pairs."""
CHECKS = (*interleaved.SLOWER, interleaved.FAILED)


@dataclass(frozen=True, slots=True)
class Release:
    """By how much it is slower than the baseline, how often either fails, and how much of the time both are slow.

    checks: those whose rates are shown.
    """

    said: str
    checks: tuple[str, ...] = (*interleaved.SLOWER,)
    slower: float = 1.0
    fails: float = 0.0
    baseline_fails: float = 0.0
    both_slow: float = 0.0


FAILS = (interleaved.FAILED,)
RELEASES = (
    Release("equal", CHECKS),
    Release("equal; a fifth of the time both are five times as slow", both_slow=0.2),
    Release("at the margin (25 % and 5 ms slower)", slower=MARGIN),
    Release("twice as slow", slower=2.0),
    Release("both fail in 5 %", FAILS, fails=0.05, baseline_fails=0.05),
    Release("fails in 2 % more, the margin", FAILS, fails=FAILED_PERCENT / 100.0),
    Release("fails in 5 % more", FAILS, fails=0.05),
)


def noted(rng: random.Random, release: Release) -> dict[str, list[tuple[float, bool]]]:
    """What the load notes of all pairs: of each metric when a sample came, and whether it is bad."""
    drive = Drive(LoadPlan("http://a.test", baseline_url="http://b.test"))
    pairs, is_slow = Pairs(drive), False
    for number in range(int(MOST_S * PER_S)):
        if number % PER_S == 0:
            is_slow = rng.random() < release.both_slow
        usual = 20.0 * (5.0 if is_slow else 1.0)
        ours, theirs = (usual * rng.lognormvariate(0.0, 1.0) for _ in range(2))
        ours = ours * release.slower + LEAST_MS * (release.slower > 1.0)
        passed, spared = rng.random() >= release.fails, rng.random() >= release.baseline_fails
        pairs.note(number / PER_S, passed, ours if passed else None, spared, theirs)
    drive.close()
    found = {}
    for name in (*CHECKS, interleaved.SPARED):
        timed = drive.samples.pairs(name)
        found[name] = list(zip(timed[::2], map(bool, timed[1::2]), strict=True))
    return found


def verdicts(rng: random.Random, release: Release) -> dict[str, tuple[str, float]]:
    """pass, fail or unknown of each check, and after how many seconds."""
    seen = noted(rng, release)
    return {name: _verdict(name, seen) for name in release.checks}


def _verdict(name: str, seen: dict[str, list[tuple[float, bool]]]) -> tuple[str, float]:
    times, bad = [at for at, _ in seen[name]], [flag for _, flag in seen[name]]
    is_failed = name == interleaved.FAILED
    load = Load(PER_S, PLANNED_S, MOST_S, FAILED_PERCENT / 100.0 if is_failed else 0.5, 0.0)
    stands = partial(_stands, bad, [flag for _, flag in seen[interleaved.SPARED]]) if is_failed else _always
    return at_looks(load, bad, partial(bisect.bisect_right, times), times.__getitem__, stands)


def _always(_n: int) -> bool:
    return True


def _stands(failed: list[bool], spared: list[bool], n: int) -> bool:
    """Whether that many failures are more than those of the baseline."""
    sinks = [RateSink(sum(some[:n]), n) for some in (failed, spared)]
    threshold = Threshold(parse_expression(f"rate<{FAILED_PERCENT / 100.0}"))
    key = next(key for key, _ in interleaved.thresholds(FAILED_PERCENT) if key.name == interleaved.FAILED)
    one = replace(judge(key, threshold, sinks[0], n / PER_S), verdict=ThresholdOutcome.FAIL)
    return interleaved.against(one, *sinks).verdict is ThresholdOutcome.FAIL


def rows(runs: int, rate: Callable[[int, int], str]) -> list[list[str]]:
    """The release, the check, the rates of the three verdicts, and the mean time to them."""
    found = []
    for release in RELEASES:
        rng = random.Random(f"baseline {release.said}")
        seen = [verdicts(rng, release) for _ in range(runs)]
        for name in release.checks:
            counts = Counter(one[name][0] for one in seen)
            rates = [rate(counts[word], runs) for word in ("pass", "fail", "unknown")]
            mean_s = sum(one[name][1] for one in seen) / runs
            found.append([release.said, f"`{name}`", *rates, f"{mean_s:.0f} s"])
    return found
