"""Control of the processes of a stack that the gate started: list, signal, restart, wait until ready.

One JSON object in, one out, over a Unix socket in the stack's folder, one exchange per connection. Recovery drills use
it; it exists only if `Target.control` is set.
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
    """The stack did not do what was asked, or could not be reached. Shows nothing about the target."""


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process of the stack: `service-0`, `worker-0`, `postgres`. pid: None if it does not run. clock_s: how far its
    wall clock was set ahead.
    """

    name: str
    pid: int | None
    exit_code: int | None
    clock_s: float = 0.0


class Control:
    """A client of the control socket. As a context it marks a drill that disturbs the stack on purpose
    (`is_disrupted`), and mends everything at its end. Where that fails, what the drill has found stands.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._mark: int | None = None

    def __enter__(self) -> Self:
        self._mark = os.open(_mark_of(self._path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._mark, fcntl.LOCK_SH)  # the kernel drops it when the process is killed
        return self

    def __exit__(self, found: type[BaseException] | None, *_error: object) -> None:
        try:
            self.mend()
        except ControlError:
            if found is None:
                raise
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
        """Kill it if it runs and start it again; PostgreSQL is ready on its old port on return. clock_s: how far the
        wall clock of a service or worker is ahead (behind if negative) until its next restart.
        """
        self._ask({"do": "restart", "name": name, "clock_s": clock_s})

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until every process runs and the service is ready."""
        self._ask({"do": "wait", "timeout_s": timeout_s}, timeout_s + CONNECT_TIMEOUT_S)

    def mend(self) -> None:
        """Resume frozen processes, start missing ones, reset clocks, wait until ready: the end of a recovery drill."""
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
    """Whether a drill is disturbing this stack on purpose; False without a control socket."""
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
    """A Unix socket and a short alias of the folder: a socket's path is limited to 107 bytes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield sock, f"/proc/self/fd/{descriptor}" if Path("/proc/self/fd").is_dir() else str(folder)
        finally:
            os.close(descriptor)
