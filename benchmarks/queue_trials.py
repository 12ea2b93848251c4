"""The whole gate against the queues that tests install from their registries: healthy, and with each of six defects.

`python -m benchmarks.queue_trials [--preset NAME] [--case ID]`; half a minute a run. A healthy queue must be promoted
without a failure, a defect must be named first. Exit code 1 where one is not as due.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from examples.defects import Defect
from examples.ground import ground
from examples.trial import HEALTHY, TrialResult, result_of, verdict_of
from gates.contract.queues import Queue, presets
from gates.deployment.queue.schema import look_at
from gates.deployment.sql.database import connect, value
from tests.sql_checks.queues.libraries import LIBRARIES, Library, Program, installed
from tests.waiting import until

WITHIN_S = 15.0
PATIENCE_S = 60.0
OPEN_JOBS = "select count(*) from (select queue from {{waiting}} w union all select queue from {{running}} r) jobs"
IDLE = ("queue/standstill", "queue/oldest-age", "queue/lag", "queue/workers", "queue/proof/*", "queue/load/*")
NOTED = ("queue/dead-letters", "queue/unreplayed", "queue/retries")
EITHER = ("promote", "hold")
"""One failure is noted; where so few jobs ended that it may be one in fifty, the rate is unknown, and that holds."""


@dataclass(frozen=True)
class Case:
    """A defect of a queue that did 60 mails. breaks: how it is put in; works: whether the worker goes on."""

    defect: Defect
    breaks: Callable[[Program], object] = lambda _: None
    works: bool = True
    options: Mapping[str, object] | None = None


def _sql(program: Program, statement: str) -> None:
    with psycopg.connect(program.url, autocommit=True) as connection:
        connection.execute(statement.encode())


def _count(program: Program, notion: str) -> int:
    queue = Queue(presets()[program.library.preset])
    with connect(program.url, read_only=True) as connection:
        return int(str(value(connection, queue.written(notion, look_at(queue, connection).schema))))


def _stuck(program: Program) -> None:
    program.do("send", "slow", "3")
    until(lambda: _count(program, "select count(*) from {{running}} r") >= 1, PATIENCE_S, "a job that is claimed", 0.2)


def _backlog(program: Program) -> None:
    program.do("send", "mail", "50")
    _sql(program, program.library.aged)


def _defect(name: str, breaks: str, *named: str, decisions: tuple[str, ...] = ("hold", "rollback")) -> Defect:
    return Defect(name, "worker", breaks, named, decisions=decisions)


CASES = (
    Case(HEALTHY),
    Case(
        _defect("stuck-worker", "The worker is gone, with jobs in its hands.", "queue/stuck-claims", *IDLE),
        _stuck,
        works=False,
        options={"max_run_time_s": 1},
    ),
    Case(_defect("backlog", "Fifty jobs wait, and nobody works.", *IDLE), _backlog, works=False),
    Case(
        _defect("poison-message", "One job fails for good.", "queue/failure-rate", *NOTED, decisions=EITHER),
        lambda p: p.do("send", p.library.poison, "1"),
    ),
    Case(_defect("lost-index", "The index of claims is gone.", "queue/claim-index"), lambda p: _sql(p, p.library.lost)),
    Case(
        _defect("failing-handler", "Forty jobs fail.", "queue/failure-rate", "queue/retry-rate", *NOTED),
        lambda p: p.do("send", p.library.poison, "40"),
    ),
    Case(_defect("clock", "A job's time lies ahead.", "queue/clock"), lambda p: _sql(p, p.library.skewed)),
)


def policy_of(library: Library, case: Case, folder: Path) -> Path:
    """A gate.yaml (JSON is YAML) with the preset, and a job that the gate may enqueue."""
    probe = {"name": "mail", "queue": "mail", "payload": {"company_id": "gate"}, "within_s": WITHIN_S}
    options = {"probe": {**probe, "rate": 5, "seconds": 6}, **(case.options or {})}
    file = folder / "gate.yaml"
    file.write_text(json.dumps({"version": 1, "contract": {"preset": library.preset, "options": options}}))
    return file


def examine(library: Library, modules: Path, case: Case, output: Path) -> TrialResult:
    """What the gate says of a queue in this case."""
    output.mkdir(parents=True, exist_ok=True)
    with ground(os.environ) as place:
        program = Program(library, modules, place.database("queue"))
        program.do("setup")
        with _worker(program) as end:
            program.do("send", "mail", "60")
            until(lambda: _count(program, OPEN_JOBS) == 0, PATIENCE_S, "all jobs done", 0.2)
            case.breaks(program)
            if not case.works:
                end()
            started = time.monotonic()
            told = {"GATE_TARGET": "staging", "DATABASE_URL": program.url}
            verdict = verdict_of(policy_of(library, case, output), told, output)
    return result_of(case.defect, verdict, time.monotonic() - started)


@contextmanager
def _worker(program: Program) -> Iterator[Callable[[], None]]:
    with program.working() as worker:

        def end() -> None:
            worker.kill()
            worker.wait(timeout=10)

        yield end


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue_trials", description=__doc__)
    parser.add_argument("--preset", action="append", default=[], choices=[one.preset for one in LIBRARIES])
    parser.add_argument("--case", action="append", default=[], choices=[case.defect.id for case in CASES])
    chosen = parser.parse_args(argv)
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="replaygate-queues-") as made:
        for library in (one for one in LIBRARIES if one.preset in (chosen.preset or [one.preset])):
            modules = installed(library, Path(made))
            for case in (one for one in CASES if one.defect.id in (chosen.case or [one.defect.id])):
                result = examine(library, modules, case, Path(made) / f"{library.preset}-{case.defect.id}")
                wrong += not result.as_due
                print(f"{library.preset:16} {result.line()}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
