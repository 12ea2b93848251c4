"""Other PostgreSQL servers for a deployment: another version, or one with a replica that lags."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gates.proof.workbench.bench import ProofBench
from gates.stack import rundir
from gates.stack.account import postgres_account
from gates.stack.errors import StackError
from gates.stack.postgres import Postgres, connect
from gates.stack.procfs import wait_until
from gates.stack.spawner import Program, Spawner

DEBIAN = Path("/usr/lib/postgresql")
PASSWORD = "5e" * 16
BEHIND_S = 5
STREAMING = {"wal_level": "replica", "max_wal_senders": "10", "hot_standby": "on"}
FAKETIME, CLOCK = "libfaketime.so.1", "clock"
AT_WORK_S = 20.0
"""When the drills are running, in seconds after the start of the gate."""
REPLICATION = "host replication all 127.0.0.1/32 scram-sha-256\n"


def no_variables(_bench: ProofBench) -> Mapping[str, str]:
    """No further variables for the gate."""
    return {}


@dataclass(frozen=True, slots=True)
class Around:
    """The surroundings of a deployment: options of its stack, the gate's variables, the URL of a replica."""

    options: Mapping[str, Any] = field(default_factory=dict)
    told: Callable[[ProofBench], Mapping[str, str]] = no_variables
    replica: str = field(default="", repr=False)


Stand = Callable[[], AbstractContextManager[Around]]


def lacking(version: int) -> str:
    """Why there is no such server on this machine; empty if there is one."""
    return "" if (DEBIAN / str(version) / "bin" / "initdb").is_file() else f"PostgreSQL {version} is not installed"


@contextmanager
def version(number: int) -> Iterator[Around]:
    """A server of that major version, from the distribution's packages."""
    with _room() as made:
        server = made(DEBIAN / str(number) / "bin")
        server.create()
        yield Around({"server": server.start().url("postgres")})


@contextmanager
def replica(*, asked: bool) -> Iterator[Around]:
    """A server with a replica that lags by seconds. asked: the gate uses it. Else it gets both; the primary counts."""
    with _room() as made:
        first, second = made(None), made(None)
        first.create()
        _append(first, "postgresql.conf", "".join(f"{k} = '{v}'\n" for k, v in STREAMING.items()))
        _append(first, "pg_hba.conf", REPLICATION)
        shutil.copytree(first.data, second.data)
        url = first.start().url("postgres")
        parts = urlsplit(url)
        info = f"host={parts.hostname} port={parts.port} user={parts.username} password={parts.password}"
        follow = {"primary_conninfo": info, "recovery_min_apply_delay": f"{BEHIND_S}s"}
        _append(second, "postgresql.conf", "".join(f"{k} = '{v}'\n" for k, v in follow.items()))
        _append(second, "standby.signal", "")
        _own(second.data.parent, first.data.parent)
        late = second.start()

        def told(bench: ProofBench) -> Mapping[str, str]:
            _follow(url, late.url("postgres"))
            place = urlsplit(bench.variables()["DATABASE_URL"])
            login, _, own = place.netloc.rpartition("@")
            late_one = place._replace(netloc=f"{login}@{late.host}:{late.port}")
            both = place._replace(netloc=f"{late_one.netloc},{own}", query="target_session_attrs=read-write")
            return {"DATABASE_URL": (late_one if asked else both).geturl()}

        yield Around({"server": url}, told, late.url("postgres"))


class _Deceived(Postgres):
    """A server whose wall clock is shifted by the contents of its file CLOCK; monotonic clocks are not."""

    def _program(self, *command: str) -> Program:
        program = super()._program(*command)
        if not command[0].endswith("postgres"):
            return program
        told = [f"LD_PRELOAD={faketime()}", f"FAKETIME_TIMESTAMP_FILE={self.data.parent / CLOCK}"]
        told += ["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_DISABLE_SHM=1"]
        return replace(program, command=("/usr/bin/env", *told, *program.command))


def faketime() -> Path | None:
    """The library that fakes a process's time; None if it is not installed."""
    return next(Path("/usr/lib").glob(f"*/faketime/{FAKETIME}"), None)


def no_faketime() -> str:
    """Why no clock can be set here; empty if it can."""
    return "" if faketime() else "faketime is not installed"


@contextmanager
def stepping(seconds: float, after_s: float = AT_WORK_S) -> Iterator[Around]:
    """A server whose clock is set by so many seconds, so long after the start of the gate."""
    with _room(_Deceived) as made:
        server = made(None)
        server.create()
        clock = server.data.parent / CLOCK
        clock.write_text("+0\n", encoding="ascii")
        clock.chmod(0o644)
        url = server.start().url("postgres")
        step = threading.Timer(after_s, clock.write_text, (f"{seconds:+g}\n",))

        def told(_bench: ProofBench) -> Mapping[str, str]:
            step.start()
            return {}

        try:
            yield Around({"server": url}, told)
        finally:
            step.cancel()


def _follow(first: str, late: str) -> None:
    """Wait until the replica has what the server has now. Raise StackError after twice its delay."""
    with connect(first) as there, connect(late) as here:
        place = there.execute("select pg_current_wal_lsn()::text").fetchone()
        there_by_now = "select pg_last_wal_replay_lsn() >= %s::pg_lsn"
        if not wait_until(lambda: here.execute(there_by_now, place).fetchone() == (True,), 2.0 * BEHIND_S, 0.1):
            raise StackError(f"the replica does not follow: {2 * BEHIND_S} s later it has not what was written")


@contextmanager
def _room(kind: type[Postgres] = Postgres) -> Iterator[Callable[[Path | None], Postgres]]:
    """Creates servers that end with the block; of the embedded version, or from the programs in a folder."""
    with ExitStack() as stack:
        account = postgres_account()
        spawner = Spawner()
        stack.callback(spawner.close)

        def made(folder: Path | None) -> Postgres:
            run = rundir.create(rundir.places({}, account), account)
            stack.callback(run.remove)
            server = kind(run, account, spawner, PASSWORD, folder)
            stack.callback(server.stop)
            return server

        yield made


def _append(server: Postgres, name: str, text: str) -> None:
    with (server.data / name).open("a", encoding="utf-8") as out:
        out.write(text)


def _own(folder: Path, like: Path) -> None:
    """Give the folder and its contents the owner of another."""
    owner = like.stat()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
        if path.is_dir():
            path.chmod(0o700)
