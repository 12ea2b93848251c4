"""The threshold language against the real k6 binary: the same verdicts, refusals and exit codes.

`K6_CASES=2400 pytest tests/loadtests/judging/test_k6_differential.py` runs the long comparison; the default
is a part of it.
"""

import json
import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loadtests.engine.metrics import TYPES
from loadtests.engine.samples import Samples, timed_of
from loadtests.engine.sinks import TrendSink
from loadtests.engine.tally import Tally
from loadtests.judgement.verdict import ThresholdOutcome, judge
from loadtests.thresholds.file import ThresholdsFileError, parse_thresholds
from loadtests.thresholds.language import (
    MetricType,
    Threshold,
    ThresholdError,
    ThresholdSet,
    k6_verdict,
    parse_duration_ns,
    parse_expression,
    parse_metric_key,
)
from tests.loadtests.judging.test_abort_on_fail import reason
from tests.loadtests.k6_program import Metric, k6_binary, random_metric, run_k6, script, sink_of

CASES = int(os.environ.get("K6_CASES", "600"))
BATCH = 60
BINARY = k6_binary()
pytestmark = pytest.mark.skipif(BINARY is None, reason="no k6 binary on PATH; the development extra brings one")

ODD_EXPRESSIONS = [
    "p( 95)<1", "p(95) < 1", "P(95)<1", "p(95<1", "p95<1", "p()<1", "p(95))<1", "p(9_5)<1", "p(0x5fp0)<1", "p(+95)<1",
    "p(1e400)<1", "avg<0x10", "avg<0x10p0", "avg<0X1P2", "avg<1__0", "avg<1_000", "avg<_1", "avg<1_", "avg<1_e5",
    "avg<1e5_0", "avg<0_1", "avg<0x_1p0", "avg<0x1_p0", "avg<0x1p_1", "avg<1e400", "avg<-1e400", "avg<1e-400",
    "avg<-Inf", "avg<+Infinity", "avg<infinit", "avg<nan", "avg<+nan", "avg<NaN", "avg!=NaN", "avg=<5", "avg===5",
    "avg====5", "avg<<5", "avg<5<6", "avg>=5>6", "avg!5", "avg!==5", "avg<>5", "avg=5", "avg<١", "avg<5.", "avg<.5",
    "avg<.", "avg<1e", "avg<1e+", "avg<+5", "avg<--5", "avg<- 5", "avg<2%", "avg<5 ms", "avg<5ms", "avg<1,5", "value<5",
    "count<5", "rate<5", "p<5", " avg < 5 ", "avg\u00a0<\u20035", "avg\x1c<5", "avg<5\x1f", "avg\u200b<5", "", "avg",
    "<5", "avg<", "avg<0x1p99999", "avg<0x1p-99999", "avg<0x1.8", "avg<0x.8p1", "avg<0x.p1", "avg<0b1", "avg<0o7",
    "avg<1.7976931348623159e308", "avg<1.7976931348623157e308", "avg<4.9e-324", "med<=2", "min>=1", "max==3", "Avg<5",
    "avg <5 // note", "avg<5f", "avg<0x1.fffffffffffff8p0", "avg<inF", "avg<1e0000001",
    "avg<9" + "9" * 320, "avg<00005",
]  # fmt: skip

ODD_KEYS = [
    "tt{a:1}", "tt{a:1,b:x}", "tt{b:x,a:1}", "tt{ a : 1 }", 'tt{"a":"1"}', "tt{}", "tt{a}", "tt{a:}", "tt{a:1,}",
    "tt{a:1", "tta:1}",
    "tt}a:1{", "tt{a:1}x", "tt{a:1:2}", "tt{:1}", "tt{a: }", "nope", "tt {a:1}", "tt{,a:1}", "tt{{a:1}}",
    "tt{a:{1}}",
]  # fmt: skip

