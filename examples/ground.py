"""The surroundings of an example: an embedded PostgreSQL, npm packages from a cache, programs that end with it."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from gates.stack import rundir
from gates.stack.account import postgres_account
from gates.stack.postgres import Postgres, Server, connect
from gates.stack.service import Supervised
from gates.stack.spawner import Program, Spawner, tail

HERE = Path(__file__).parent
NPM_TIMEOUT_S = 300.0
BUILD_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 30.0
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR")


class ExampleError(Exception):
    """An example could not be brought up."""


@dataclass
class Ground:
    """A run folder with a server in it. Everything started here ends, and is deleted, with the `with` block."""

    run: rundir.RunFolder
    server: Server
    environ: Mapping[str, str]
    spawner: Spawner = field(repr=False)
    exit: ExitStack = field(repr=False)
    programs: list[Supervised] = field(default_factory=list)

    def database(self, name: str) -> str:
        """A new, empty database; its URL as superuser."""
        with connect(self.server.url("postgres")) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        return self.server.url(name)

    def login(self, database: str, role: str) -> str:
        """A new role that may log in and holds nothing; the URL with it."""
        password = secrets.token_hex(16)
        with connect(self.server.url("postgres")) as connection:
            connection.execute(
                sql.SQL("create role {} login noinherit password {}").format(
                    sql.Identifier(role), sql.Literal(password)
                )
            )
        return self.server.url(database, role, password)

    def source(self, name: str, patches: Sequence[Patch] = (), folder: str = "") -> Path:
        """A copy of an example's folder with its npm packages beside it, and with these patches in it."""
        copy = self.run.path / (folder or name)
        shutil.copytree(HERE / name, copy)
        for patch in patches:
            patch.apply(copy)
        (copy / "node_modules").symlink_to(packages(HERE / name, self.environ) / "node_modules")
        return copy

    def build(self, source: Path, *entries: str) -> None:
        """Compile TypeScript to `dist/`, one file an entry."""
        command = (
            *("node_modules/.bin/esbuild", *entries, "--bundle", "--platform=node", "--format=esm"),
            *("--packages=external", "--outdir=dist", "--log-level=warning"),
        )
        _finished(command, source, BUILD_TIMEOUT_S, self._variables({}))

    def start(self, name: str, command: Sequence[str], cwd: Path, variables: Mapping[str, str]) -> Supervised:
        """Start a program that ends with this ground."""
        program = Program(tuple(command), cwd, self.run.logs / f"{name}.log", self._variables(variables))
        started = Supervised(name, program, self.spawner)
        started.start()
        self.programs.append(started)
        self.exit.callback(started.stop)
        self.exit.callback(started.terminate)
        self.run.record((p.name, p.pid) for p in self.programs if p.pid)
        return started

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Poll until it is so. Raise ExampleError with the ends of the logs after READY_TIMEOUT_S."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not ready():
            ended = [p.name for p in self.programs if p.pid is None]
            if ended or time.monotonic() > deadline:
                logs = "\n".join(f"--- {p.name}\n{tail(p.log)}" for p in self.programs)
                raise ExampleError(f"{what}: not so after {READY_TIMEOUT_S:.0f} s; ended: {ended or 'none'}\n{logs}")
            time.sleep(0.05)

    def _variables(self, more: Mapping[str, str]) -> dict[str, str]:
        return {name: self.environ[name] for name in KEPT_VARIABLES if name in self.environ} | dict(more)


@dataclass(frozen=True, slots=True)
class Patch:
    """A change of one place in one file of an example: `find` must be there exactly once."""

    file: str
    find: str
    replace: str

    def apply(self, folder: Path) -> None:
        path = folder / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.find) != 1:
            raise ExampleError(f"{self.file} has {text.count(self.find)} times {self.find!r}; allowed: once")
        path.write_text(text.replace(self.find, self.replace), encoding="utf-8")


@contextmanager
def ground(environ: Mapping[str, str]) -> Iterator[Ground]:
    """A fresh server, and what is started on it, for the time of a `with` block."""
    with ExitStack() as exits:
        account = postgres_account()
        places = rundir.places(environ, account)
        rundir.sweep(places)
        run = rundir.create(places, account)
        exits.callback(run.remove)
        spawner = Spawner()
        exits.callback(spawner.close)
        postgres = Postgres(run, account, spawner, secrets.token_hex(16))
        exits.callback(postgres.stop)
        postgres.create()
        yield Ground(run, postgres.start(), environ, spawner, exits)


def packages(folder: Path, environ: Mapping[str, str]) -> Path:
    """The folder whose `node_modules` holds what package.json asks for: installed once, in the user's cache."""
    lock = folder / "package-lock.json"
    wanted = (folder / "package.json").read_bytes() + lock.read_bytes()
    home = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/tmp")) / ".cache")  # noqa: S108  -- no secret is kept there
    kept = home / "replaygate" / "examples" / f"{folder.name}-{hashlib.sha256(wanted).hexdigest()[:12]}"
    if not (kept / "node_modules").is_dir():
        fresh = kept.with_name(f"{kept.name}.{os.getpid()}")
        fresh.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(folder / name, fresh / name)
        _finished(("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"), fresh, NPM_TIMEOUT_S, environ)
        if kept.is_dir():
            shutil.rmtree(fresh)
        else:
            fresh.rename(kept)
    return kept


def run_sql(url: str, *scripts: str, role: str = "", settings: Mapping[str, str] | None = None) -> None:
    """Run SQL scripts in one transaction, as a role if one is named."""
    with psycopg.connect(url, connect_timeout=5) as connection:
        for name, value in (settings or {}).items():
            connection.execute("select set_config(%s, %s, true)", (name, value))
        if role:
            connection.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
        for script in scripts:
            connection.execute(script.encode())


def _finished(command: Sequence[str], cwd: Path, timeout_s: float, environ: Mapping[str, str]) -> None:
    try:
        ended = subprocess.run(
            command, cwd=cwd, env=dict(environ), timeout=timeout_s, capture_output=True, text=True, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExampleError(f"{' '.join(command[:2])}: {error}. Node.js 20 and npm are needed") from error
    if ended.returncode != 0:
        raise ExampleError(f"{' '.join(command[:2])} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
