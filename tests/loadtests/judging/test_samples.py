"""Samples: exact over processes and reports, selected by tags."""

import itertools
import random

import msgpack  # type: ignore[import-untyped]
import pytest

from loadtests.engine.canaries import lag_ms
from loadtests.engine.conductor import Conductor
from loadtests.engine.samples import Samples
from loadtests.engine.schedule import arrivals
from loadtests.engine.sinks import CounterSink, RateSink, TrendSink
from loadtests.plan import LoadPlan, dump_plan, load_plan
from loadtests.scenario import Executor, Scenario, Stage, steady
from loadtests.thresholds.language import MetricKey, Threshold, ThresholdSet, parse_expression, parse_metric_key
from tests.loadtests.judging.test_abort_on_fail import REPORT


def recorded(rng: random.Random, count: int) -> tuple[Samples, list[float]]:
    """Samples of one process and its durations."""
    samples, durations = Samples(), []
    for _ in range(count):
        status = rng.choice(["200", "503"])
        group = samples.group({"name": rng.choice("ab"), "status": status}, failed=status == "503")
        value = rng.expovariate(0.01)
        group.timings["http_req_duration"].append(value)
        group.sent += 10
        durations.append(value)
        samples.add("agent_success", rng.random() < 0.9)
        samples.add("outbox_lag_ms", value, {"source": "canary"})
        samples.add("iterations", 1)
        samples.add("dlq_items", rng.randrange(9), at=rng.random())
    return samples, durations


def test_reports_of_many_processes_add_up_to_the_last_bit() -> None:
    """Whatever is cut into reports, packed for the wire and merged is exactly what was recorded."""
    rng, master, everything = random.Random(5), Samples(), []
    for _ in range(4):
        samples, durations = recorded(rng, 500)
        everything += durations
        master.merge_report(msgpack.unpackb(msgpack.packb(samples.take_report())))
        assert samples.requests == 0
    trend = master.select(MetricKey("http_req_duration"))
    assert isinstance(trend, TrendSink)
    assert sorted(trend.values) == sorted(everything)
    lag = master.select(parse_metric_key("outbox_lag_ms{source:canary}"))
    assert isinstance(lag, TrendSink)
    assert sorted(lag.values) == sorted(everything)
    assert master.select(MetricKey("http_reqs")) == CounterSink(2000.0, 2000)
    assert master.select(MetricKey("data_sent")) == CounterSink(20000.0, 2000)
    assert master.select(MetricKey("iterations")) == CounterSink(2000.0, 2000)


def test_a_group_goes_on_after_a_report() -> None:
    """The hot path keeps its group over reports; nothing is counted twice and nothing is lost."""
    samples, master = Samples(), Samples()
    group = samples.group({"name": "a", "status": "200"}, failed=False)
    durations = samples.sink("iteration_duration")
    for value in (1.0, 2.0, 3.0):
        group.timings["http_req_duration"].append(value)
        assert isinstance(durations, TrendSink)
        durations.add(value)
        master.merge_report(samples.take_report())
    assert master.requests == 3
    assert master.select(MetricKey("iteration_duration")).samples == 3


def test_tags_select_a_part() -> None:
    """A submetric takes only the requests that carry its tags."""
    samples, _ = recorded(random.Random(1), 300)
    parts = [samples.select(parse_metric_key(f"http_reqs{{name:{n}}}")).samples for n in "ab"]
    assert sum(parts) == 300
    failed = samples.select(parse_metric_key("http_req_failed{status:503}"))
    assert isinstance(failed, RateSink)
    assert failed.trues == failed.total > 0
    assert not samples.select(parse_metric_key("http_reqs{name:nobody}")).samples


def test_arrivals_are_dealt_out_without_a_gap() -> None:
    """All processes together make exactly the arrivals of the rate, each of them once."""
    plan = LoadPlan("http://x", scenarios=(steady("event", 20.0), steady("probe", 30.0)))

    def first_second(index: int, of: int) -> list[tuple[float, int]]:
        return list(itertools.takewhile(lambda one: one[0] < 1.0, arrivals(plan, index, of)))

    assert len(first_second(0, 1)) == 50
    assert sorted(first_second(0, 3) + first_second(1, 3) + first_second(2, 3)) == first_second(0, 1)


def test_a_plan_survives_its_text() -> None:
    """What the master sends is what the worker performs."""
    plan = LoadPlan(
        "http://x", scenarios=(Scenario(Executor.USERS, 1, (Stage(1.0, 2),), labels=(("a", "b"),)),), notes=("a",)
    )
    assert load_plan(dump_plan(plan)) == plan


