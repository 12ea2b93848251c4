"""A database with the outbox switched on, and workers on it."""

import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.postgres_fixture import PgServer
from tests.replay_service.worker.harness import STOP_LIMIT_S, Bench, Workers


@pytest.fixture
def bench(migrated_url: str) -> Iterator[Bench]:
    """A migrated database with the outbox switched on for everybody."""
    with psycopg.connect(migrated_url, autocommit=True) as conn:
        conn.execute("INSERT INTO feature_flags (key, enabled) VALUES ('outbox.enabled', true)")
        yield Bench(conn)


@pytest.fixture
def workers(pg_server: PgServer, migrated_db: str, tmp_path: Path) -> Iterator[Workers]:
    """Starts workers that log in as replay_worker; ends them all."""
    found = Workers(pg_server.url(migrated_db, "replay_worker"), tmp_path / "worker.log")
    yield found
    for process in found.running:
        process.send_signal(signal.SIGCONT)
        process.terminate()
    for process in found.running:
        try:
            process.wait(STOP_LIMIT_S + 2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"a worker did not stop on SIGTERM\n{found.log.read_text()}")


@pytest.fixture
def any_uuid() -> str:
    return str(uuid.uuid4())
