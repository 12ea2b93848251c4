"""Writes what a run found: result.json for the gate, raw samples, Locust's own page. Pure but for the writing."""

import dataclasses
import json
import math
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gates import disk
from gates.text.characters import log
from loadtests.engine.conductor import Conductor, Second
from loadtests.engine.hdr import EXACT, RECORDER, unpack
from loadtests.engine.samples import Samples
from loadtests.engine.sinks import TrendSink
from loadtests.judgement.starvation import NULL
from loadtests.judgement.validity import crowded
from loadtests.judgement.verdict import CONFIDENCE, ThresholdResult
from loadtests.thresholds.language import MetricKey

VERSION = 1
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9, 100.0)


def result(
    conductor: Conductor,
    judgements: Sequence[ThresholdResult],
    *,
    notes: Sequence[str],
    companies: Sequence[str],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole result as JSON-safe values; infinities and NaN become None."""
    facts = conductor.facts()
    reasons = conductor.invalid_reasons()
    document = {
        "version": VERSION,
        "valid": not reasons,
        "invalid_reasons": list(reasons),
        "ended": conductor.ended,
        "elapsed_s": conductor.elapsed_s,
        "looks": conductor.looks,
        "confidence": CONFIDENCE,
        "model": "open" if conductor.plan.is_open else "closed",
        "profile": conductor.plan.profile,
        "recorder": RECORDER if conductor.samples.folded else EXACT,
        "recorder_metrics": sorted(conductor.samples.folded),
        "facts": dataclasses.asdict(facts),
        "crowded": crowded(facts),
        "judgements": [{**dataclasses.asdict(j), "check": j.check} for j in judgements],
        "k6_passes": all(j.k6_passes for j in judgements),
        "notes": list(notes),
        "companies": list(companies),
        "requests": _by_name(conductor.samples),
        "latency": distribution(conductor.samples.select(MetricKey("http_req_duration"))),
        "outbox_lag": distribution(conductor.samples.select(MetricKey("outbox_lag_ms"))),
        "timeline": [_second(number, second) for number, second in sorted(conductor.seconds.items())],
        "expected_refusals": conductor.samples.select(MetricKey("expected_refusals")).samples,
        **extra,
    }
    return dict(_plain(document))


def distribution(sink: object) -> dict[str, Any]:
    """Counts and percentiles of a trend, and 100 steps of its distribution for a chart, in milliseconds."""
    if not isinstance(sink, TrendSink) or not sink.samples:
        return {"samples": 0}
    return {
        "samples": sink.samples,
        "recorder": sink.recorder,
        "mean": sink.mean(),
        "min": sink.percentile(0.0),
        **{f"p{p:g}": sink.percentile(p) for p in PERCENTILES},
        "steps": [sink.percentile(float(p)) for p in range(101)],
    }


def _by_name(samples: Samples) -> list[dict[str, Any]]:
    """One row a request name and status, for the tables of a report."""
    rows = []
    for group in samples.groups.values():
        if not group.count:
            continue
        tags, trend = dict(group.tags), group.trend("http_req_duration")
        rows.append(
            {
                "name": tags["name"],
                "method": tags["method"],
                "status": int(tags["status"]),
                "error": tags.get("error", ""),
                "count": group.count,
                "failed": group.failed,
                "p50": trend.percentile(50.0),
                "p95": trend.percentile(95.0),
                "max": trend.percentile(100.0),
            }
        )
    return sorted(rows, key=lambda row: (str(row["name"]), row["status"]))


def _second(number: int, second: Second) -> dict[str, Any]:
    requests, p50, p95, most = second.numbers()
    return {"second": number, "requests": requests, "failed": second.failed, "p50": p50, "p95": p95, "max": most}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def write(folder: Path, document: Mapping[str, Any], samples: Samples, html: str) -> None:
    """Write all files, result.json last and in one step: a half-written run has no result.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for metric in ("http_req_duration", "outbox_lag_ms", NULL):
        sink = samples.select(MetricKey(metric))
        for suffix in (".f64", ".hdr.json"):  # of an earlier run into the same folder
            (folder / f"{metric}{suffix}").unlink(missing_ok=True)
        if not isinstance(sink, TrendSink) or not sink.samples:
            continue
        if sink.folded is not None:
            sink.fold()
            packed = json.dumps(sink.folded.pack(), allow_nan=False)
            disk.write(folder / f"{metric}.hdr.json", packed)
        else:
            disk.write(folder / f"{metric}.f64", sink.values.tobytes())
    if html:
        disk.write(folder / "locust.html", html)
    disk.write(folder / "result.json", log(json.dumps(document, allow_nan=False)))


def read_samples(path: Path) -> TrendSink:
    """Samples that `write` wrote, in milliseconds; beside a name without raw samples their histogram is looked for.
    Raise OSError or ValueError.
    """
    folded = path.with_suffix(".hdr.json")
    if not path.exists() and folded.exists():
        try:
            return TrendSink(folded=unpack(json.loads(disk.read_text(folded))))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folded.name} is no histogram; run the load stage again") from error
    values = array("d")
    values.frombytes(disk.read(path))
    return TrendSink(values)
