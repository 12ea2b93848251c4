"""Bounds and verdicts: what a point estimate would wrongly pass or fail, and what ours says instead."""

import dataclasses
import math
import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gates.decision import intervals
from loadtests.engine.sinks import CounterSink, GaugeSink, RateSink, Sink, TrendSink
from loadtests.judgement.validity import RunFacts, crowded, doubts, invalid_reasons, weigh
from loadtests.judgement.verdict import ThresholdOutcome, ThresholdResult, Why, judge
from loadtests.thresholds.expectations import is_limited
from loadtests.thresholds.language import MetricKey, Threshold, k6_verdict, parse_expression

GOOD = RunFacts(100, 100, 0, 1, 1, 1, (), {"local": 10.0}, 1.0, 10.0)


def said(source: str, sink: Sink, **more: str) -> ThresholdResult:
    return judge(MetricKey("mm"), Threshold(parse_expression(source)), sink, 10.0, **more)  # type: ignore[arg-type]


def trend(*values: float) -> TrendSink:
    return TrendSink(array("d", values))


def test_the_smallest_sample_counts_are_those_of_the_binomial_distribution() -> None:
    """149 samples for a rate of 2 % without a failure."""
    assert intervals.rate_minimum(0.02, 0.95, upper=True) == 149
    assert intervals.rate_minimum(0.98, 0.95, upper=False) == 149


@pytest.mark.parametrize(
    ("trues", "total", "low", "high"),
    [(0, 10, 0.0, 0.2589), (1, 10, 0.00512, 0.3942), (5, 10, 0.2224, 0.7776), (2, 100, 0.0036, 0.0616)],
)  # fmt: skip
def test_rate_bounds_are_the_published_ones(trues: int, total: int, low: float, high: float) -> None:
    """One-sided 95 % Clopper-Pearson bounds, as in tables of the 90 % two-sided interval."""
    found = intervals.rate_bounds(trues, total, 0.95)
    assert found[0] == pytest.approx(low, abs=6e-5)
    assert found[1] == pytest.approx(high, abs=6e-5)


def test_binomial_and_student_agree_with_exact_sums_and_tables() -> None:
    """The two distributions behind all bounds."""
    for n, k, p in ((10, 3, 0.2), (59, 58, 0.95), (200, 3, 0.02)):
        exact = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))
        assert intervals.binomial_cdf(k, n, p) == pytest.approx(exact, rel=1e-10)
    assert intervals.student_quantile(0.95, 29) == pytest.approx(1.6991, abs=1e-4)
    assert intervals.student_quantile(0.975, 10) == pytest.approx(2.2281, abs=1e-4)


def test_bounds_hold_the_truth_as_often_as_they_say() -> None:
    """Over 2,000 drawn samples the bound on either side misses the truth in at most about 5 %."""
    rng = random.Random(7)
    misses = {"rate": 0, "p95": 0, "mean": 0}
    rounds = 2000
    for _ in range(rounds):
        hits = sum(rng.random() < 0.1 for _ in range(80))
        misses["rate"] += intervals.rate_bounds(hits, 80, 0.95)[1] < 0.1
        values = [rng.expovariate(1.0) for _ in range(80)]
        misses["p95"] += intervals.percentile_bounds(sorted(values), 95.0, 0.95)[1] < -math.log(0.05)
        normal = [rng.gauss(5, 2) for _ in range(40)]
        misses["mean"] += intervals.mean_bounds(normal, sum(normal) / 40, 0.95)[1] < 5
    for name, count in misses.items():
        assert count / rounds < 0.065, name


def test_a_percentile_has_no_upper_bound_below_its_sample_count() -> None:
    """58 samples say nothing about the 95th percentile from above; 59 say that the largest bounds it."""
    assert intervals.percentile_bounds(range(1, 59), 95.0, 0.95)[1] == math.inf
    assert intervals.percentile_bounds(range(1, 60), 95.0, 0.95) == (53, 59)


@given(st.integers(0, 300), st.integers(1, 300), st.floats(0.01, 0.99))
def test_a_rate_verdict_is_monotone_in_failures(failures: int, total: int, limit: float) -> None:
    """One more failure never makes a verdict better."""
    order = [ThresholdOutcome.PASS, ThresholdOutcome.UNKNOWN, ThresholdOutcome.FAIL]
    failures = min(failures, total - 1)
    less = said(f"rate<{limit}", RateSink(failures, total)).verdict
    more = said(f"rate<{limit}", RateSink(failures + 1, total)).verdict
    assert order.index(more) >= order.index(less)


