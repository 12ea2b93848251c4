"""Starts Python programs as forks of one process that has imported what they need: an import costs more than all else
of a start, and faults and tests start the reference thousands of times.

Run as `python -m gates.stack.forks FD ROOM MODULE...`: it imports the modules, then forks once for each message on the
socket FD. A message is JSON (`words`, `cwd`, `environ`, `fds`); with it come the program's log, a pipe for its number
and later its exit code, and the program's own descriptors, which have the numbers `fds` there. ROOM makes room for a
program's arguments.
"""

import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from gates.stack.launch import die_with

STATUS = struct.Struct("!i")
MOST_BYTES, MOST_FDS = 200_000, 8
"""Of a message; the kernel's own limit is a little higher."""
HIGH = 100
"""A fork closes the descriptors below; what it keeps is above."""
END_S = 10.0
ROOM = " " * 2000
"""For arguments, and for variables, that are longer than those of the process."""


class StartedProgram(Protocol):
    """What a started program and a fork have in common."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...


class Fork:
    """A forked program. Its end comes through a pipe; if that is cut off, it was killed with the process it is of."""

    def __init__(self, status: int) -> None:
        self._status = open(status, "rb", buffering=0)  # noqa: SIM115  -- closed by `wait`
        self._code: int | None = None
        self.pid = self._next()
        if self.pid < 0:
            self._status.close()
            raise ConnectionResetError("the process that forks was killed")

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raise TimeoutExpired, as a Popen does."""
        if self._code is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            self._code = self._next()
            self._status.close()
        return self._code

    def _next(self) -> int:
        said = self._status.read(STATUS.size)
        return int(STATUS.unpack(said)[0]) if said else -signal.SIGKILL

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)


class ForkServer:
    """Asks the process, which ends with it, and its forks with that one. It forks programs of one module, which it must
    find on one search path: others would import other sources.
    """

    def __init__(self, process: StartedProgram, asking: socket.socket, module: str, path: str) -> None:
        self._process, self._asking = process, asking
        self._kind = (sys.executable, "-m", module), path
        self._lock = threading.Lock()

    def can(self, command: Sequence[str], environ: Mapping[str, str]) -> bool:
        return self._kind == (tuple(command[:3]), environ.get("PYTHONPATH", ""))

    def start(self, words: Sequence[str], cwd: str, environ: Mapping[str, str], log: int, fds: Sequence[int]) -> Fork:
        """Start it with these words behind `python -m`. Raise ConnectionError if the process is gone."""
        message = {"words": [*words], "cwd": cwd, "environ": dict(environ), "fds": [*fds]}
        status, told = os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._asking, [json.dumps(message).encode()], [log, told, *fds])
        except OSError:
            os.close(status)
            raise
        finally:
            os.close(told)
        return Fork(status)

    def close(self) -> None:
        self._asking.close()
        self._process.wait(timeout=END_S)


def main(argv: Sequence[str]) -> int:
    """Fork until the other side closes the socket."""
    for name in argv[3:]:
        importlib.import_module(name)
    gc.freeze()
    asked = socket.socket(fileno=int(argv[1]))
    forks: dict[int, tuple[int, int]] = {}
    """The end of a pipe whose other end a fork holds -> its number, and the pipe for its exit code."""
    while True:
        for ready in select.select([asked.fileno(), *forks], [], [])[0]:
            if ready in forks:
                pid, told = forks.pop(ready)
                _tell(told, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                for fd in (ready, told):
                    os.close(fd)
                continue
            message, (log, told, *own), *_ = socket.recv_fds(asked, MOST_BYTES, MOST_FDS)
            if not message:
                return 0
            ends, held = os.pipe()
            parent = os.getpid()
            if not (pid := os.fork()):
                return _become(json.loads(message), parent, log, held, own)
            _tell(told, pid)
            forks[ends] = pid, told
            for fd in (held, log, *own):
                os.close(fd)


def _tell(pipe: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody wants to know
        os.write(pipe, STATUS.pack(number))


def _become(asked: Mapping[str, Any], parent: int, log: int, held: int, own: Sequence[int]) -> int:
    """Run the program in this fork; it ends as any program does. `held` stays open until then."""
    os.setsid()
    if not die_with(parent, signal.SIGKILL):
        return 1
    null = os.open(os.devnull, os.O_RDONLY)
    kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH) for fd in (held, null, log, log, *own)]
    os.closerange(3, HIGH)
    for fd, number in zip(kept[1:], (0, 1, 2, *asked["fds"]), strict=True):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    time.tzset()
    module, *sys.argv[1:] = asked["words"]
    show_as(("python", "-m", *asked["words"]), asked["environ"])
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def show_as(words: Sequence[str], environ: Mapping[str, str]) -> None:
    """Have `ps` show these words and variables: this process's own memory has them, where the kernel says. What there
    is no room for is cut off.
    """
    stat = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
    first, last, variables, end = (int(field) for field in stat.rpartition(")")[2].split()[45:49])
    for texts, start, room in (
        (words, first, last - first),
        (map("=".join, environ.items()), variables, end - variables),
    ):
        if start:
            ctypes.memmove(start, "\0".join(texts).encode()[: room - 1].ljust(room, b"\0"), room)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
