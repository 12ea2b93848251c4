"""The histogram above the cap of exact values: near the truth, merged with exact parts, and never hidden."""

import json
import math
import random
from array import array
from pathlib import Path

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gates.stages.load_process import evidence_of
from loadtests import report
from loadtests.engine.conductor import Conductor
from loadtests.engine.hdr import RECORDER, RELATIVE_ERROR, Histogram, Ordered, unpack, widened
from loadtests.engine.samples import Samples
from loadtests.engine.sinks import TrendSink
from loadtests.judgement import baseline
from loadtests.judgement.starvation import NULL
from loadtests.judgement.verdict import ThresholdOutcome, ThresholdResult, judge
from loadtests.plan import LoadPlan
from loadtests.scenario import steady
from loadtests.thresholds.language import MetricKey, Threshold, ThresholdSet, parse_expression
from tests.loadtests.judging.test_abort_on_fail import REPORT

DURATION = MetricKey("http_req_duration")


def drawn(count: int, seed: int = 3) -> list[float]:
    """Latencies from microseconds to minutes, in ms."""
    rng = random.Random(seed)
    return [rng.lognormvariate(3.0, 2.5) for _ in range(count)]


def folded(values: list[float]) -> TrendSink:
    sink = TrendSink(array("d", values))
    sink.fold()
    return sink


def part(values: list[float]) -> Samples:
    """What one worker recorded."""
    samples = Samples()
    for index, value in enumerate(values):
        status = "503" if index % 7 == 0 else "200"
        group = samples.group({"name": "a", "method": "GET", "status": status}, failed=status == "503")
        group.timings["http_req_duration"].append(value)
        samples.add("outbox_lag_ms", value, {"source": "canary"})
    return samples


def select(samples: Samples, key: MetricKey = DURATION) -> TrendSink:
    sink = samples.select(key)
    assert isinstance(sink, TrendSink)
    return sink


def said(source: str, sink: TrendSink) -> ThresholdResult:
    return judge(DURATION, Threshold(parse_expression(source)), sink, 10.0)


@given(st.lists(st.floats(-1e9, 1e9).filter(lambda v: v == 0 or abs(v) > 1e-300), min_size=1, max_size=80))
def test_every_rank_is_within_a_thousandth_of_the_value(values: list[float]) -> None:
    """Positive, negative and zero; the order is kept, and least, greatest and sum are exact."""
    histogram = Histogram()
    histogram.fold(array("d", values))
    ordered = Ordered(histogram)
    assert len(ordered) == len(values)
    for found, exact in zip(ordered, sorted(values), strict=True):
        assert found == pytest.approx(exact, rel=RELATIVE_ERROR / 2)
    assert (ordered[0], ordered[-1]) == (min(values), max(values))
    assert histogram.total == math.fsum(values)


def test_a_histogram_survives_its_packing_and_merges_without_loss() -> None:
    """Cut anywhere, packed as JSON and merged, it is the histogram of the whole."""
    values, whole, merged = drawn(3000), Histogram(), Histogram()
    whole.fold(array("d", values))
    for cut in (slice(0, 700), slice(700, 701), slice(701, None)):
        one = Histogram()
        one.fold(array("d", values[cut]))
        merged.merge(unpack(json.loads(json.dumps(one.pack()))))
    assert (merged.counts, merged.low, merged.high) == (whole.counts, whole.low, whole.high)
    assert merged.total == pytest.approx(whole.total)