def test_errors_above_the_limit_that_pass_by_luck_are_unknown() -> None:
    """1 failure in 59 (1.7 %) is a pass for k6 though the true rate may well be 3 %; here it decides nothing."""
    lucky = RateSink(1, 59)
    assert k6_verdict(lucky, parse_expression("rate<0.02"), 1)
    assert said("rate<0.02", lucky).verdict is ThresholdOutcome.UNKNOWN


def test_an_interval_decides_only_when_it_is_clear_of_the_limit() -> None:
    """Inside: pass; outside: fail; across: unknown, with the samples that would decide it."""
    assert said("rate<0.02", RateSink(0, 160)).verdict is ThresholdOutcome.PASS
    assert said("rate<0.02", RateSink(0, 159)).why is Why.TOO_FEW
    assert said("rate<0.02", RateSink(30, 500)).verdict is ThresholdOutcome.FAIL
    across = said("rate<0.02", RateSink(8, 500))
    assert (across.verdict, across.why) == (ThresholdOutcome.UNKNOWN, Why.UNDECIDED)
    assert across.needed > 500


def test_a_proved_failure_needs_fewer_samples_than_a_pass() -> None:
    """0 of 66 checks that passed are a failure, though a pass needs 160; 29 of nothing decide nothing."""
    assert said("rate>0.98", RateSink(0, 66)).verdict is ThresholdOutcome.FAIL
    assert said("rate<0.02", RateSink(30, 30)).verdict is ThresholdOutcome.FAIL
    assert said("rate<0.02", RateSink(29, 29)).why is Why.TOO_FEW


def test_a_p95_just_under_the_limit_is_not_passed_on_its_estimate() -> None:
    """An estimate of 2,480 ms under a limit of 2,500 passes in k6; its upper bound is over the limit."""
    values = [20.0 * n for n in range(131)]
    sink = trend(*values)
    assert k6_verdict(sink, parse_expression("p(95)<2500"), 1)
    found = said("p(95)<2500", sink)
    assert found.verdict is ThresholdOutcome.UNKNOWN
    assert found.high is not None
    assert found.high >= 2500


def test_nothing_observed_is_unknown_where_k6_passes() -> None:
    """Rates, trends and gauges without samples; a counter's zero is real."""
    for source, sink in (("rate>0.98", RateSink()), ("p(95)<1", TrendSink()), ("value<1", GaugeSink())):
        found = said(source, sink)
        assert found.k6_passes
        assert (found.verdict, found.why) == (ThresholdOutcome.UNKNOWN, Why.NO_DATA)
    assert said("count<1", CounterSink()).verdict is ThresholdOutcome.PASS


def test_a_metric_that_could_not_be_measured_is_unknown_even_for_a_counter() -> None:
    """A counter that nobody counted has no zero."""
    found = said("count<10", CounterSink(), absent="no DATABASE_URL was given")
    assert (found.verdict, found.why) == (ThresholdOutcome.UNKNOWN, Why.NO_DATA)
    assert said("count<10", CounterSink(), absent="switched off (TEST_DLQ=false)").why is Why.SWITCHED_OFF


def test_limits_at_the_edge_and_equalities_are_judged_on_the_run_itself() -> None:
    """No interval is ever inside `rate<=0` or `rate==1`: these are statements about this run."""
    assert said("rate==1", RateSink(40, 40)).verdict is ThresholdOutcome.PASS
    assert said("rate<=0", RateSink(1, 40)).verdict is ThresholdOutcome.FAIL
    assert said("rate==1", RateSink(3, 3)).verdict is ThresholdOutcome.UNKNOWN
    assert said("max<10", trend(*range(9), *range(9), *range(9), *range(9))).verdict is ThresholdOutcome.PASS


def test_a_nan_limit_can_decide_nothing() -> None:
    """Comparisons with NaN are false whatever was seen: unknown, never a fail of the target."""
    assert said("avg<NaN", trend(*range(50))).why is Why.UNDECIDABLE


def test_the_margin_is_that_of_the_worse_end() -> None:
    """Relative to the limit, positive inside."""
    found = said("p(95)<100", trend(*([50.0] * 63)))
    assert (found.observed, found.high, found.margin) == (50.0, 50.0, 0.5)
    assert said("rate>0.5", RateSink(60, 60)).margin == pytest.approx((0.04 ** (1 / 60) - 0.5) / 0.5)