ODD_DURATIONS = [
    "10s", "1m30s", "1d", "1d2h", "1d2h3m4s", "100", "1.5s", ".5s", "1.s", "-5s", "+5s", "0", "1h1h", "5", "1e3", "5 s",
    "s", "", "1d-2h", "-1d2h", "d", "1.5d", "10S", "1us", "1µs", "10ns", "1w", 100, 1.5, -5, 0, "1_000", "0x10p0",
    9223372036854, 9223372036855, -1e300, "1e300", "inf", "-Inf", "nan", "9223372036854775807ns",
    "9223372036854775808ns",
    "-9223372036854775808ns", "-9223372036854775809ns", "106751d23h47m16s", "106752d", "-106752d",
    "1.23456789012345678901s",
    "0.9999999999999999999s", "2562047h47m16.854775808s", "9223372036854775808d", "9223372036854775807d", None,
]  # fmt: skip

ODD_LISTS: list[object] = [
    None, [], ["max<2", None], [[]], "max<2", {}, [{"threshold": None}], [{"threshold": "max<2", "abortOnFail": None}],
    [{"threshold": "max<2", "abortOnFail": "true"}], [{"threshold": ["max<2"]}], ["max<2", {"threshold": "max<4"}],
    [{"threshold": "max<4", "delayAbortEval": None}, "max<4"], [{"abortOnFail": True}], [1], [True], 5,
]  # fmt: skip


def batches() -> Iterator[list[Metric]]:
    """Metrics in groups, until they hold the wanted number of thresholds."""
    rng = random.Random(20240601)
    done = 0
    while done < CASES:
        metrics = [random_metric(rng, index) for index in range(BATCH)]
        done += sum(len(sources) for m in metrics for sources in m.thresholds.values())
        yield metrics


def merged(metrics: list[Metric]) -> list[Metric]:
    """Metrics without a second key for the same tags: k6 loses one of the two, and we keep both."""
    result = []
    for metric in metrics:
        seen: dict[object, str] = {}
        for suffix in metric.thresholds:
            seen.setdefault(parse_metric_key(metric.name + suffix), suffix)
        result.append(
            Metric(metric.name, metric.type, metric.samples, {s: metric.thresholds[s] for s in seen.values()})
        )
    return result


SUMS = ("count",)
"""Of a counter the groups of tags are added up, each by itself: of whole numbers, which is what ours count."""


def merged_samples(metrics: Sequence[Metric], thresholds: ThresholdSet) -> tuple[Samples, Tally]:
    """The samples of all metrics as a master has them: in two reports of a worker, in groups of the same tags."""
    master, worker, tally = Samples(), Samples(), Tally(thresholds, 10.0)
    for is_late in (False, True):
        for metric in metrics:
            for number, (value, tags) in enumerate(metric.samples):
                if is_late is (2 * number >= len(metric.samples)):
                    worker.add(metric.name, value, tags, at=number)
                    worker.pairs(metric.name, tags).extend((number, value))
        report = worker.take_report()
        tally.take(master.merge_report(report), timed_of(report), 0.0)
    return master, tally