def test_above_the_cap_percentiles_stay_within_a_thousandth() -> None:
    """Four workers, a small cap: requests and canaries go over to the histogram, and no sample is lost."""
    master, values = Samples(most_exact=1000), drawn(4000)
    for worker in range(4):
        part_of = part(values[worker::4])
        master.merge_report(msgpack.unpackb(msgpack.packb(part_of.take_report())))
        assert (DURATION.name in master.folded) == (worker > 0)
    exact = TrendSink(array("d", values))
    for metric in (DURATION, MetricKey("outbox_lag_ms")):
        found = select(master, metric)
        assert (found.recorder, found.samples) == (RECORDER, 4000)
        for percent in (0.0, 1.0, 50.0, 90.0, 95.0, 99.0, 99.9, 100.0):
            assert found.percentile(percent) == pytest.approx(exact.percentile(percent), rel=RELATIVE_ERROR)
        assert found.mean() == pytest.approx(exact.mean())
    assert master.requests == 4000
    assert all(not group.timings["http_req_duration"] for group in master.groups.values())


def test_folding_goes_piece_by_piece_and_keeps_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """No report makes the generator stall: the old values go in pieces, with the same percentiles all the while."""
    monkeypatch.setattr("loadtests.engine.samples.FOLD_AT_ONCE", 100)
    master, values = Samples(most_exact=1000), drawn(2000)
    master.merge_report(part(values[:1000]).take_report())
    kept = []
    for start in range(1000, 2000, 50):
        master.merge_report(part(values[start : start + 50]).take_report())
        trend, exact = select(master), TrendSink(array("d", values[: start + 50]))
        assert trend.percentile(95.0) == pytest.approx(exact.percentile(95.0), rel=RELATIVE_ERROR)
        kept.append(len(trend.values))
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > 500
    assert kept[-1] == 0


def test_up_to_the_cap_every_value_is_exact() -> None:
    """The cap itself is still exact."""
    master, values = Samples(most_exact=1000), drawn(1000)
    master.merge_report(part(values).take_report())
    assert (select(master).recorder, master.folded) == ("exact", set())
    assert list(select(master).in_order()) == sorted(values)


def test_exact_and_rounded_parts_merge() -> None:
    """A report that is rounded already, and values that come after folding, all count once."""
    values, rounded, master = drawn(900), Samples(most_exact=10), Samples()
    rounded.merge_report(part(values[:300]).take_report())
    for report_of in (rounded.take_report(), part(values[300:600]).take_report()):
        master.merge_report(msgpack.unpackb(msgpack.packb(report_of)))
    assert rounded.requests == 0
    trend, exact = select(master), TrendSink(array("d", values))
    for value in values[600:]:
        trend.add(value)
    assert (trend.samples, trend.recorder) == (900, RECORDER)
    assert trend.percentile(95.0) == pytest.approx(exact.percentile(95.0), rel=RELATIVE_ERROR)
    assert trend.mean() == pytest.approx(exact.mean())


@pytest.mark.parametrize("source", ["p(95)<{}", "p(95)>{}", "p(95)<={}", "p(95)=={}", "p(95)!={}", "avg<{}", "med>={}"])
@pytest.mark.parametrize("limit", ["99.95", "100.05"])
def test_a_limit_within_the_error_is_not_decided(source: str, limit: str) -> None:
    """Exact values of 100 ms decide it; a recorder that may be 0.1 % off does not."""
    values = [100.0] * 500
    assert said(source.format(limit), TrendSink(array("d", values))).verdict is not ThresholdOutcome.UNKNOWN
    assert said(source.format(limit), folded(values)).verdict is ThresholdOutcome.UNKNOWN


@pytest.mark.parametrize(("limit", "expected"), [("101", "pass"), ("99", "fail")])
def test_a_limit_beyond_the_error_is_decided_and_the_recorder_said(limit: str, expected: str) -> None:
    """The interval is a thousandth wider on both sides; method, message and member name the recorder."""
    found = said(f"p(95)<{limit}", folded([100.0] * 500))
    assert found.verdict.value == expected
    assert (found.low, found.high) == pytest.approx(widened(100.0, 100.0, RELATIVE_ERROR))
    assert found.recorder == RECORDER == "hdr, 3 significant digits"
    assert f"recorder: {RECORDER}" in found.message
    assert "0.1%" in found.method
    assert said(f"p(95)<{limit}", TrendSink(array("d", [100.0] * 500))).recorder == "exact"


