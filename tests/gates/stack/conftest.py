"""Fixtures: a run folder, an embedded server, and a foreign server."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gates.stack import rundir
from gates.stack.account import Account
from gates.stack.postgres import Postgres
from gates.stack.spawner import Spawner

DEBIAN_SERVER = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
def run_folder(account: Account) -> Iterator[rundir.RunFolder]:
    """A run folder in the system's temporary directory: PostgreSQL's user cannot enter pytest's own."""
    run = rundir.create(rundir.places(os.environ, account), account)
    yield run
    run.remove()


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    spawner = Spawner()
    yield spawner
    spawner.close()


@pytest.fixture
def postgres(
    run_folder: rundir.RunFolder, account: Account, spawner: Spawner, initialised: Callable[[Postgres], None]
) -> Iterator[Postgres]:
    """A running embedded server."""
    server = Postgres(run_folder, account, spawner, "5e" * 16)
    initialised(server)
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["embedded", "debian-15"])
def foreign_server(
    request: pytest.FixtureRequest,
    run_folder: rundir.RunFolder,
    account: Account,
    spawner: Spawner,
    initialised: Callable[[Postgres], None],
) -> Iterator[Postgres]:
    """Somebody else's server, of the newest and of the oldest version."""
    if request.param == "debian-15" and not DEBIAN_SERVER.is_dir():
        pytest.skip("no PostgreSQL 15 on this machine")
    programs = DEBIAN_SERVER if request.param == "debian-15" else None
    server = Postgres(run_folder, account, spawner, "f0" * 16, programs)
    initialised(server)
    server.start()
    yield server
    server.stop()
