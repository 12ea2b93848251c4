"""The threshold language against the real k6 binary: the same verdicts, refusals and exit codes.

`K6_CASES=2400 pytest tests/loadtests/test_k6_differential.py` runs the long comparison; the default is a part of it.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def test_generated_thresholds_get_the_verdicts_and_the_exit_code_of_k6(tmp_path: Path) -> None:
    """Over generated metrics, samples and thresholds, every single verdict and each exit code are those of k6."""
    assert BINARY
    compared = 0
    for metrics in map(merged, batches()):
        code, out, err = run_k6(BINARY, script(metrics), tmp_path)
        assert code in {0, 99}, err
        theirs = json.loads(out)
        any_failed = False
        for metric in metrics:
            for suffix, sources in metric.thresholds.items():
                key = parse_metric_key(metric.name + suffix)
                shown = theirs[metric.name + ("{" + suffix[1:-1].strip() + "}" if suffix else "")]
                for source in sources:
                    ours = k6_verdict(sink_of(metric, dict(key.tags)), parse_expression(source), 0.01)
                    assert shown[source]["ok"] is ours, (metric, suffix, source)
                    any_failed |= not ours
                    compared += 1
        assert code == (99 if any_failed else 0)
    assert compared >= CASES


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


@pytest.mark.parametrize("source", ODD_EXPRESSIONS)
def test_an_odd_expression_is_refused_or_judged_as_by_k6(source: str, tmp_path: Path) -> None:
    """What k6 calls a configuration error is one here, before anything starts; what it judges gets its exit code."""
    assert BINARY
    code, _, err = run_k6(BINARY, one_threshold({"tt": [source]}), tmp_path)
    if code == 104:
        assert refused_by_us(source), err
        return
    assert not refused_by_us(source)
    metric = Metric("tt", MetricType.TREND, [(1.0, {}), (3.0, {})])
    assert code == (0 if k6_verdict(sink_of(metric, {}), parse_expression(source), 1.0) else 99), err


@pytest.mark.parametrize("source", ["p(101)<1", "p(-1)<1", "p(NaN)<1", "p(Inf)<1"])
def test_a_percentile_outside_0_to_100_is_a_configuration_error(source: str, tmp_path: Path) -> None:
    """k6 crashes at run time on such a percentile; here it is refused before the start."""
    assert BINARY
    assert run_k6(BINARY, one_threshold({"tt": [source]}), tmp_path)[0] not in {0, 99}
    assert refused_by_us(source)


@pytest.mark.parametrize("key", ODD_KEYS)
def test_an_odd_metric_key_is_refused_or_matched_as_by_k6(key: str, tmp_path: Path) -> None:
    """A malformed or unknown metric is a configuration error in both; a legal one counts the same samples."""
    assert BINARY
    code, _, err = run_k6(BINARY, one_threshold({key: ["max<2"]}), tmp_path)
    if code not in {0, 99}:
        assert refused_by_us("max<2", key), err
        return
    assert not refused_by_us("max<2", key)
    metric = Metric("tt", MetricType.TREND, [(1.0, {"a": "1", "b": "x"}), (3.0, {})])
    sink = sink_of(metric, dict(parse_metric_key(key).tags))
    assert code == (0 if k6_verdict(sink, parse_expression("max<2"), 1.0) else 99), err


@pytest.mark.parametrize("value", ODD_DURATIONS, ids=str)
def test_a_delay_is_refused_or_read_as_by_k6(value: str | float, tmp_path: Path) -> None:
    """A delayAbortEval accepts the same texts and numbers as k6."""
    assert BINARY
    entry = {"threshold": "max<2", "abortOnFail": False, "delayAbortEval": value}
    code, _, err = run_k6(BINARY, one_threshold({"tt": [entry]}), tmp_path)
    try:
        parse_duration_ns(value)
        accepted = True
    except ThresholdError:
        accepted = False
    assert accepted is (code == 99), err
