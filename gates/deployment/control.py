"""The third door, to the processes of a stack that the gate started itself: list, signal, restart, wait until ready.

One JSON object in, one out, over a Unix socket in the stack's folder, one exchange a connection. Recovery drills use
it; it exists only where `Target.control` is set.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0
MEND_TIMEOUT_S = 30.0
LINE_LIMIT = 65_536


class ControlError(Exception):
    """The stack did not do what was asked, or could not be reached: proves nothing about the target."""


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process of the stack: `service-0`, `worker-0`, `postgres`.

    `pid` is None when it does not run; `clock_s` is by how much its wall clock was set ahead.
    """

    name: str
    pid: int | None
    exit_code: int | None
    clock_s: float = 0.0


class Control:
    """A client of the control door at a socket's path.

    As a context it is the hand of a drill that disturbs the stack on purpose: everybody may know so (`is_disrupted`)
    until all is mended at its end.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._mark: int | None = None

    def __enter__(self) -> Self:
        self._mark = os.open(_mark_of(self._path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._mark, fcntl.LOCK_SH)  # of a process that is killed, the kernel takes it off
        return self

    def __exit__(self, *_error: object) -> None:
        try:
            self.mend()
        finally:
            if self._mark is not None:
                os.close(self._mark)

    def processes(self) -> tuple[ProcessState, ...]:
        """All processes of the stack, in the order of their start."""
        rows = self._ask({"do": "list"})["processes"]
        return tuple(ProcessState(r["name"], r["pid"], r["exit_code"], r["clock_s"]) for r in rows)

    def kill(self, name: str, signal_name: str = "SIGKILL") -> None:
        """Send a signal: SIGKILL (returns when the process is gone), SIGTERM, SIGSTOP, SIGCONT..."""
        self._ask({"do": "signal", "name": name, "signal": signal_name})

    def freeze(self, name: str) -> None:
        """Stop the process without ending it."""
        self.kill(name, "SIGSTOP")

    def thaw(self, name: str) -> None:
        self.kill(name, "SIGCONT")

    def restart(self, name: str, clock_s: float = 0.0) -> None:
        """Kill it if it runs and start it again; a service or a worker with its wall clock ahead by `clock_s` (behind,
        where negative), until its next restart. PostgreSQL: returns when it takes connections on its old port.
        """
        self._ask({"do": "restart", "name": name, "clock_s": clock_s})

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until every process runs and the service says that it is ready."""
        self._ask({"do": "wait", "timeout_s": timeout_s}, timeout_s + CONNECT_TIMEOUT_S)

    def mend(self) -> None:
        """Thaw what is frozen, start what does not run, set wrong clocks right, wait until all is ready: the end of
        every recovery drill.
        """
        self._ask({"do": "mend", "timeout_s": MEND_TIMEOUT_S}, MEND_TIMEOUT_S + ANSWER_TIMEOUT_S)

    def _ask(self, words: Mapping[str, Any], timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
        try:
            with open_socket(self._path.parent) as (sock, place):
                sock.settimeout(CONNECT_TIMEOUT_S)
                sock.connect(f"{place}/{self._path.name}")
                sock.settimeout(timeout_s)
                sock.sendall(json.dumps(words).encode() + b"\n")
                with sock.makefile("rb") as stream:
                    answer: dict[str, Any] = json.loads(stream.readline(LINE_LIMIT))
        except (OSError, ValueError) as error:
            raise ControlError(f"the stack's control door did not answer {words['do']!r}: {error}") from error
        if not answer.get("ok"):
            raise ControlError(str(answer.get("error")))
        return answer


def is_disrupted(path: str) -> bool:
    """Whether a drill disturbs the stack with this control door on purpose; no stack without a door is."""
    if not path:
        return False
    try:
        with _mark_of(Path(path)).open("rb") as mark:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _mark_of(path: Path) -> Path:
    return path.with_name("disrupted")


@contextmanager
def open_socket(folder: Path) -> Iterator[tuple[socket.socket, str]]:
    """A Unix socket and a short name of the folder: a socket's path may have 107 bytes, a folder's name is as long as
    the temporary directory makes it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield sock, f"/proc/self/fd/{descriptor}" if Path("/proc/self/fd").is_dir() else str(folder)
        finally:
            os.close(descriptor)
