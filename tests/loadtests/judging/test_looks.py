"""Stalls and repeated looks: what a threshold is judged by while a run goes on, and how often that is wrong."""

import math
import random
from array import array
from collections.abc import Sequence

import pytest

from gates.decision.dependence import Dependence, dependence
from loadtests.engine.samples import RequestGroup, Samples, timed_of
from loadtests.engine.sinks import RateSink, Sink, TrendSink
from loadtests.engine.tally import Tally
from loadtests.judgement.looks import Looks
from loadtests.judgement.verdict import ThresholdOutcome, ThresholdResult, Why, judge
from loadtests.thresholds.language import MetricKey, Threshold, ThresholdSet, parse_expression

DURATION, FAILED = MetricKey("http_req_duration"), MetricKey("http_req_failed")
PLANNED_S = 10.0


def group(starts: Sequence[float], durations: Sequence[float], *, failed: bool = False) -> RequestGroup:
    one = RequestGroup((("name", "a"), ("status", "500" if failed else "200")), failed)
    one.starts.extend(starts)
    one.timings["http_req_duration"].extend(durations)
    return one


def tally_of(*parts: RequestGroup, **sources: str) -> Tally:
    """Threshold counts over requests that came in one report each."""
    keys = {MetricKey(name): (Threshold(parse_expression(source)),) for name, source in sources.items()}
    tally = Tally(ThresholdSet(keys), PLANNED_S)
    for part in parts:
        tally.take([part], [], 0.0)
    return tally


def said(key: MetricKey, source: str, sink: Sink, looks: Looks) -> ThresholdResult:
    return judge(key, Threshold(parse_expression(source)), sink, PLANNED_S, looks=looks)


def looks_of(tally: Tally, key: MetricKey, source: str, *, ran_on: bool = False, reached: bool = True) -> Looks:
    at = PLANNED_S if reached else None
    return tally.looks(key, parse_expression(source), reached_s=at, ran_on=ran_on, variance=1.0, most=1e5)


def stalled(stall_s: float, *starts_s: float, until_s: float = PLANNED_S) -> tuple[list[float], list[float]]:
    """Fifty requests a second, which take ten seconds during a stall."""
    times = [(number + 0.5) / 50.0 for number in range(int(until_s * 50))]
    return times, [10_000.0 if any(s <= t < s + stall_s for s in starts_s) else 20.0 for t in times]


def test_one_stall_of_a_healthy_service_is_no_failure() -> None:
    """One stall of 1.5 s in 10 s is undecided, though a p95 allows a third of that."""
    times, values = stalled(1.5, 4.0)
    source = "p(95)<2500"
    sink = TrendSink(array("d", values))
    assert said(DURATION, source, sink, Looks()).verdict is ThresholdOutcome.FAIL, "independent samples would prove it"
    tally = tally_of(group(times, values), http_req_duration=source)
    found = said(DURATION, source, sink, looks_of(tally, DURATION, source))
    assert (found.verdict, found.why) == (ThresholdOutcome.UNKNOWN, Why.UNDECIDED)
    assert "500 samples (worth 7 independent ones: 1 stall of 1.5 s)" in found.message
    assert found.stalls == pytest.approx((1.5,))


def test_stalls_again_and_again_are_a_failure() -> None:
    """Eight stalls of half a second are no chance."""
    times, values = stalled(0.5, 0.5, 1.6, 3.1, 4.2, 5.3, 6.8, 7.9, 9.1)
    source = "p(95)<2500"
    tally = tally_of(group(times, values), http_req_duration=source)
    found = said(DURATION, source, TrendSink(array("d", values)), looks_of(tally, DURATION, source))
    assert found.verdict is ThresholdOutcome.FAIL, found.message


def test_a_target_that_only_fails_is_broken() -> None:
    """Without one good answer no correction for dependence is needed."""
    times = [number / 50.0 for number in range(500)]
    tally = tally_of(group(times, [5.0] * 500, failed=True), http_req_failed="rate<0.02")
    found = said(FAILED, "rate<0.02", RateSink(500, 500), looks_of(tally, FAILED, "rate<0.02"))
    assert found.verdict is ThresholdOutcome.FAIL
    early = looks_of(tally, FAILED, "rate<0.02", reached=False)
    assert said(FAILED, "rate<0.02", RateSink(160, 160), early).verdict is ThresholdOutcome.FAIL


def test_a_pass_says_which_stalls_it_excludes() -> None:
    """Ten seconds without a stall exclude stalls over 0.17 s in 5 % of the time."""
    times, values = stalled(0.0)
    source = "p(95)<2500"
    tally = tally_of(group(times, values), http_req_duration=source)
    found = said(DURATION, source, TrendSink(array("d", values)), looks_of(tally, DURATION, source))
    assert found.verdict is ThresholdOutcome.PASS
    assert found.excluded_s == pytest.approx(10.0 * 0.05 / math.log(20), rel=0.05)


def test_before_the_planned_time_only_the_test_for_any_time_counts() -> None:
    """160 good samples are enough at the planned look, and not at one that may be repeated."""
    sink, early = RateSink(0, 200), Looks(reached=False)
    assert said(FAILED, "rate<0.02", sink, Looks()).verdict is ThresholdOutcome.PASS
    assert said(FAILED, "rate<0.02", sink, early).verdict is ThresholdOutcome.UNKNOWN
    assert said(FAILED, "rate<0.02", RateSink(0, 300), early).verdict is ThresholdOutcome.PASS


