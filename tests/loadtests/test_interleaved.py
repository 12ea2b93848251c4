"""The interleaved baseline: seen red on a worse release, green on an equal one, and blind to what slows both."""

import random
from collections.abc import Collection
from pathlib import Path
from typing import Any

from loadtests.engine.drive import Drive
from loadtests.engine.pairs import LEAST_MS, Pairs
from loadtests.engine.sinks import RateSink
from loadtests.judgement import interleaved
from loadtests.judgement.verdict import ThresholdOutcome, judge
from loadtests.plan import LoadPlan
from loadtests.scenario import steady
from loadtests.thresholds.language import MetricKey
from tests.loadtests.fake_target import Behaviour, target
from tests.loadtests.load_process import at_once, finish, messages, start, verdicts

P50, P95 = ("load/baseline_slower_p50/rate", "load/baseline_slower_p95/rate")
FAILED = "load/baseline_failed/rate"
LOOSE = "{http_req_failed: ['rate<=1']}"


def varying(factor: float = 1.0, seed: int = 1) -> Behaviour:
    """Answers that take 20 ms in the mean, some of them much longer."""
    rng = random.Random(seed)
    return Behaviour(delay_s=lambda _n: factor * rng.expovariate(1 / 0.02))


NO_HARM: dict[str, Collection[str]] = dict.fromkeys((P50, P95, FAILED), frozenset({"pass", "unknown"}))
RELEASES: dict[str, tuple[Behaviour, Behaviour, dict[str, Collection[str]]]] = {
    "equal": (varying(), varying(seed=2), NO_HARM),
    "much slower": (varying(5.0), varying(seed=2), {**NO_HARM, P50: {"fail"}, P95: {"fail", "unknown"}}),
    "both stall": (Behaviour(stall_at_s=0.8, stall_s=1.0), Behaviour(stall_at_s=0.8, stall_s=1.0), NO_HARM),
    "baseline gone": (Behaviour(), Behaviour(status=lambda _n: 404), {P50: {"unknown"}, FAILED: {"unknown"}}),
}


def test_the_difference_is_judged_and_not_the_machine(tmp_path: Path) -> None:
    """Only a difference is found, not what both share; without a baseline it is unknown."""

    def run(kind: str, folder: Path) -> dict[str, Any]:
        new, old, _ = RELEASES[kind]
        with target(new) as url, target(old) as before:
            plan = LoadPlan(
                url, "t.js", LOOSE, baseline_url=before, url_only=True, rate_per_s=200.0, duration_s=2.0, run_on=False
            )
            result = finish(start(plan, folder, idle=kind == "much slower"), folder)
        assert result["facts"]["requests"] == new.count, "calls of the baseline are no samples of the release"
        assert abs(new.count - old.count) <= 2
        return result

    for kind, result in at_once(RELEASES, run, tmp_path, most=3):
        found = verdicts(result)
        for check, allowed in RELEASES[kind][2].items():
            assert found[check] in allowed, (kind, check, messages(result))


def test_events_are_sent_to_a_baseline_that_shares_the_database_alone(tmp_path: Path) -> None:
    """A baseline that does not know the run's events gets none: nobody would remove them. One that does is compared."""

    def run(kind: str, folder: Path) -> tuple[dict[str, Any], Behaviour]:
        new = Behaviour()
        old = new if kind == "shared" else Behaviour()
        with target(new) as url, target(old) as before:
            plan = LoadPlan(
                url, "t.js", LOOSE, baseline_url=before, duration_s=1.0, run_on=False,
                scenarios=(steady("event", 40.0),), test_company_id="00000000-0000-4000-8000-000000000001",
            )  # fmt: skip
            return finish(start(plan, folder), folder), old

    for kind, (result, old) in at_once(("shared", "apart"), run, tmp_path):
        failed = next(one for one in result["judgements"] if one["check"] == FAILED)
        assert (failed["samples"] > 40) is (kind == "shared"), failed
        assert len(old.events) == 0 if kind == "apart" else len(old.events) > 60


def test_a_baseline_that_is_the_release_itself_is_unknown(tmp_path: Path) -> None:
    """The same build at another address is no comparison."""

    def run(kind: str, folder: Path) -> str:
        new, old = Behaviour(), Behaviour(release="r0" if kind == "before" else "r1")
        with target(new) as url, target(old) as before:
            probes = (steady("probe", 60.0),)
            plan = LoadPlan(url, "t.js", LOOSE, baseline_url=before, duration_s=2.0, run_on=False, scenarios=probes)
            return messages(finish(start(plan, folder), folder))

    found = dict(at_once(("itself", "before"), run, tmp_path))
    assert "BASELINE_URL answers /version as BASE_URL does" in found["itself"]
    assert "BASELINE_URL" not in found["before"]


def pairs(ratio: float, seed: int, n: int, percent: float) -> dict[str, ThresholdOutcome]:
    """Verdicts after n pairs whose latencies have a heavy tail, the release's slower by a factor."""
    rng = random.Random(seed)
    drive = Drive(LoadPlan("http://a.test", baseline_url="http://b.test", slower_percent=percent))
    both = Pairs(drive)
    for number in range(n):
        both.note(
            number * 0.01, True, LEAST_MS + 100 * ratio * rng.lognormvariate(0, 1), True, 100 * rng.lognormvariate(0, 1)
        )
    drive.close()
    found = {}
    for key, threshold in interleaved.thresholds(2.0):
        sink = drive.samples.select(key)
        assert isinstance(sink, RateSink)
        found[key.name] = judge(key, threshold, sink, n * 0.01).verdict
    return found


def test_the_error_rates_at_the_margin_are_kept() -> None:
    """Exactly as slow as the margin allows: proved in neither direction more often than 5 % of the runs."""
    rounds = 200
    passed = failed = 0
    for seed in range(rounds):
        found = pairs(1.25, seed, 400, 25.0)["baseline_slower_p50"]
        passed += found is ThresholdOutcome.PASS
        failed += found is ThresholdOutcome.FAIL
    assert passed <= 0.09 * rounds
    assert failed <= 0.09 * rounds


def failures(ours: float, theirs: float, seed: int = 1) -> ThresholdOutcome:
    """The verdict on failures after 600 pairs of which the two fail such shares, each for itself."""
    rng, n = random.Random(seed), 600
    both = [(rng.random() >= ours, rng.random() >= theirs) for _ in range(n)]
    failed, spared = (
        RateSink(sum(one and not other for other, one in some), n) for some in (both, [p[::-1] for p in both])
    )
    ((key, threshold),) = [one for one in interleaved.thresholds(2.0) if one[0].name == interleaved.FAILED]
    return interleaved.against(judge(key, threshold, failed, 10.0), failed, spared).verdict


def test_failures_count_against_those_of_the_baseline() -> None:
    """A tenth more is found, none is passed, and what fails as often before the release is no finding."""
    assert failures(0.0, 0.0) is ThresholdOutcome.PASS
    assert failures(0.1, 0.0) is ThresholdOutcome.FAIL
    assert failures(0.1, 0.1) is ThresholdOutcome.UNKNOWN
    assert failures(0.0, 0.1) is ThresholdOutcome.PASS


def test_no_call_to_the_baseline_is_no_comparison() -> None:
    """Without calls, or if most of them failed, it is unknown."""
    assert "no call was made" in interleaved.lacks(RateSink(), RateSink())
    assert "4 of 10 calls" in interleaved.lacks(RateSink(4, 10), RateSink(1, 9))
    assert interleaved.lacks(RateSink(9, 10), RateSink()) == ""
    assert MetricKey(interleaved.FAILED) in dict(interleaved.thresholds(2.0))
