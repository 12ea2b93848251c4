"""Repeats the drill stage against one deployment without a pause: whatever does not pass is flaky, or a finding.

* A deployment that is up: `gate up` prints its variables; `python benchmarks/drill_repeat.py < variables.json`, or with
  the variables of the contract (BASE_URL ...) in the environment.
* Without one it brings up the reference for itself, once for all runs.

Each run is `gate drill` as a user runs it. Prints for each run how many checks passed, failed and were unknown, the
seconds, and every check that did not pass; at the end the checks that ever did not. Exit code 0 where all passed, 1
where a check failed or was unknown, 4 where a run ended without a verdict. Against a healthy deployment each of them is
a defect of the check (or of the deployment); on a machine that is busy otherwise some are unknown.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gates.stack.plan import StackOptions
from gates.stack.stack import reference_stack

ROOT = Path(__file__).resolve().parent.parent
RUN_LIMIT_S = 900.0
NO_VERDICT = 4


@dataclass(frozen=True)
class Run:
    """One run: its seconds and the evidence of its checks."""

    seconds: float
    checks: tuple[Mapping[str, Any], ...]

    def count(self, outcome: str) -> int:
        return sum(one["outcome"] == outcome for one in self.checks)


class NoVerdictError(Exception):
    """A run ended otherwise than by a verdict; the message is the end of what it said."""


def one_run(environ: Mapping[str, str], *, deep: bool) -> Run:
    """Run `gate drill` once. Raise NoVerdictError."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="drill-repeat-") as folder:
        command = [sys.executable, "-m", "gates.cli", "drill", f"--output={folder}", *(["--deep"] if deep else [])]
        ended = subprocess.run(
            command, cwd=ROOT, env=dict(environ), capture_output=True, text=True, check=False, timeout=RUN_LIMIT_S
        )
        if ended.returncode not in {0, 10, 20}:
            raise NoVerdictError(f"gate drill ended with {ended.returncode}:\n{ended.stderr[-3000:]}")
        lines = (Path(folder) / "evidence.ndjson").read_text(encoding="utf-8").splitlines()
    # preflight and what has no check belong to other stages
    seen = (json.loads(line) for line in lines)
    return Run(time.monotonic() - started, tuple(one for one in seen if one["check"].startswith("drill/")))


def report(number: int, run: Run) -> None:
    """One line, and one for each check that did not pass."""
    told = "  ".join(f"{outcome} {run.count(outcome)}" for outcome in ("pass", "fail", "unknown"))
    print(f"run {number:2}: {told}  {run.seconds:5.1f} s", flush=True)
    for one in run.checks:
        if one["outcome"] != "pass":
            print(f"    {one['outcome']} {one['check']}: {str(one.get('message'))[:400]}", flush=True)


@contextmanager
def deployment(target: str) -> Iterator[dict[str, str]]:
    """The environment of the runs: a deployment that is up, or the reference, for the time of the block."""
    given = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.readline()
    if given.strip() or os.environ.get("BASE_URL"):
        yield {**os.environ, **(json.loads(given) if given.strip() else {}), "GATE_TARGET": target}
        return
    with reference_stack(StackOptions(), os.environ) as stack:
        own = {**stack.info.variables(), "GATE_STACK_CONTROL": stack.info.control}
        yield {**os.environ, **own, "GATE_TARGET": target}


def main() -> int:
    """Repeat the runs and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="how many runs (default 20)")
    parser.add_argument("--target", default="production", metavar="KIND", help="GATE_TARGET (default production)")
    parser.add_argument("--deep", action="store_true", help="with the slow drills")
    options = parser.parse_args()
    runs: list[Run] = []
    with deployment(options.target) as environ:
        for number in range(1, options.runs + 1):
            try:
                runs.append(one_run(environ, deep=options.deep))
            except (NoVerdictError, subprocess.TimeoutExpired) as error:
                print(f"run {number:2}: {error}", file=sys.stderr)
                return NO_VERDICT
            report(number, runs[-1])
    ever = Counter(f"{one['outcome']} {one['check']}" for run in runs for one in run.checks if one["outcome"] != "pass")
    times = [run.seconds for run in runs]
    print(f"median {statistics.median(times):.1f} s, slowest {max(times):.1f} s; not passed: {dict(ever) or 'none'}")
    return 1 if ever else 0


if __name__ == "__main__":
    sys.exit(main())