def test_a_run_that_went_on_keeps_what_its_planned_time_proved() -> None:
    """The test for one look is about the planned time alone; k6's number over all samples must hold, too."""
    parts = [group([t / 20.0 for t in range(200)], [5.0] * 200)]
    tally = tally_of(*parts, group([10.5], [5.0], failed=True), http_req_failed="rate<0.02")
    looks = looks_of(tally, FAILED, "rate<0.02", ran_on=True)
    assert looks.first == (0, 200)
    found = said(FAILED, "rate<0.02", RateSink(1, 201), looks)
    assert found.verdict is ThresholdOutcome.PASS
    assert found.high is not None
    assert found.high < 0.02
    assert said(FAILED, "rate<0.02", RateSink(20, 220), looks).verdict is ThresholdOutcome.UNKNOWN


def test_the_mean_of_dependent_samples_is_less_sure() -> None:
    """A mean of 1.7 s under a limit of 2 s, of lags that rise and fall together, and of such that jump about."""
    rng, source = random.Random(6), "avg<2000"
    times = [number / 80.0 for number in range(800)]
    jumping = [rng.choice((200.0, 3200.0)) for _ in times]
    waves = [200.0 if (number // 200) % 2 else 3200.0 for number in range(800)]
    verdicts = []
    for values in (jumping, waves):
        sink = TrendSink(array("d", values))
        tally = tally_of(group(times, values), http_req_duration=source)
        looks = tally.looks(
            DURATION,
            parse_expression(source),
            reached_s=10.0,
            ran_on=False,
            variance=sink.variance(sink.mean()),
            most=6e4,
        )
        verdicts.append(said(DURATION, source, sink, looks).verdict)
    assert verdicts == [ThresholdOutcome.PASS, ThresholdOutcome.UNKNOWN]


def test_bets_decide_a_mean_at_any_time() -> None:
    """Far under the limit, before the planned time is over; the greatest value that could come is known."""
    source, times = "avg<2000", [number / 50.0 for number in range(500)]
    tally = tally_of(group(times, [50.0] * 500), http_req_duration=source)
    looks = tally.looks(DURATION, parse_expression(source), reached_s=None, ran_on=False, variance=0.0, most=36_000.0)
    sink = TrendSink(array("d", [50.0] * 500))
    assert said(DURATION, source, sink, looks).verdict is ThresholdOutcome.PASS
    slow = TrendSink(array("d", [50.0] * 100))
    few = tally_of(group(times[:100], [50.0] * 100), http_req_duration=source)
    looks = few.looks(DURATION, parse_expression(source), reached_s=None, ran_on=False, variance=0.0, most=36_000.0)
    assert said(DURATION, source, slow, looks).verdict is ThresholdOutcome.UNKNOWN


def test_what_a_worker_recorded_is_counted_by_the_time_it_began() -> None:
    """Requests, canaries and their success cross the border of the process with their times, once each."""
    thresholds = {
        DURATION: (Threshold(parse_expression("p(95)<100")),),
        MetricKey("agent_success"): (Threshold(parse_expression("rate>0.98")),),
        MetricKey("checks"): (Threshold(parse_expression("rate>0.98")),),
    }
    worker, tally = Samples(), Tally(ThresholdSet(thresholds), PLANNED_S)
    for second in (1.0, 2.0):
        one = worker.group({"name": "a", "status": "200"}, failed=False, check="c", passed=second < 2)
        one.starts.append(second)
        one.timings["http_req_duration"].append(500.0 * second)
        worker.add_at("agent_success", second - 1.0, second, {"source": "canary"})
        report, master = worker.take_report(), Samples()
        tally.take(master.merge_report(report), timed_of(report), 0.5)
    for key, ((e,),) in ((k, [[t.expression for t in some]]) for k, some in thresholds.items()):
        looks = tally.looks(key, e, reached_s=2.0, ran_on=True, variance=0.0, most=0.0)
        bad = {"http_req_duration": 1, "agent_success": 1, "checks": 0}[key.name]
        assert looks.first == (bad, 1), key.name
        assert looks.seconds == pytest.approx(0.1)


def test_rates_are_kept_under_stalls() -> None:
    """Stalls of 1 s in 5 % of 120 s: at the limit neither verdict comes in more than 5 % of the runs, and what chance
    adds; independent samples would have decided two in three.
    """
    rng, runs, source = random.Random(1), 120, "p(95)<2500"
    found: dict[str, list[ThresholdOutcome]] = {"ours": [], "independent": []}
    for _ in range(runs):
        starts, at = [], rng.expovariate(1 / 19)
        while at < 120:
            starts.append(at)
            at += 1 + rng.expovariate(1 / 19)
        _, values = stalled(1.0, *starts, until_s=120.0)
        slots = [(sum(v > 2500 for v in values[i : i + 5]), 5) for i in range(0, len(values), 5)]
        sink = TrendSink(array("d", values))
        for name, seen in (("ours", dependence(slots, 0.1)), ("independent", Dependence())):
            found[name].append(said(DURATION, source, sink, Looks(seen)).verdict)
    for verdict in (ThresholdOutcome.PASS, ThresholdOutcome.FAIL):
        assert found["ours"].count(verdict) <= 0.09 * runs
        assert found["independent"].count(verdict) > 0.25 * runs
