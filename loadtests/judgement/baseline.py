"""Compares the latencies of two runs: slower, not slower, or too close to tell. Pure but for the reading.

Bounds within a run say nothing of the noise between runs (another neighbour, another cache), so a change must also
exceed a tenth of the value and 5 ms before it counts. What the gate itself may have added is no change (starvation.py).
"""

from pathlib import Path

from gates.decision.intervals import percentile_bounds
from loadtests.engine.hdr import widened
from loadtests.engine.sinks import TrendSink
from loadtests.judgement.starvation import NULL, conceded
from loadtests.judgement.verdict import CONFIDENCE
from loadtests.report import read_samples

PERCENTILES = (50.0, 95.0)
TOLERANCE, LEAST_MS = 0.10, 5.0


def compare(before: TrendSink, after: TrendSink, percent: float, null: TrendSink) -> dict[str, object]:
    """One comparison as the members of an evidence line: `load/baseline/p95`. `null`: the null requests of `after`."""
    share = conceded(percent)
    surely = percentile_bounds(after.in_order(), percent - share, CONFIDENCE)[0] - null.percentile(100.0 - share)
    old_low, old_high = widened(*percentile_bounds(before.in_order(), percent, CONFIDENCE), before.error)
    new_low, new_high = widened(*percentile_bounds(after.in_order(), percent, CONFIDENCE), after.error)
    old, new = before.percentile(percent), after.percentile(percent)
    allowed = old + max(TOLERANCE * old, LEAST_MS)
    slack = allowed - old
    if new_low > old_high + slack:
        is_ours = surely <= old_high + slack
        outcome, word = ("unknown", "slower, which may be the gate itself") if is_ours else ("fail", "slower")
    elif new_high <= old_low + slack:
        outcome, word = "pass", "not slower"
    else:
        outcome, word = "unknown", "too close to tell"
    name = f"p{percent:g}"
    bounds = f"[{new_low:.4g}, {new_high:.4g}] against [{old_low:.4g}, {old_high:.4g}]"
    return {
        "check": f"load/baseline/{name}",
        "outcome": outcome,
        "message": f"{name} {new:.4g} ms, before {old:.4g} ms: {word} ({bounds}, 10 % and 5 ms allowed)",
        "observed": new,
        "limit": allowed,
        "unit": "ms",
        "samples": after.samples,
    }


def compare_folders(before: Path, after: Path) -> list[dict[str, object]]:
    """Compare the stored samples of two runs. Raise OSError or ValueError where one has none."""
    old, new = (read_samples(folder / "http_req_duration.f64") for folder in (before, after))
    null = read_samples(after / f"{NULL}.f64")
    return [compare(old, new, percent, null) for percent in PERCENTILES]