def test_an_invalid_run_takes_every_verdict_away() -> None:
    """Where nothing was measured passes and failures alike become unknown, with the reason in front."""
    judged = [said("rate<0.02", RateSink(0, 200)), said("rate<0.02", RateSink(100, 200))]
    assert {j.verdict for j in judged} == {ThresholdOutcome.PASS, ThresholdOutcome.FAIL}
    found = weigh(judged, dataclasses.replace(GOOD, workers_lost=("w1",)))
    assert all(j.verdict is ThresholdOutcome.UNKNOWN and "were lost (w1)" in j.message for j in found)
    assert weigh(judged, GOOD) == judged


REFUSED: dict[str, tuple[RunFacts, bool]] = {
    "a limiter before the service": (dataclasses.replace(GOOD, requests=500, failed=200, limited=190), True),
    "errors, and a few limited ones": (dataclasses.replace(GOOD, requests=500, failed=200, limited=20), False),
    "an operator's switch": (dataclasses.replace(GOOD, switched="outbox.enabled went from 10 % to 0 %"), True),
    "nothing of the kind": (GOOD, False),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_somebody_else_refuses_is_no_failure_of_the_service(kind: str) -> None:
    """Rates of answers are unknown then, and nothing passes; a loss is one all the same."""
    facts, is_excused = REFUSED[kind]
    judged = [said("rate<0.02", RateSink(200, 500)), said("count<1", CounterSink(1, 1))]
    judged = [dataclasses.replace(j, metric=m) for j, m in zip(judged, ("http_req_failed", "events_lost"), strict=True)]
    assert [one.verdict is ThresholdOutcome.FAIL for one in weigh(judged, facts)] == [not is_excused, True]


@pytest.mark.parametrize(
    ("status", "body", "limited"),
    [
        (429, b"<h1>Too many</h1>", True),
        (429, b'{"code": "rate_limited"}', False),
        (503, b"", False),
        (403, b"<h1>No</h1>", True),
        (403, b"{}", False),
        (403, b"", False),
    ],
)
def test_a_limiter_has_not_the_code_of_the_contract(status: int, body: bytes, limited: bool) -> None:
    """What the service itself refuses says why."""
    assert is_limited(status, body) is limited


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"silent_s": 7.0}, "no answer came in the last 7.0 s"),
        ({"dropped_iterations": 3}, "3 arrivals or iterations were dropped"),
        ({"cpu_percent": {"local": 90.0}}, "90 % of a core"),
        ({"lateness_ms": 150.0}, "150 ms late"),
    ],
)
def test_a_run_in_doubt_passes_nothing_and_excuses_no_failure(change: dict[str, object], words: str) -> None:
    """Each reason alone takes the passes away; what failed has failed."""
    judged = [said("rate<0.02", RateSink(0, 200)), said("rate<0.02", RateSink(100, 200))]
    passed, failed = weigh(judged, dataclasses.replace(GOOD, **change))  # type: ignore[arg-type]
    assert (passed.verdict, failed) == (ThresholdOutcome.UNKNOWN, judged[1])
    assert words in passed.message


TIMED_OUT = {
    "lateness_ms": 90.0,
    "null_ms": {"loop_lateness_p95": 155.0},
    "requests": 100,
    "answers": 84,
    "failed": 16,
    "errors": ("timeout",),
}
CROWDED = {"shares_machine": True, "lateness_ms": 150.0, "pressure": {"local": {"waiting_percent": 62.0}}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"requests": 0, "answers": 0}, "not one request"),
        ({"answers": 0}, "not one answer"),
        ({"workers_lost": ("w1",)}, "were lost"),
        ({"users_spawned": 0}, "0 of 1 users"),
        (CROWDED, "this machine, which the target shares, was too busy"),
        ({**CROWDED, **TIMED_OUT}, "ran 155 ms late"),
    ],
)
def test_a_run_that_measured_nothing_is_invalid(change: dict[str, object], words: str) -> None:
    """Each reason alone is enough, and is said."""
    assert invalid_reasons(GOOD) == doubts(GOOD) == ()
    (reason,) = invalid_reasons(dataclasses.replace(GOOD, **change))  # type: ignore[arg-type]
    assert words in reason


