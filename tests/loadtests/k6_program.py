"""Generated k6 programs: random metrics, samples and thresholds, and what the real binary says about them."""

import json
import math
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.engine.sinks import CounterSink, GaugeSink, RateSink, Sink, TrendSink
from loadtests.thresholds.language import AGGREGATIONS, MetricType

JS_NAMES = {kind: kind.capitalize() for kind in MetricType}
SINKS: dict[MetricType, type[Sink]] = {
    MetricType.COUNTER: CounterSink,
    MetricType.GAUGE: GaugeSink,
    MetricType.RATE: RateSink,
    MetricType.TREND: TrendSink,
}


def k6_binary() -> str | None:
    """The k6 on PATH, or the one that the development extra put beside the interpreter."""
    beside = Path(sys.executable).parent / "k6"
    return shutil.which("k6") or (str(beside) if beside.exists() else None)


@dataclass(frozen=True)
class Metric:
    """A metric with its samples: value and tags, in order of arrival; and thresholds by submetric suffix."""

    name: str
    type: MetricType
    samples: list[tuple[float, dict[str, str]]]
    thresholds: dict[str, list[str]] = field(default_factory=dict)


def random_metric(rng: random.Random, index: int) -> Metric:
    """One metric with 0..60 samples and one to four thresholds for it and perhaps a submetric."""
    kind = rng.choice(list(MetricType))
    count = rng.choice([0, 1, 2, 3, rng.randrange(4, 60)])
    samples = [(random_value(rng, kind), random_tags(rng)) for _ in range(count)]
    suffixes = ["", *rng.sample(["{a:1}", "{b:x}", "{a:2,b:y}", "{ a : 1 , b : x }", "{'a':'2'}"], rng.randrange(3))]
    values = [v for v, _ in samples] or [0.0]
    return Metric(
        f"m{index}_{kind.value}",
        kind,
        samples,
        {s: sorted({random_expression(rng, kind, values) for _ in range(rng.randrange(1, 4))}) for s in suffixes},
    )


def random_value(rng: random.Random, kind: MetricType) -> float:
    if kind is MetricType.RATE:
        return float(rng.choice([0, 1, 1, 1, 0.5, -1]))
    return rng.choice(
        [
            rng.uniform(0, 3000),
            float(rng.randrange(10)),
            rng.uniform(0, 1) * float(f"1e{rng.randrange(-8, 12)}"),
            rng.lognormvariate(3, 2),
            0.1 * rng.randrange(30),
        ]
    )


def random_tags(rng: random.Random) -> dict[str, str]:
    tags = {"a": rng.choice(["1", "2"]), "b": rng.choice(["x", "y"])}
    return {k: v for k, v in tags.items() if rng.random() < 0.8}


def random_expression(rng: random.Random, kind: MetricType, values: list[float]) -> str:
    """A legal expression whose limit often equals, or nearly equals, what will be measured."""
    method = rng.choice(AGGREGATIONS[kind])
    if method == "p" and rng.random() < 0.95:
        method = (
            f"p({rng.choice(['95', '99', '99.9', '50', '0', '100', '0.95', '90.0', '1e1', '0x10p0', '7_5', '33'])})"
        )
    limit = number_text(rng, random_limit(rng, kind, method, values))
    op = rng.choice(["<", "<=", ">", ">=", "==", "===", "!="])
    spaces = rng.choices(["", " ", "  ", "\t"], k=4)
    return f"{spaces[0]}{method}{spaces[1]}{op}{spaces[2]}{limit}{spaces[3]}"


def random_limit(rng: random.Random, kind: MetricType, method: str, values: list[float]) -> float:
    if kind is MetricType.COUNTER and method == "rate":
        return rng.choice([-1.0, 1e300, float("inf")])  # anything between depends on how long k6 took
    sink = TrendSink()
    for value in values:
        sink.add(value)
    if kind is MetricType.RATE:
        return rng.choice([0.0, 1.0, 0.5, 0.02, 0.98, sum(v != 0 for v in values) / len(values)])
    return rng.choice(
        [
            rng.choice(values),
            sum(values),
            sink.mean(),
            sink.percentile(rng.choice([95, 99, 50, 90, 33])),
            rng.uniform(0, 3000),
            0.0,
        ]
    )


def number_text(rng: random.Random, number: float) -> str:
    """The number in one of the forms that Go reads."""
    if math.isinf(number):
        return rng.choice(["Inf", "+inf", "Infinity"])
    forms = [repr(number), repr(number), f"{number:.17g}", number.hex()]
    if 1000 <= number < 1e15 and number == int(number):
        forms.append(f"{int(number):_}")
    return rng.choice(forms)


def script(metrics: list[Metric]) -> str:
    """A k6 script that adds the samples in order and prints the verdict of every threshold."""
    plan = [{"n": m.name, "k": JS_NAMES[m.type], "s": [[v, t] for v, t in m.samples]} for m in metrics]
    thresholds = {m.name + suffix: in_forms(sources) for m in metrics for suffix, sources in m.thresholds.items()}
    options = {"vus": 1, "iterations": 1, "thresholds": thresholds}
    return f"""
import {{ Counter, Gauge, Rate, Trend }} from 'k6/metrics';
const kinds = {{ Counter, Gauge, Rate, Trend }};
const plan = {json.dumps(plan)};
const live = plan.map(m => new kinds[m.k](m.n));
export const options = {json.dumps(options)};
export default function () {{ plan.forEach((m, i) => m.s.forEach(([v, t]) => live[i].add(v, t))); }}
export function handleSummary(data) {{
  const out = {{}};
  for (const name of Object.keys(data.metrics)) out[name] = data.metrics[name].thresholds || {{}};
  return {{ stdout: JSON.stringify(out) }};
}}
"""


def in_forms(sources: list[str]) -> list[object]:
    """The same thresholds as texts and as objects, by turns."""
    objects: tuple[dict[str, object], ...] = (
        {},
        {"abortOnFail": False},
        {"delayAbortEval": "10s"},
        {"abortOnFail": False, "delayAbortEval": 100},
    )
    return [
        source if index % 3 == 0 else {"threshold": source, **objects[(index + len(source)) % 4]}
        for index, source in enumerate(sources)
    ]


def run_k6(binary: str, source: str, folder: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one run of k6, at most a minute."""
    path = folder / "script.js"
    path.write_text(source, encoding="utf-8")
    command = [binary, "run", "--no-usage-report", "--quiet", "--address", "127.0.0.1:0", str(path)]
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    return done.returncode, done.stdout, done.stderr


def sink_of(metric: Metric, wanted: dict[str, str]) -> Sink:
    """The samples of a metric that carry the wanted tags, in our own sink."""
    sink = SINKS[metric.type]()
    for value, tags in metric.samples:
        if all(tags.get(k) == v for k, v in wanted.items()):
            sink.add(value)
    return sink
