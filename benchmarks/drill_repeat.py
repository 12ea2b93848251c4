"""All drills that are safe in production, again and again against one deployment, without a pause.

`gate up` prints the variables; then: `python benchmarks/drill_repeat.py [--runs 20] < variables.json`.
Prints for each run how many checks passed, failed and were unknown, the seconds, and every check that did not pass;
at the end the checks that ever did not. Exit code 1 where there was one. Against a healthy deployment each of them is a
defect of the check (or of the deployment).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PHASES = (("first", ()), ("main", ("-n", "2")), ("last", ()))
PHASE_TIMEOUT_S = 300.0


def one_run(environ: Mapping[str, str], folder: Path) -> list[dict[str, object]]:
    """The evidence of one run, phase by phase as the gate runs them."""
    evidence = folder / "evidence.ndjson"
    for phase, workers in PHASES:
        command = [sys.executable, "-m", "pytest", "drills", "-q", "--no-header", "--tb=native", f"--phase={phase}"]
        command += [f"--evidence={evidence}", f"--companies={folder / 'companies'}", *workers]
        ended = subprocess.run(
            command, cwd=ROOT, env=dict(environ), capture_output=True, text=True, check=False, timeout=PHASE_TIMEOUT_S
        )
        if ended.returncode not in {0, 1}:
            raise SystemExit(f"pytest ended with {ended.returncode} in the phase {phase}:\n{ended.stdout[-3000:]}")
    return [json.loads(line) for line in evidence.read_text(encoding="utf-8").splitlines()]


def main() -> int:
    """Run, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="how many runs (default 20)")
    parser.add_argument("--target", default="production", metavar="KIND", help="GATE_TARGET (default production)")
    options = parser.parse_args()
    environ = {**os.environ, **json.loads(sys.stdin.readline()), "GATE_TARGET": options.target}
    ever: Counter[str] = Counter()
    times = []
    for number in range(1, options.runs + 1):
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="drill-repeat-") as folder:
            seen = one_run(environ, Path(folder))
        times.append(time.monotonic() - started)
        counts = Counter(str(one["outcome"]) for one in seen)
        told = "  ".join(f"{outcome} {counts[outcome]}" for outcome in ("pass", "fail", "unknown"))
        print(f"run {number:2}: {told}  {times[-1]:5.1f} s", flush=True)
        for one in seen:
            if one["outcome"] != "pass":
                ever[f"{one['outcome']} {one['check']}"] += 1
                print(f"    {one['outcome']} {one['check']}: {str(one['message'])[:400]}", flush=True)
    print(f"median {statistics.median(times):.1f} s, slowest {max(times):.1f} s; not passed: {dict(ever) or 'none'}")
    return 1 if ever else 0


if __name__ == "__main__":
    sys.exit(main())
