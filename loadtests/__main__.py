"""`python -m loadtests PLAN.json OUT`: perform a plan. `--worker HOST PORT`: serve a master. `--checks PLAN.json`:
print how long the load takes, and the ids of the checks that its thresholds make, one a line. `--compare BEFORE AFTER`:
two runs' latencies. `--when-told`: be ready, and do what a list of arguments on stdin says; nothing where it is empty.

Exit codes: 0 the result is in OUT/result.json (whatever it says), 3 the thresholds or the plan cannot be used.
"""

import json
import logging
import os
import signal
import sys
from pathlib import Path

import locust  # noqa: F401  -- first: it patches the process, and psycopg waits by what it finds when it is imported

from gates.deployment.dialect.current import learn
from gates.deployment.sql.database import told
from loadtests.asked import thresholds_of
from loadtests.engine.locust_engine import serve_worker
from loadtests.engine.schedule import length_s
from loadtests.judgement.baseline import compare_folders
from loadtests.plan import credentials_from, load_plan
from loadtests.profiles import resolve
from loadtests.run import run
from loadtests.thresholds.language import ThresholdError

LENGTH = "seconds "
USAGE = "usage: python -m loadtests PLAN.json OUT | --worker HOST PORT | --checks PLAN.json | --compare DIR DIR\n"


def refuse(error: Exception) -> int:
    """Print the refusal on both streams: one is for people, the other for the process that started this one."""
    for output in (sys.stderr, sys.stdout):
        output.write(f"{error}\n")
    return 3


def main(arguments: list[str]) -> int:
    """Do what the arguments say; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    learn(os.environ)
    told(os.environ)
    match arguments:
        case ["--when-told"]:
            asked_for = sys.stdin.read()
            return main(json.loads(asked_for)) if asked_for else 0
        case ["--worker", host, port]:
            serve_worker(host, int(port), credentials_from(os.environ))
            return 0
        case ["--checks", plan]:
            try:
                asked = load_plan(Path(plan).read_text(encoding="utf-8"))
                file = thresholds_of(asked)
            except (ThresholdError, ValueError) as error:
                return refuse(error)
            sys.stdout.write(f"{LENGTH}{length_s(resolve(asked, file))}\n")
            for key, thresholds in file.thresholds.by_metric.items():
                for one in thresholds:
                    sys.stdout.write(f"load/{key}/{one.expression.aggregation}\n")
            return 0
        case ["--compare", before, after]:
            for line in compare_folders(Path(before), Path(after)):
                sys.stdout.write(json.dumps(line) + "\n")
            return 0
        case [plan, out]:
            try:
                run(load_plan(Path(plan).read_text(encoding="utf-8")), Path(out), os.environ)
            except (ThresholdError, ValueError) as error:
                return refuse(error)
            return 0
    sys.stderr.write(USAGE)
    return 2


def program(arguments: list[str]) -> int:
    """Run a load process; returns the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the companies of the run are removed
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    os._exit(program(sys.argv[1:]))  # Locust's greenlets would otherwise hold the process for seconds