@pytest.mark.parametrize(
    "other",
    [
        {"shares_machine": False},
        {"lateness_ms": 99.0},
        {"pressure": {}},
        {**TIMED_OUT, "failed": 17},
        {**TIMED_OUT, "errors": ("ConnectionResetError", "timeout")},
    ],
)
def test_a_failure_far_away_or_on_an_idle_machine_counts(other: dict[str, object]) -> None:
    """Only where gate and target share a machine that had no time for either are errors nobody's."""
    assert not invalid_reasons(dataclasses.replace(GOOD, **{**CROWDED, **other}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("late_ms", "other", "outcome"),
    [
        (41.0, {}, ThresholdOutcome.UNKNOWN),
        (40.0, {}, ThresholdOutcome.FAIL),
        (41.0, {"shares_machine": False}, ThresholdOutcome.FAIL),
        (41.0, {"pressure": {"local": {"waiting_percent": 25.0}}}, ThresholdOutcome.FAIL),
    ],
)
def test_a_time_over_its_limit_is_nobodys_on_a_crowded_machine(
    late_ms: float, other: dict[str, object], outcome: ThresholdOutcome
) -> None:
    """There the service itself lacks time. Passes stand, and so do failures that a lack of time cannot explain."""
    times = ("http_req_duration", "outbox_lag_ms")
    failed = [dataclasses.replace(said("p(95)<100", trend(*([500.0] * 200))), metric=m) for m in times]
    passed, wrong = said("rate<0.02", RateSink(0, 200)), said("rate<0.02", RateSink(100, 200))
    facts = dataclasses.replace(GOOD, **{**CROWDED, "lateness_ms": late_ms, **other})  # type: ignore[arg-type]
    *found, first, last = weigh([*failed, passed, wrong], facts)
    assert bool(crowded(facts)) == (outcome is ThresholdOutcome.UNKNOWN)
    assert ([one.verdict for one in found], first, last) == ([outcome] * 2, passed, wrong)
    assert all(
        ("the target shares, was too busy" in f.message) == (f.verdict is not ThresholdOutcome.FAIL) for f in found
    )


@pytest.mark.parametrize(
    ("other", "outcome"),
    [
        ({}, ThresholdOutcome.UNKNOWN),
        ({"errors": ("ConnectionResetError", "timeout")}, ThresholdOutcome.FAIL),
        ({"failed": 17}, ThresholdOutcome.FAIL),
        ({"shares_machine": False}, ThresholdOutcome.FAIL),
    ],
)
def test_an_answer_too_late_is_a_time_over_its_limit(other: dict[str, object], outcome: ThresholdOutcome) -> None:
    """On a crowded machine time-outs are nobody's, like all times; one failure of another kind, and all count."""
    late = {**CROWDED, **TIMED_OUT, "lateness_ms": 59.0, "null_ms": {"loop_lateness_p95": 23.0}, **other}
    failed = dataclasses.replace(said("rate<0.02", RateSink(100, 200)), metric="http_req_failed")
    (found,) = weigh([failed], dataclasses.replace(GOOD, **late))  # type: ignore[arg-type]
    assert found.verdict is outcome


EXTREME = [0.0, 5e-324, 1e-310, 1e-300, 1e-13, 1.0, 26.0, 1e100, 1e154, 1e160, 1.5e308, -1e200, math.inf]


@given(
    st.sampled_from(["avg", "med", "p(95)", "p(99.9)", "max", "min", "count", "rate", "value"]),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    st.one_of(st.sampled_from(EXTREME), st.floats(allow_nan=False)),
    st.lists(st.one_of(st.sampled_from(EXTREME[:-1]), st.floats(0, 1e4)), min_size=0, max_size=6),
    st.sampled_from([1, 10, 40, 200]),
)
def test_no_limit_is_a_pass_where_k6_fails(method: str, op: str, limit: float, values: list[float], times: int) -> None:
    """Denormal limits, sums that overflow: every verdict comes without an error, and no pass against k6's failure."""
    sinks: dict[str, Sink] = {"count": CounterSink(), "rate": RateSink(), "value": GaugeSink()}
    sink = sinks.get(method, TrendSink())
    for value in values * times:
        sink.add(value)
    found = said(f"{method}{op}{limit!r}", sink)
    assert found.verdict is not ThresholdOutcome.PASS or found.k6_passes, found.message
    assert found.verdict is not ThresholdOutcome.FAIL or not found.k6_passes, found.message
