"""The server of the control socket (the client is `gates.deployment.control`): one JSON line in, one out."""

import json
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from gates.deployment.control import LINE_LIMIT, open_socket
from gates.stack.spawner import OwnProcess

SOCKET_NAME = "control.sock"
REQUEST_TIMEOUT_S = 5.0
ACCEPT_TIMEOUT_S = 0.2
LONGEST_WAIT_S = 120.0
LARGEST_SKEW_S = 366 * 86_400.0


class Controlled(Protocol):
    """The stack, as the control socket sees it."""

    @property
    def processes(self) -> Sequence[OwnProcess]: ...
    def wait_ready(self, timeout_s: float) -> None: ...
    def note_processes(self) -> None: ...


class Door:
    """Serves the control socket in a run folder until `close`. One request at a time: drills do not race here."""

    def __init__(self, folder: Path, stack: Controlled) -> None:
        self._stack = stack
        self._closing = threading.Event()
        self.path = folder / SOCKET_NAME
        with open_socket(folder) as (sock, place):
            sock.bind(f"{place}/{SOCKET_NAME}")
            self.path.chmod(0o600)
            sock.listen(16)
            self._socket = sock.dup()
        self._socket.settimeout(ACCEPT_TIMEOUT_S)
        self._thread = threading.Thread(target=self._serve, name="stack-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join(timeout=REQUEST_TIMEOUT_S)
        self._socket.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            with connection, suppress(OSError):
                self._exchange(connection)

    def _exchange(self, connection: socket.socket) -> None:
        connection.settimeout(REQUEST_TIMEOUT_S)
        with connection.makefile("rb") as stream:
            line = stream.readline(LINE_LIMIT)
        connection.sendall(json.dumps(answer(self._stack, line)).encode() + b"\n")


def answer(stack: Controlled, line: bytes) -> dict[str, Any]:
    """Do what one line asks. Every failure becomes `{"ok": false, "error": ...}`."""
    try:
        words = json.loads(line)
        return {"ok": True, **_do(stack, words)}
    except Exception as error:  # noqa: BLE001  -- keep serving, whatever one request does
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}


def _do(stack: Controlled, words: Mapping[str, Any]) -> dict[str, Any]:
    timeout_s = min(float(words.get("timeout_s", 30.0)), LONGEST_WAIT_S)
    match words.get("do"):
        case "list":
            names = ("name", "pid", "exit_code", "clock_s")
            return {"processes": [{name: getattr(p, name) for name in names} for p in stack.processes]}
        case "signal":
            _named(stack, words["name"]).signal(signal.Signals[str(words["signal"])])
        case "restart":
            _named(stack, words["name"]).restart(_clock(words))
            stack.note_processes()
        case "wait":
            stack.wait_ready(timeout_s)
        case "mend":
            _mend(stack)
            stack.wait_ready(timeout_s)
        case other:
            raise ValueError(f"the door cannot do {other!r}; it can list, signal, restart, wait and mend")
    return {}


def _clock(words: Mapping[str, Any]) -> float:
    clock_s = float(words.get("clock_s", 0.0))
    if not abs(clock_s) <= LARGEST_SKEW_S:  # NaN, too
        raise ValueError(f"a clock may be wrong by {LARGEST_SKEW_S:g} s at most, either way; asked for {clock_s}")
    return clock_s


def _mend(stack: Controlled) -> None:
    for process in stack.processes:
        process.signal(signal.SIGCONT)
        if process.pid is None or process.clock_s:
            process.restart()
    stack.note_processes()


def _named(stack: Controlled, name: object) -> OwnProcess:
    for process in stack.processes:
        if process.name == name:
            return process
    known = ", ".join(p.name for p in stack.processes)
    raise ValueError(f"the stack has no process {name!r}; it has {known}")