def test_generated_thresholds_get_the_verdicts_and_the_exit_code_of_k6(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over generated scripts, read by our reader of files, every single verdict and each exit code are those of k6.

    And what we pass k6 passes, what we fail k6 fails, on the same samples.
    """
    assert BINARY
    compared = decided = 0
    for metrics in map(merged, batches()):
        text = script(metrics)
        code, out, err = run_k6(BINARY, text, tmp_path)
        assert code in {0, 99}, err
        theirs = json.loads(out)
        any_failed = False
        for one_metric in metrics:
            monkeypatch.setitem(TYPES, one_metric.name, one_metric.type)
        thresholds = parse_thresholds(text, "s.js", TYPES).thresholds
        samples, tally = merged_samples(metrics, thresholds)
        read = thresholds.by_metric
        for metric in metrics:
            for suffix in metric.thresholds:
                key = parse_metric_key(metric.name + suffix)
                shown = theirs[metric.name + ("{" + suffix[1:-1].strip() + "}" if suffix else "")]
                assert len(read[key]) == len(metric.thresholds[suffix])
                sink, selected = sink_of(metric, dict(key.tags)), samples.select(key)
                for one in read[key]:
                    if isinstance(selected, TrendSink):
                        selected.total = tally.total(key, one.expression, selected.samples)
                    ours = k6_verdict(sink, one.expression, 0.01)
                    if one.expression.method not in SUMS:
                        assert k6_verdict(selected, one.expression, 0.01) is ours, (metric, suffix, one)
                    assert shown[one.expression.source]["ok"] is ours, (metric, suffix, one)
                    verdict = judge(key, one, sink, 0.01).verdict
                    assert verdict is ThresholdOutcome.UNKNOWN or ours is (verdict is ThresholdOutcome.PASS)
                    decided += verdict is not ThresholdOutcome.UNKNOWN
                    any_failed |= not ours
                    compared += 1
        assert code == (99 if any_failed else 0)
    assert compared >= CASES
    assert decided >= CASES / 20


def refused_by_us(expression: str, key: str = "tt") -> bool:
    """Whether our reader refuses the threshold as a configuration error."""
    try:
        threshold = Threshold(parse_expression(expression))
        ThresholdSet({parse_metric_key(key): (threshold,)}).validate({"tt": MetricType.TREND})
    except ThresholdError:
        return True
    return False


def one_threshold(thresholds: object) -> str:
    return f"""
import {{ Trend }} from 'k6/metrics';
const t = new Trend('tt');
export const options = {{ vus: 1, iterations: 1, thresholds: {json.dumps(thresholds)} }};
export default function () {{ t.add(1, {{a: '1', b: 'x'}}); t.add(3); }}
export function handleSummary() {{ return {{}}; }}
"""


def codes(sources: Sequence[str], folder: Path) -> list[tuple[int, str]]:
    """Exit code and stderr of k6 on each script, two at a time."""

    def run(number: int, source: str) -> tuple[int, str]:
        own = folder / str(number)
        own.mkdir()
        code, _, err = run_k6(str(BINARY), source, own)
        return code, err

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, range(len(sources)), sources))


def test_odd_expressions_are_refused_or_judged_as_by_k6(tmp_path: Path) -> None:
    """What k6 calls a configuration error is one here, before anything starts; all else is judged as by k6.

    Those that we take are judged in one run of k6, which it would refuse if it took one of them for an error.
    """
    assert BINARY
    refused = [source for source in ODD_EXPRESSIONS if refused_by_us(source)]
    taken = [source for source in ODD_EXPRESSIONS if source not in refused]
    text = one_threshold({"tt": taken}).replace("return {};", SHOWN)
    code, out, err = run_k6(BINARY, text, tmp_path)
    assert code == 99, err
    metric = Metric("tt", MetricType.TREND, [(1.0, {}), (3.0, {})])
    for source in taken:
        ours = k6_verdict(sink_of(metric, {}), parse_expression(source), 1.0)
        assert json.loads(out)[source]["ok"] is ours, source
    found = codes([one_threshold({"tt": [source]}) for source in refused], tmp_path)
    for source, (number, said) in zip(refused, found, strict=True):
        assert number == 104, (source, said)


SHOWN = "return { stdout: JSON.stringify(arguments[0].metrics.tt.thresholds) };"


def test_a_percentile_outside_0_to_100_is_a_configuration_error(tmp_path: Path) -> None:
    """k6 crashes at run time on such a percentile; here it is refused before the start."""
    sources = ["p(101)<1", "p(-1)<1", "p(NaN)<1", "p(Inf)<1"]
    for source, (code, _) in zip(sources, codes([one_threshold({"tt": [s]}) for s in sources], tmp_path), strict=True):
        assert code not in {0, 99}
        assert refused_by_us(source)


def test_odd_metric_keys_are_refused_or_matched_as_by_k6(tmp_path: Path) -> None:
    """A malformed or unknown metric is a configuration error in both; a legal one counts the same samples."""
    metric = Metric("tt", MetricType.TREND, [(1.0, {"a": "1", "b": "x"}), (3.0, {})])
    found = codes([one_threshold({key: ["max<2"]}) for key in ODD_KEYS], tmp_path)
    for key, (code, err) in zip(ODD_KEYS, found, strict=True):
        assert refused_by_us("max<2", key) is (code not in {0, 99}), (key, err)
        if code in {0, 99}:
            sink = sink_of(metric, dict(parse_metric_key(key).tags))
            assert code == (0 if k6_verdict(sink, parse_expression("max<2"), 1.0) else 99), (key, err)


def delayed(values: Sequence[object]) -> str:
    return one_threshold({"tt": [{"threshold": "max<2", "delayAbortEval": value} for value in values]})


def test_delays_are_refused_or_read_as_by_k6(tmp_path: Path) -> None:
    """A delayAbortEval accepts the same texts and numbers as k6, up to the edges of 64 bits and beyond."""

    def is_taken(value: object) -> bool:
        try:
            parse_duration_ns(value)  # type: ignore[arg-type]
        except ThresholdError:
            return False
        return True

    taken = [value for value in ODD_DURATIONS if value is None or is_taken(value)]
    refused = [value for value in ODD_DURATIONS if value not in taken]
    *found, (code, err) = codes([*(delayed([value]) for value in refused), delayed(taken)], tmp_path)
    assert code == 99, err
    for value, (number, said) in zip(refused, found, strict=True):
        assert number == 104, (value, said)


def test_odd_lists_are_refused_or_read_as_by_k6(tmp_path: Path) -> None:
    """Null and [] are no thresholds, wherever they stand; a value of another form is an error in both."""
    rest = {"checks": ["rate>=0"]}
    found = codes([one_threshold({"tt": value, **rest}) for value in ODD_LISTS], tmp_path)
    for value, (code, err) in zip(ODD_LISTS, found, strict=True):
        text = json.dumps({"thresholds": {"tt": value, **rest}})
        try:
            read = parse_thresholds(text, "t.json", {"tt": MetricType.TREND, "checks": MetricType.RATE})
        except ThresholdsFileError:
            assert code == 104, (value, err)
            continue
        metric = Metric("tt", MetricType.TREND, [(1.0, {}), (3.0, {})])
        own = read.thresholds.by_metric.get(parse_metric_key("tt"), ())
        holds = all(k6_verdict(sink_of(metric, {}), one.expression, 1.0) for one in own)
        assert code == (0 if holds else 99), (value, err)


ABORTING = """
import http from 'k6/http';
import {{ Rate }} from 'k6/metrics';
import {{ sleep }} from 'k6';
const failed = new Rate('failed');
export const options = {{ vus: 1, duration: '5s', thresholds: {{ failed: [{threshold}] }} }};
const begun = Date.now();
export default function () {{ failed.add(Date.now() - begun < {bad_ms}); sleep(0.02); }}
export function handleSummary(data) {{ return {{ stdout: String(data.state.testRunDurationMs) }}; }}
"""
RATE = "threshold: 'rate<0.1', abortOnFail: true"


def test_a_run_is_aborted_when_k6_would(tmp_path: Path) -> None:
    """At the first look, every two seconds, that fails after the delay; a start that has recovered by then is none."""
    cases = [
        ("{" + RATE + "}", 9e9, 2.0),
        ("{" + RATE + ", delayAbortEval: '2500ms'}", 9e9, 4.0),
        ("{" + RATE + "}", 100, 5.0),
    ]

    def run(number: int) -> float:
        threshold, bad_ms, _ = cases[number]
        own = tmp_path / str(number)
        own.mkdir()
        _, out, err = run_k6(str(BINARY), ABORTING.format(threshold=threshold, bad_ms=bad_ms), own)
        assert out, err
        return float(out) / 1000.0

    with ThreadPoolExecutor(3) as pool:
        for (threshold, bad_ms, at_s), took_s in zip(cases, pool.map(run, range(len(cases))), strict=True):
            assert at_s - 0.2 <= took_s < at_s + 1.5, (threshold, took_s)
            words = (
                threshold.removeprefix("{").removesuffix("}").removeprefix("threshold: 'rate<0.1', abortOnFail: true")
            )
            for look_s in (1.9, 2.1, 4.1):
                n = int(look_s * 50)
                bad = min(n, int(bad_ms / 20))
                aborts = bool(
                    reason(
                        "http_req_failed: [{threshold: 'rate<0.1'", n - bad, bad, at_s=look_s, compat=True, more=words
                    )
                )
                assert aborts is (at_s <= look_s), (threshold, look_s)
