"""The reference service and its worker as processes: N instances share one socket, N workers share the outbox."""

import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gates.stack.errors import StackError
from gates.stack.rundir import RunFolder
from gates.stack.spawner import OwnProcess, Program, Spawner, stop, tail

SOURCE_ROOT = Path(__file__).resolve().parents[2]
"""The folder of the package `replay_service`, installed or not."""
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
"""What children get of the user's environment: nothing of PostgreSQL's (PGOPTIONS, PGSERVICE...) and no secret."""
MODULE, IMPORTED = "replay_service", ("app", "migrate", "worker.process")
"""What a fork of the reference has imported already: its three programs."""
BASE_PATH = "/functions/v1"
BACKLOG = 1024
MIGRATE_TIMEOUT_S = 60.0
STOP_STEPS = ((signal.SIGTERM, 5.0),)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The settings of the service: every value goes into its environment, none into its arguments."""

    variables: Mapping[str, str]
    service_url: str
    worker_url: str
    serve_arguments: tuple[str, ...] = ()
    work_arguments: tuple[str, ...] = ()
    source: Path = SOURCE_ROOT


def module_path(environ: Mapping[str, str], source: Path = SOURCE_ROOT) -> dict[str, str]:
    """The module search path of a child: first `source`, the folder of its package `replay_service`."""
    path = [str(source), str(SOURCE_ROOT), *filter(None, environ.get("PYTHONPATH", "").split(":"))]
    return {"PYTHONPATH": ":".join(dict.fromkeys(path))}


def child_environ(environ: Mapping[str, str], more: Mapping[str, str], source: Path = SOURCE_ROOT) -> dict[str, str]:
    """The environment of a child: a few of our variables, the module search path, and its settings."""
    kept = {name: environ[name] for name in KEPT_VARIABLES if name in environ}
    path = module_path(environ, source)
    return {**kept, **path, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", **more}


def listen() -> socket.socket:
    """The socket that all instances share, on a free loopback port. It outlives each instance, so clients wait during a
    restart and are not refused.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(BACKLOG)
    return sock


def fork(run: RunFolder, spawner: Spawner, environ: Mapping[str, str], source: Path = SOURCE_ROOT) -> None:
    """Have the spawner fork the programs of the reference."""
    like = Program((), run.path, run.logs / "forks.log", child_environ(environ, {}, source))
    spawner.fork_from(like, MODULE, *(f"{MODULE}.{name}" for name in IMPORTED))


def migrate(
    run: RunFolder, spawner: Spawner, environ: Mapping[str, str], owner_url: str, source: Path = SOURCE_ROOT
) -> None:
    """Run `python -m replay_service migrate`. Raise StackError with the end of its log if it fails."""
    log = run.logs / "migrate.log"
    process = spawner.start(
        Program(
            (sys.executable, "-m", MODULE, "migrate"),
            run.path,
            log,
            child_environ(environ, {"DATABASE_URL": owner_url}, source),
        )
    )
    try:
        code = process.wait(timeout=MIGRATE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        code = stop(process, STOP_STEPS)
    if code != 0:
        raise StackError(
            f"The migrations ended with exit code {code}; allowed: 0 within {MIGRATE_TIMEOUT_S:.0f} s; "
            f"in `python -m replay_service migrate`. Its log says:\n{tail(log)}"
        )


class Supervised(OwnProcess):
    """One service or worker process: started, signalled, restarted. It never restarts by itself: what a drill or a user
    breaks stays broken until somebody mends it.
    """

    def __init__(self, name: str, program: Program, spawner: Spawner) -> None:
        self.name, self.log = name, program.log
        self._program = self._own = program
        self._spawner = spawner
        self._is_disturbed = False

    def start(self) -> None:
        self._process = self._spawner.start(skewed(self._program, self.clock_s))

    def signal(self, signal_number: int) -> None:
        """Signal it; with SIGKILL wait until it is gone."""
        self._is_disturbed = True
        super().signal(signal_number)

    def restart(self, clock_s: float = 0.0) -> None:
        program = skewed(self._program, clock_s)
        self.signal(signal.SIGKILL)
        self.clock_s = clock_s
        self._process = self._spawner.start(program)
        self._is_disturbed = clock_s != 0

    def restart_as(self, arguments: Sequence[str], variables: Mapping[str, str]) -> None:
        """Restart it with these arguments and variables added to its own, now and at later restarts. Empty ones restore
        the original program. A process that already runs so, and was never signalled, is left alone.
        """
        own = self._own
        program = replace(own, command=(*own.command, *arguments), environ={**own.environ, **variables})
        if program != self._program or self.pid is None or self._is_disturbed:
            self._program = program
            self.restart()

    def terminate(self) -> None:
        """Ask it to stop, and do not wait."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Stop it within 5 s, or kill it."""
        if self._process:
            stop(self._process, STOP_STEPS)


def skewed(program: Program, clock_s: float) -> Program:
    """The program with its clock shifted by so many seconds (`skewed.py`). Raise StackError for an impossible time."""
    if clock_s == 0:
        return program
    python, option, *rest = program.command
    if (python, option) != (sys.executable, "-m"):
        raise StackError(
            f"{Path(python).name} was asked to run with its clock wrong by {clock_s:g} s; allowed: for modules that "
            "this Python runs; in the control door. Ask it of a service or a worker"
        )
    return replace(program, command=(python, "-m", "gates.stack.skewed", repr(clock_s), *rest))


def service_process(
    index: int, run: RunFolder, spawner: Spawner, environ: Mapping[str, str], wanted: Wanted, sock: socket.socket
) -> Supervised:
    """Instance `index` on the shared socket."""
    fd = sock.fileno()
    serve = (sys.executable, "-m", MODULE, "serve", "--fd", str(fd), "--base-path", BASE_PATH)
    command = (*serve, *wanted.serve_arguments)
    told = child_environ(environ, {**wanted.variables, "DATABASE_URL": wanted.service_url}, wanted.source)
    name = f"service-{index}"
    return Supervised(name, Program(command, run.path, run.logs / f"{name}.log", told, fds=(fd,)), spawner)


def worker_process(
    index: int, run: RunFolder, spawner: Spawner, environ: Mapping[str, str], wanted: Wanted
) -> Supervised:
    command = (sys.executable, "-m", MODULE, "work", *wanted.work_arguments)
    told = child_environ(environ, {**wanted.variables, "DATABASE_URL": wanted.worker_url}, wanted.source)
    name = f"worker-{index}"
    return Supervised(name, Program(command, run.path, run.logs / f"{name}.log", told), spawner)
