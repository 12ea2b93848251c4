"""How many events a second the worker drains with the `sql` agent, by backlog.

The real worker process waits on an empty outbox; a backlog is committed in one transaction; measured is the time from
that commit to the last acknowledgement. Leases, row-level security, flags and pause are on; so is synchronous_commit.

    python benchmarks/worker_drain.py                    # a PostgreSQL of its own, beside the worker on this machine
    DATABASE_URL=postgresql://... python benchmarks/worker_drain.py   # a database of its own on that server
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gates.stack import rundir  # noqa: E402
from gates.stack.account import postgres_account  # noqa: E402
from gates.stack.postgres import Postgres  # noqa: E402
from gates.stack.spawner import Spawner  # noqa: E402
from replay_service.migrate import migrate  # noqa: E402

LIMIT_S = 600.0
PASSWORD = uuid.uuid4().hex
TENANTS = 20

FILL = """
INSERT INTO event_outbox (company_id, event_type, aggregate_key, payload, processed_at)
SELECT c.id, 'order.created', {key}, '{{"order": 12345, "amount": "12.50", "currency": "EUR"}}', {processed}
FROM generate_series(1, %s) AS n
JOIN (SELECT id, row_number() OVER () - 1 AS place FROM companies) AS c ON c.place = n %% {tenants}
"""


@dataclass(frozen=True)
class Measured:
    """Events a second, and microseconds of CPU an event (worker and its backends; remote ones count 0)."""

    rate: float
    cpu_us: float


@dataclass(frozen=True)
class Case:
    """One measurement: rows pending, rows already processed beside them, distinct keys a tenant (0: unordered)."""

    pending: int
    processed: int
    keys: int


@contextmanager
def server(url: str | None) -> Iterator[str]:
    """The superuser's URL of a server: the given one, or an embedded one."""
    if url:
        yield url
        return
    account = postgres_account()
    run = rundir.create(rundir.places(os.environ, account), account)
    spawner = Spawner()
    postgres = Postgres(run, account, spawner, PASSWORD)
    try:
        postgres.create()
        postgres.start()
        yield postgres.server.url("postgres")
    finally:
        postgres.stop()
        spawner.close()
        run.remove()


@contextmanager
def database(url: str) -> Iterator[tuple[str, str]]:
    """A migrated database of its own: (superuser's URL, worker's URL)."""
    name = f"drain_{uuid.uuid4().hex[:12]}"
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            own = parts._replace(path=f"/{name}").geturl()
            migrate(own)
            admin.execute(sql.SQL("ALTER ROLE replay_worker LOGIN PASSWORD {}").format(sql.Literal(PASSWORD)))
            yield own, f"{parts.scheme}://replay_worker:{PASSWORD}@{host}/{name}"
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def workers(url: str, number: int, runners: int) -> Iterator[list[int]]:
    """Worker processes that are alive: their process numbers."""
    env = {"PATH": os.environ["PATH"], "DATABASE_URL": url, "WORKER_RUNNERS": str(runners), "LOG_LEVEL": "WARNING"}
    command = [sys.executable, "-m", "replay_service", "work"]
    running = [subprocess.Popen(command, cwd=ROOT, env=env) for _ in range(number)]
    try:
        with psycopg.connect(url, autocommit=True) as conn:
            wait(conn, f"SELECT count(*) >= {number} FROM worker_heartbeats")
        yield [process.pid for process in running]
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(10)


def wait(conn: psycopg.Connection, condition: str) -> None:
    """Poll a condition at a rate that costs the server nothing."""
    deadline = time.monotonic() + LIMIT_S
    while conn.execute(condition.encode()).fetchone() != (True,):
        if time.monotonic() > deadline:
            sys.exit(f"not within {LIMIT_S} s: {condition}")
        time.sleep(0.1)


def fill(conn: psycopg.Connection, case: Case, rows: int, processed: str) -> None:
    key = f"'k' || n / {TENANTS} % {case.keys}" if case.keys else "NULL"
    conn.execute(FILL.format(key=key.replace("%", "%%"), processed=processed, tenants=TENANTS).encode(), (rows,))


def cpu_s(pids: list[int]) -> float:
    """Processor seconds used so far by processes of this machine (proc(5): utime and stime)."""
    ticks = 0
    for pid in pids:
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def backends(conn: psycopg.Connection) -> list[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'replay-worker' AND datname = current_database()"
    return [row[0] for row in conn.execute(query).fetchall()]


def measure(url: str, case: Case, number: int, runners: int) -> Measured:
    """One round on a database of its own."""
    with database(url) as (own, worker_url), psycopg.connect(own, autocommit=True) as conn:
        conn.execute("INSERT INTO feature_flags (key, enabled) VALUES ('outbox.enabled', true)")
        conn.execute(f"INSERT INTO companies (name) SELECT 'load-' || n FROM generate_series(1, {TENANTS}) n".encode())
        if case.processed:
            fill(conn, case, case.processed, "now()")
            conn.execute(
                "INSERT INTO agent_tasks (company_id, agent_name, event_id, status)"
                " SELECT company_id, 'sql', event_id, 'completed' FROM event_outbox"
            )
            conn.execute("VACUUM ANALYZE event_outbox, agent_tasks")
        conn.execute("CHECKPOINT")
        with workers(worker_url, number, runners) as started:
            processes = [*started, *backends(conn)]
            used = cpu_s(processes)
            fill(conn, case, case.pending, "NULL::timestamptz")
            row = conn.execute("SELECT clock_timestamp()").fetchone()
            assert row is not None
            wait(conn, "SELECT NOT EXISTS (SELECT FROM event_outbox WHERE processed_at IS NULL AND dead_at IS NULL)")
            used = cpu_s(processes) - used
            took = conn.execute(
                "SELECT extract(epoch FROM max(processed_at) - %s)::float8,"
                " (SELECT count(*) FROM agent_tasks WHERE status = 'completed') FROM event_outbox",
                (row[0],),
            ).fetchone()
        assert took is not None
        if took[1] != case.pending + case.processed:
            sys.exit(f"{took[1]} effects, expected {case.pending + case.processed}")
        return Measured(case.pending / float(took[0]), used / case.pending * 1e6)


def main() -> None:
    """Print the median of the rounds for every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pending", default="10000,100000,1000000", help="backlogs, comma-separated")
    parser.add_argument("--processed", default="0,1000000", help="processed rows beside them, comma-separated")
    parser.add_argument("--keys", type=int, default=5000, help="distinct aggregate keys a tenant; 0 is unordered")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--runners", type=int, default=2, help="connections a worker")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with server(os.environ.get("DATABASE_URL")) as url:
        with psycopg.connect(url) as conn:
            print("server", conn.info.server_version, conn.execute("SHOW synchronous_commit").fetchone())
        for processed in (int(n) for n in options.processed.split(",")):
            for pending in (int(n) for n in options.pending.split(",")):
                case = Case(pending, processed, options.keys)
                rates = [measure(url, case, options.workers, options.runners) for _ in range(options.rounds)]
                listed = " ".join(f"{one.rate:,.0f}" for one in rates)
                cpu_us = statistics.median(one.cpu_us for one in rates)
                print(
                    f"pending {pending:>9,} processed {processed:>9,} keys {options.keys}: "
                    f"median {statistics.median(one.rate for one in rates):>8,.0f} events/s  ({listed}), "
                    f"{cpu_us:.1f} us of CPU an event",
                    flush=True,
                )


if __name__ == "__main__":
    main()
