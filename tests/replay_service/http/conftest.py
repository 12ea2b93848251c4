"""Fixtures of the HTTP tests: one service process on one migrated database a module, and tenants of a test's own."""

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator

import httpx
import psycopg
import pytest

from gates.stack.postgres import free_port
from tests.postgres_fixture import TEMPLATE, PgServer, sql_at
from tests.replay_service.http.service_process import BASE_PATH, ENVIRONMENT, Service, rolled_out


@pytest.fixture(scope="module")
def database(pg_server: PgServer) -> Iterator[str]:
    """The name of a migrated database that the tests of a module share."""
    with pg_server.database(TEMPLATE) as name:
        yield name


@pytest.fixture(scope="module")
def start_service(
    pg_server: PgServer, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Service]]:
    """Start service processes on the module's database; each is stopped at the end and has to exit 0."""
    running: list[Service] = []

    def start(*arguments: str, listener: socket.socket | None = None, **environment: str) -> Service:
        """`listener`: a socket that it inherits; else it opens a port of its own."""
        port = listener.getsockname()[1] if listener else free_port()
        place = ("--fd", str(listener.fileno())) if listener else ("--port", str(port))
        log = tmp_path_factory.mktemp("service") / "stderr.log"
        variables = {"DATABASE_URL": pg_server.url(database, "replay_service"), **ENVIRONMENT, **environment}
        words = [sys.executable, "-m", "replay_service", "serve", *place, "--base-path", BASE_PATH, *arguments]
        with log.open("wb") as stderr:
            fds = (listener.fileno(),) if listener else ()
            process = subprocess.Popen(words, env={**os.environ, **variables}, stderr=stderr, pass_fds=fds)
        service = Service(process, f"http://127.0.0.1:{port}{BASE_PATH}", port, log, pg_server.url(database))
        running.append(service)
        service.wait_alive()
        return service

    yield start
    for service in running:
        service.stop()


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Service]) -> Service:
    """The module's service, with the flags of a fully rolled-out deployment."""
    found = rolled_out(start_service())
    sql_at(found.database_url, "INSERT INTO worker_heartbeats (worker_id) VALUES ('test')")
    return found


@pytest.fixture
def db(service: Service) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A superuser's connection in autocommit mode."""
    with psycopg.connect(service.database_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=15) as client:
        yield client


@pytest.fixture
def company(db: psycopg.Connection[tuple[object, ...]]) -> str:
    """A tenant of the test's own."""
    company_id = str(uuid.uuid4())
    db.execute("INSERT INTO companies (id, name) VALUES (%s, %s)", [company_id, f"drill-{time.time_ns()}"])
    return company_id
