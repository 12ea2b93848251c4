"""How the SQL stage grows with its data: writes a history of N rows, runs every check, prints a table.

    DATABASE_URL=... python benchmarks/sql_stage.py --rows 10000 --rows 1000000

DATABASE_URL names a server on which it may make databases. The rate is the same for every N, one event in three
seconds: a longer history reaches further back. Audit rows before the last 12,000 are written without their trigger,
with heads that fit; the last 12,000 are chained, half of them of one scope, the others of all in turn.

Written are N audit, event, processed outbox and task rows, and N/10 dead letters. On 2 cores with PostgreSQL 18 and 200
tenants, all checks take 154 ms at 10^4 rows and 211 ms at 10^7; from a checkpoint 118 and 143.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gates.checks.observation import Observer, Unmet
from gates.decision.cohorts import CohortLimits
from gates.deployment.target import Target
from gates.evidence import TargetKind
from gates.stack import seed
from replay_service.migrate import migrate
from sql_checks import checkpoint
from sql_checks.cohorts.run import METRICS, OUTBOX_FLAG, CohortLook, judge_cohorts, judge_share, told
from sql_checks.rules.file import read_all_rules
from sql_checks.rules.run import judge_rule
from sql_checks.spotfile import read_folder
from sql_checks.spotrun import judge_spot
from sql_checks.sqlsession import SqlSession
from sql_checks.trail import open_trail

COMPANY = "00000000-0000-4000-8000-000000000004"
CHUNK = 500_000
STATEMENTS = Path(__file__).with_suffix(".sql")


def statements(name: str) -> bytes:
    """The statements of one section of sql_stage.sql."""
    sections = STATEMENTS.read_text(encoding="utf-8").split("-- name: ")
    return next(body for title, _, body in (s.partition("\n") for s in sections) if title == name).encode()


def fill(url: str, rows: int, tenants: int = 200) -> None:
    """Write a history of `rows` outbox, task and audit rows and a tenth as many dead letters to a migrated database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        connection.execute("set maintenance_work_mem = '1GB'")
        connection.execute("select set_config('bench.tenants', %s, false)", (str(tenants),))
        connection.execute(statements("setup"))
        again = _without_indexes(connection)
        for low in range(1, rows + 1, CHUNK):
            bounds = {"rows": rows, "low": low, "high": min(low + CHUNK - 1, rows)}
            for key, value in bounds.items():
                connection.execute("select set_config(%s, %s, false)", (f"bench.{key}", str(value)))
            connection.execute(statements("chunk"))
        for statement in again:
            connection.execute(statement.encode())
        connection.execute(statements("finish"))
    seed.write(url, COMPANY)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("vacuum (analyze)")


def _without_indexes(connection: psycopg.Connection) -> list[str]:
    """Drop the indexes of the tables that are filled but their primary keys; the statements that make them again."""
    again: list[str] = []
    for drop, make in connection.execute(statements("indexes")).fetchall():
        connection.execute(str(drop).encode())
        again.append(str(make))
    return again


@dataclass(frozen=True, slots=True)
class Measured:
    """One check, the best of five: milliseconds, and those of CPU of its server process (NaN where that is far)."""

    name: str
    ms: float
    cpu_ms: float
    outcome: str


def measure(url: str, state: Path | None = None) -> list[Measured]:
    """Every check; as of a first run, or going on from `state`."""
    session = SqlSession(url, settings=told(OUTBOX_FLAG, "10,50,100", CohortLimits()))
    try:
        if state is not None:
            trail = open_trail(session, state)
            if trail.reached is not None and trail.before is None:
                checkpoint.write(trail.path, trail.reached, None)
                session.give(trail.reached.settings())
        return [
            *(_timed(s.spec.id, partial(judge_spot, s, session), session) for s in read_folder()),
            *(_timed(r.spec.id, partial(judge_rule, r, session), session) for r in read_all_rules()),
            _timed("cohort/*, one look", partial(_compare, session), session),
        ]
    finally:
        session.close()


def _compare(session: SqlSession, observer: Observer) -> None:
    """What all checks of cohorts ask for, and the judgement of each of them."""
    look = CohortLook(session, OUTBOX_FLAG, CohortLimits())
    for metric in METRICS.values():
        with contextlib.suppress(Unmet, AssertionError):
            judge_cohorts(metric, look, observer)
    judge_share(look, observer)


def _timed(name: str, judge: Callable[[Observer], None], session: SqlSession) -> Measured:
    best, best_cpu, outcome = float("inf"), float("inf"), ""
    pid = session.connection.info.backend_pid
    for _ in range(5):
        began, cpu = time.perf_counter(), _cpu_ms(pid)
        try:
            judge(Observer(Target(TargetKind.REFERENCE)))
            outcome = "pass"
        except Unmet as error:
            outcome = f"unknown: {error}"
        except AssertionError as error:
            outcome = f"fail: {error}"
        best = min(best, (time.perf_counter() - began) * 1000)
        best_cpu = min(best_cpu, _cpu_ms(pid) - cpu)
    return Measured(name, best, best_cpu, outcome)


def _cpu_ms(pid: int) -> float:
    """Milliseconds that a process ran on a CPU; what it waits for one on a busy machine does not count."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e6
    except (OSError, ValueError, IndexError):
        return float("nan")


def database(server: str, name: str) -> str:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"drop database if exists {name} with (force)".encode())
        connection.execute(f"create database {name}".encode())
    return psycopg.conninfo.make_conninfo(server, dbname=name)


def _report(run: str, measured: list[Measured], slowest: int) -> None:
    found = sorted(measured, key=lambda one: -one.ms)
    total, cpu = sum(one.ms for one in found), sum(one.cpu_ms for one in found)
    sys.stdout.write(f" {run}: {len(found)} checks in {total:.0f} ms, {cpu:.0f} ms of CPU\n")
    for one in found[:slowest]:
        sys.stdout.write(f"  {one.ms:8.1f} ms {one.cpu_ms:8.1f} ms of CPU  {one.name}\n")
    for one in found:
        if one.outcome != "pass":
            sys.stdout.write(f"  not passed: {one.name}: {one.outcome[:300]}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, action="append", required=True)
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument("--slowest", type=int, default=5)
    options = parser.parse_args()
    server = os.environ["DATABASE_URL"]
    for rows in options.rows:
        url = database(server, f"sql_stage_{rows}")
        migrate(url)
        began = time.perf_counter()
        fill(url, rows, options.tenants)
        sys.stdout.write(f"\n{rows} rows, written in {time.perf_counter() - began:.0f} s\n")
        with tempfile.TemporaryDirectory() as state:
            _report("without a checkpoint", measure(url), options.slowest)
            _report("from a checkpoint", measure(url, Path(state)), options.slowest)
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"drop database sql_stage_{rows} with (force)".encode())


if __name__ == "__main__":
    main()
