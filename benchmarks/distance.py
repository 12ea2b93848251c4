"""A whole run from afar: both doors of the reference behind a relay that makes each round trip longer, and a pooler.

`python -m benchmarks.distance --rtt 60 --pooler transaction --login gate --beside vacuum`

Prints the verdict, how long each stage took, which checks did not pass and why, and the checks that took longest.
Needs `pgbouncer` for `--pooler`. Exit code 0 where the verdict is promote.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from gates.proof.healthy import beside
from gates.proof.workbench.pooler import pgbouncer, temporary_pgbouncer
from gates.proof.workbench.relay import RelayOptions, relay
from gates.stack.plan import StackOptions
from gates.stack.stack import reference_stack

ROOT = Path(__file__).resolve().parent.parent
RUN_LIMIT_S = 900.0
SHOWN = 12
SITUATIONS = {"vacuum": beside.vacuum, "reader": beside.reader, "traffic": beside.neighbour, "restart": beside.restart}
"""What goes on beside a run, by its name in `--beside`."""


@contextmanager
def from_afar(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """The environment of a run, for the time of the block."""
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="distance-") as folder:
        each = 2 if "restart" in options.beside else 1
        place = Path(folder)
        place.chmod(0o755)
        wanted = StackOptions(instances=each, workers=each)
        if options.service_pooler:
            wanted = replace(wanted, pooler=partial(temporary_pgbouncer, mode=options.service_pooler, everybody=True))
        up = stack.enter_context(reference_stack(wanted, os.environ))
        own = {**up.info.variables(), "GATE_STACK_CONTROL": up.info.control if options.target == "reference" else ""}
        if options.login == "gate":
            own["DATABASE_URL"] = up.info.gate_url
        if options.pooler:
            pooled = pgbouncer(place / "pooler", own["DATABASE_URL"], options.pooler)
            own["DATABASE_URL"] = stack.enter_context(pooled)
        for name in ("BASE_URL", "DATABASE_URL") if options.rtt else ():
            parts = urlsplit(own[name])
            way = RelayOptions(delay_s=options.rtt / 1000)
            there = urlsplit(stack.enter_context(relay(f"tcp://{parts.hostname}:{parts.port}", way)))
            login, at, _ = parts.netloc.rpartition("@")
            own[name] = urlunsplit(parts._replace(netloc=f"{login}{at}{there.netloc}"))
        for situation in options.beside:
            stack.enter_context(SITUATIONS[situation](up))
        yield {**os.environ, **own, "GATE_TARGET": options.target}


def report(folder: Path, seconds: float) -> bool:
    """Print what the run saw; whether it promoted."""
    verdict, run = (json.loads((folder / name).read_text()) for name in ("verdict.json", "run.json"))
    lines: list[dict[str, Any]] = [json.loads(x) for x in (folder / "evidence.ndjson").read_text().splitlines()]
    print(f"{verdict['decision']} in {seconds:.1f} s: {verdict['reason'][:300]}")
    print(f"counts {verdict['counts']}")
    for stage in run["stages"]:
        print(f"  {stage['stage']:14} {stage['seconds']:7.1f} s  {stage['error'][:120]}")
    for one in lines:
        if one["outcome"] != "pass":
            print(f"  {one['outcome']} {one['check']}: {str(one.get('message'))[:200]}")
    slowest = sorted(lines, key=lambda one: -one.get("duration_ms", 0))[:SHOWN]
    print("  slowest: " + ", ".join(f"{one['check']} {one['duration_ms'] / 1000:.1f} s" for one in slowest))
    return bool(verdict["decision"] == "promote")


def main() -> int:
    """Make one run and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtt", type=float, default=60.0, metavar="MS", help="of a round trip (default 60)")
    parser.add_argument("--pooler", default="", choices=("", "transaction", "session"), help="how pgbouncer lends")
    parser.add_argument("--service-pooler", default="", choices=("", "transaction", "session"), help="before service")
    parser.add_argument("--login", default="superuser", choices=("superuser", "gate"), help="gate: replay_gate")
    parser.add_argument("--beside", action="append", default=[], choices=SITUATIONS, help="what goes on meanwhile")
    parser.add_argument("--target", default="staging", metavar="KIND", help="GATE_TARGET (default staging)")
    parser.add_argument("--keep", metavar="DIR", help="keep the run's files there")
    options, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="distance-out-") as temporary:
        out = Path(options.keep or temporary)
        with from_afar(options) as environ:
            started = time.monotonic()
            command = [sys.executable, "-m", "gates.cli", "run", f"--output={out}", *more]
            subprocess.run(command, cwd=ROOT, env=environ, check=False, timeout=RUN_LIMIT_S, stderr=subprocess.DEVNULL)
            seconds = time.monotonic() - started
        return 0 if report(out, seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
