"""Starts programs that die with us: through `launch.py`, from one thread that lives as long as the stack.

The kernel sends the parent-death signal when the *thread* that started the child ends, so no short-lived thread (a
control connection, a test's helper) may start one.
"""

import os
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from gates.stack.account import Account
from gates.stack.forks import ROOM, ForkServer, StartedProgram

LAUNCHER = Path(__file__).with_name("launch.py")
SPAWN_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Program:
    """What to start. `log` takes stdout and stderr; `fds` are inherited; `account`: the user to run as."""

    command: tuple[str, ...]
    cwd: Path
    log: Path
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    account: Account | None = None
    fds: tuple[int, ...] = ()
    death_signal: int = signal.SIGKILL


class Spawner:
    """Starts programs. Each gets a session of its own, so a Ctrl-C at the terminal reaches only us."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stack-spawner")
        self._forks: ForkServer | None = None

    def fork_from(self, like: Program, module: str, *imported: str) -> None:
        """From now on start programs of this module as forks of one process, which imports these modules meanwhile.
        `like`: such a program; those that have another module search path are started as others are.
        """
        asking, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with asked:
            words = (sys.executable, "-m", "gates.stack.forks", str(asked.fileno()), ROOM, *imported)
            environ = {**like.environ, "ROOM": ROOM}
            process = self.start(replace(like, command=words, environ=environ, fds=(asked.fileno(),)))
        self._forks = ForkServer(process, asking, module, like.environ.get("PYTHONPATH", ""))

    def start(self, program: Program) -> StartedProgram:
        """Start it and return at once. Raise OSError if the launcher cannot start."""
        return self._thread.submit(_start, program, self._forks).result(timeout=SPAWN_TIMEOUT_S)

    def close(self) -> None:
        """End the thread, which kills every program that still runs."""
        if self._forks:
            self._forks.close()
        self._thread.shutdown()


def _start(program: Program, forks: ForkServer | None) -> StartedProgram:
    other = program.account is not None and program.account.other
    uid, gid = (program.account.uid, program.account.gid) if program.account and other else (-1, -1)
    launcher: Sequence[str] = (
        *(sys.executable, "-I", "-S", str(LAUNCHER)),
        *(str(n) for n in (os.getpid(), int(program.death_signal), uid, gid)),
        *program.command,
    )
    log = os.open(program.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        if forks and forks.can(program.command, program.environ):
            with suppress(ConnectionError):  # somebody killed it
                return forks.start(program.command[2:], str(program.cwd), program.environ, log, program.fds)
        return subprocess.Popen(
            launcher,
            cwd=program.cwd,
            env=dict(program.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=program.fds,
        )
    finally:
        os.close(log)


class OwnProcess(ABC):
    """A process that the stack started, or will start."""

    name: str
    log: Path
    clock_s: float = 0.0
    """How far its wall clock is ahead of the machine's."""
    _process: StartedProgram | None = None

    @property
    def pid(self) -> int | None:
        """The process number, while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll() if self._process else None

    def signal(self, signal_number: int) -> None:
        """Signal it; with SIGKILL wait until it is gone."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal_number)
            if signal_number == signal.SIGKILL:
                self._process.wait(timeout=10.0)

    @abstractmethod
    def restart(self, clock_s: float = 0.0) -> object:
        """Kill it if it runs, and start it again unchanged; clock_s: how far its wall clock is shifted."""


def tail(log: Path, lines: int = 20, limit_bytes: int = 16_384) -> str:
    """The last lines of a log, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit_bytes))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"(no log: {error.strerror})"


def stop(process: StartedProgram, steps: Sequence[tuple[int, float]]) -> int:
    """Send each signal in turn and wait its seconds; SIGKILL at the end. Returns the exit code."""
    for signal_number, timeout_s in (*steps, (signal.SIGKILL, 10.0)):
        if process.poll() is not None:
            break
        process.send_signal(signal_number)
        if signal_number == signal.SIGKILL:
            process.send_signal(signal.SIGCONT)
        try:
            return process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            continue
    return process.wait(timeout=10.0)