@pytest.mark.parametrize(
    ("claimed_s", "least_s", "most_s", "expected_ms"),
    [(0.5, 0.4, 0.6, 500), (0.0, 0.4, 0.6, 400), (9.0, 0.4, 0.6, 600), (None, 0.4, 0.6, 600), (0.5, -0.1, 0.6, 500)],
)
def test_a_lag_keeps_to_what_we_saw(claimed_s: float | None, least_s: float, most_s: float, expected_ms: float) -> None:
    """A server that says nothing was late cannot hide a lag that our own questions measured."""
    effect = None if claimed_s is None else f"2024-06-01T00:00:{claimed_s:09.6f}+00:00"
    assert lag_ms("2024-06-01T00:00:00+00:00", effect, least_s, most_s) == pytest.approx(expected_ms)


def conductor(*sources: str, plan: LoadPlan | None = None) -> Conductor:
    thresholds = ThresholdSet({MetricKey("http_req_failed"): tuple(Threshold(parse_expression(s)) for s in sources)})
    return Conductor(plan or LoadPlan("http://x", scenarios=(steady("", 1.0),)), thresholds, {}, has_database=False)


def report(sequence: int, *, final: bool = False) -> dict[str, object]:
    samples = Samples()
    samples.group({"name": "a", "status": "200"}, failed=False).timings["http_req_duration"].append(1.0)
    return {**REPORT, **samples.take_report(), "elapsed_s": 0.0, "sequence": sequence, "final": final}


def test_a_report_that_is_missing_makes_the_run_invalid() -> None:
    """Reports are numbered: a gap means lost samples, and lost samples are no verdict."""
    whole, gap = conductor("rate<0.5"), conductor("rate<0.5")
    for number in (0, 1, 2):
        whole.on_report("w", report(number))
        if number != 1:
            gap.on_report("w", report(number))
    assert whole.invalid_reasons() == ()
    assert "reports missing" in gap.invalid_reasons()[0]


def test_a_worker_that_never_reports_makes_the_run_invalid() -> None:
    """A worker that connected, and sent no load at all, is not left out: half of the rate is no verdict."""
    plan = LoadPlan("http://x", scenarios=(steady("", 1.0),), workers=2)
    one = conductor("rate<0.5", plan=plan)
    one.on_report("w", report(0, final=True))
    one.stopped = one.started + 1.0
    assert "1 of 2 load workers were lost (1 that never reported)" in one.invalid_reasons()[0]
    one.on_report("v", report(0, final=True))
    assert one.invalid_reasons() == ()


def test_a_stuck_oldest_event_fails_the_lag_and_never_saves_it() -> None:
    """Canaries may be fast while an old event starves: the worse of the two counts."""
    thresholds = ThresholdSet({MetricKey("outbox_lag_ms"): (Threshold(parse_expression("avg<2000")),)})
    plan = LoadPlan("http://x", scenarios=(steady("event", 1.0),))
    for canary, oldest, expected in ((10.0, 9000.0, "fail"), (10.0, 0.0, "pass"), (9000.0, 0.0, "fail")):
        one = Conductor(plan, thresholds, {}, has_database=True)
        one.reached_s = 10.0
        for index in range(40):
            one.samples.add("null_request_ms", 1.0)  # the instrument is sound
            one.samples.add("outbox_lag_ms", canary + index * 0.1)
            one.samples.add("outbox_oldest_age_ms", oldest + index * 0.1)
        assert [j.verdict.value for j in one.judgements()] == [expected]


@pytest.mark.parametrize(
    ("key", "judged"),
    [
        ("http_reqs{error_code:1050}", "unknown"),
        ("http_reqs{group:::checkout}", "unknown"),
        ("data_sent{proto:HTTP/1.1}", "unknown"),
        ("iterations{name:GET /}", "unknown"),
        ("events_lost{operation:event}", "unknown"),
        ("expected_refusals{tier:1}", "pass"),
        ("dropped_iterations{scenario:s}", "pass"),
        ("http_reqs{status:500}", "pass"),
        ("http_reqs{scenario:s,tier:gold}", "pass"),
    ],
)
def test_a_tag_that_nothing_carries_makes_no_zero(key: str, judged: str) -> None:
    """A count of none is true only where one could have been counted; else it neither keeps nor breaks a limit."""
    scenario = Scenario(Executor.USERS, 1, (Stage(1.0, 1),), labels=(("scenario", "s"), ("tier", "gold")))
    plan = LoadPlan("http://x", scenarios=(scenario,))
    sources = [Threshold(parse_expression(source)) for source in ("count<1", "count>0")]
    one = Conductor(plan, ThresholdSet({parse_metric_key(key): tuple(sources)}), {}, has_database=True)
    kept, broken = one.judgements()
    assert (kept.verdict, broken.verdict) == (judged, "unknown" if judged == "unknown" else "fail"), kept.message