def test_least_and_greatest_are_exact_in_a_histogram() -> None:
    """`max<100` over 99.99 ms is a statement about the run and needs no error."""
    assert said("max<100", folded([50.0] * 40 + [99.99])).verdict is ThresholdOutcome.PASS


def finished(cap: int, values: list[float]) -> Conductor:
    """A run that is over; its reports came from one worker in two different seconds."""
    expected = ThresholdSet({DURATION: (Threshold(parse_expression("p(95)<1e9")),)})
    plan = LoadPlan("http://x", scenarios=(steady("", 1.0),), most_exact=cap)
    one = Conductor(plan, expected, {}, has_database=False)
    half = len(values) // 2
    for sequence, (second, some) in enumerate(((0, values[:half]), (40, values[half:]))):
        worker = part(some)
        for _ in range(40):  # what the gate itself adds
            worker.sink(NULL).add(0.4)
        taken = worker.take_report()
        one.on_report(
            "w", {**REPORT, **taken, "elapsed_s": float(second), "sequence": sequence, "final": sequence == 1}
        )
    one.stopped, one.users_wanted, one.users_spawned = one.started + 50.0, 1, 1
    return one


def test_result_and_evidence_say_how_values_were_kept(tmp_path: Path) -> None:
    """Above the cap `hdr`, below it `exact`; the run no longer ends there, and both can be compared later."""
    values = drawn(2000)
    for cap, recorder, metrics in ((500, RECORDER, ["http_req_duration", "outbox_lag_ms"]), (2000, "exact", [])):
        one = finished(cap, values)
        assert "most that are kept" not in one.stop_reason()
        document = report.result(one, one.judgements(), notes=(), companies=(), extra={})
        assert (document["recorder"], document["recorder_metrics"]) == (recorder, metrics)
        assert document["latency"]["recorder"] == recorder
        assert [row["requests"] for row in document["timeline"]] == [1000, 1000]
        assert sum(row["count"] for row in document["requests"]) == 2000
        extra = {"database_error": "", "agents": {}, "backlog": {}}
        run, threshold = evidence_of({**document, **extra}, compat=False, started_at="2024-06-01T00:00:00Z")
        assert isinstance(run.details, dict)
        assert run.details["recorder"] == threshold.details["recorder"] == recorder
        report.write(tmp_path / "run", document, one.samples, "")
        names = {path.name for path in (tmp_path / "run").iterdir()}
        assert ("http_req_duration.hdr.json" in names, "http_req_duration.f64" in names) == (bool(metrics), not metrics)
        stored = report.read_samples(tmp_path / "run" / "http_req_duration.f64")
        assert (stored.samples, stored.recorder) == (2000, recorder)
        assert baseline.compare_folders(tmp_path / "run", tmp_path / "run")[0]["outcome"] == "pass"


def test_a_printed_result_gives_a_pipeline_no_command(tmp_path: Path) -> None:
    """What a target answered may stand in result.json, but a job that prints the file obeys none of it."""
    told = {"first_failure": "##[error]x ##vso[task.complete result=Succeeded]"}
    report.write(tmp_path, told, finished(500, drawn(10)).samples, "")
    text = (tmp_path / "result.json").read_text()
    assert "##[" not in text
    assert "##vso[" not in text
    assert json.loads(text) == told


def test_seconds_long_past_keep_their_numbers_but_not_their_values() -> None:
    """Above the cap the time series must not go on growing by every value."""
    exact, capped = finished(2000, drawn(2000)), finished(500, drawn(2000))
    assert len(exact.seconds[0].durations) == 1000
    assert not capped.seconds[0].durations
    assert capped.seconds[0].numbers() == exact.seconds[0].numbers()


def test_a_stored_histogram_that_is_none_is_a_value_error(tmp_path: Path) -> None:
    """A damaged file of an earlier run is said, not a crash."""
    (tmp_path / "x.hdr.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="no histogram"):
        report.read_samples(tmp_path / "x.f64")
