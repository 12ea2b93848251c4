"""Workers as processes, and shorthands for what the tests plant in a database and look at."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.waiting import until

ROOT = Path(__file__).parents[3]
START_LIMIT_S = 15.0
STOP_LIMIT_S = 5.0


@dataclass
class Bench:
    """The database under test, as the superuser, with shorthands for what the tests plant and look at."""

    conn: psycopg.Connection

    def one(self, query: str, *args: Any) -> Any:
        row = self.conn.execute(query.encode(), args).fetchone()
        return row[0] if row and len(row) == 1 else row

    def all(self, query: str, *args: Any) -> list[Any]:
        return [r[0] if len(r) == 1 else r for r in self.conn.execute(query.encode(), args).fetchall()]

    def company(self, name: str = "drill-worker") -> str:
        return str(self.one("INSERT INTO companies (name) VALUES (%s) RETURNING id", name))

    def emit(
        self, company: str, *, key: str | None = None, script: Mapping[str, int] | None = None, **columns: Any
    ) -> str:
        """Insert one outbox row, a scripted one where `script` is given; returns its event id."""
        columns |= {
            "company_id": company,
            "aggregate_key": key,
            "event_type": "drill.step" if script is not None else "order.created",
            "payload": json.dumps({"drill": script} if script is not None else {"n": 1}),
        }
        names = ", ".join(columns)
        marks = ", ".join(["%s"] * len(columns))
        query = f"INSERT INTO event_outbox ({names}) VALUES ({marks}) RETURNING event_id"
        return str(self.one(query, *columns.values()))

    def start_run(self, company: str, scripts: Sequence[Mapping[str, int]]) -> str:
        """What the service does for a replay: one dead letter an item, a run, outbox rows, the budget."""
        with self.conn.transaction():
            letters = [
                self.one(
                    "INSERT INTO dead_letter_queue (company_id, event_id, event_type, payload, error_type, status)"
                    " VALUES (%s, gen_random_uuid(), 'drill.step', %s, 'planted', 'replaying') RETURNING id",
                    *(company, json.dumps({"drill": script})),
                )
                for script in scripts
            ]
            run = self.one(
                "INSERT INTO replay_runs (company_id, actor, target_count, budget_charged, request_id)"
                " VALUES (%s, 'tester', %s, %s, 'req-1') RETURNING id",
                *(company, len(scripts), len(scripts)),
            )
            self.conn.execute(
                "INSERT INTO replay_budgets AS b (company_id, daily_used, monthly_used) VALUES (%s, %s, %s)"
                " ON CONFLICT (company_id) DO UPDATE SET daily_used = b.daily_used + excluded.daily_used,"
                " monthly_used = b.monthly_used + excluded.monthly_used",
                (company, len(scripts), len(scripts)),
            )
            self.conn.execute(
                "INSERT INTO event_outbox (event_id, company_id, event_type, payload, replay_run_id, dlq_id)"
                " SELECT event_id, company_id, event_type, payload, %s, id FROM dead_letter_queue"
                " WHERE id = ANY(%s) ORDER BY array_position(%s, id)",
                (run, letters, letters),
            )
        return str(run)

    def run_status(self, run: str) -> Any:
        return self.one("SELECT status, success_count, failure_count FROM replay_runs WHERE id = %s", run)

    def settled(self) -> bool:
        """Whether no outbox row is unfinished."""
        return not self.one("SELECT count(*) FROM event_outbox WHERE processed_at IS NULL AND dead_at IS NULL")


@dataclass
class Workers:
    """Worker processes of a test."""

    url: str
    log: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        with psycopg.connect(self.url, autocommit=True) as conn, self.log.open("ab") as log:
            before = _hearts(conn)
            env = {"PATH": os.environ["PATH"], "DATABASE_URL": self.url, "WORKER_POLL_S": "0.05", **environment}
            command = [sys.executable, "-m", "replay_service", "work", *arguments]
            process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=log)
            self.running.append(process)
            until(lambda: _hearts(conn) > before or process.poll() is not None, START_LIMIT_S, "a heartbeat")
        assert process.poll() is None, self.log.read_text()
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End it by SIGKILL."""
        process.kill()
        process.wait(STOP_LIMIT_S)
        self.running.remove(process)


def _hearts(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT count(*) FROM worker_heartbeats").fetchone()
    return int(row[0]) if row else 0
