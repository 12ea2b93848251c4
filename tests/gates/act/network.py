"""A network between the gate and PostgreSQL that fails at a statement of the test's choice.

It speaks just enough of the protocol to count what a client sends: a query, or the sync that ends an extended one.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

STARTUP = 196_608
SYNC, QUERY, READY = b"S", b"Q", b"Z"
LIMIT_S = 60.0


class Fault(enum.Enum):
    """What happens to the statement it happens to, and to its connection."""

    CUT_BEFORE = "the connection ends; the server never sees the statement"
    CUT_AFTER = "the server carries it out; the connection ends before its answer"
    SILENT_BEFORE = "the statement is swallowed, and nothing comes or goes any more"
    SILENT_AFTER = "the server carries it out; its answer is swallowed, and nothing comes or goes any more"


class Network:
    """Counts statements over all connections, beginning with 1; the `at`-th suffers the fault, `times` in a row."""

    def __init__(self, to: tuple[str, int], fault: Fault | None, at: int, times: int) -> None:
        self._to, self._fault, self._at, self._last = to, fault, at, at + times - 1
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._sockets: list[socket.socket] = []
        self.statements = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(self._to, 5)
                server.settimeout(None)
                for one in (client, server):  # a statement is several messages: none waits for the answer to the last
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [client, server]
                threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        reader = client.makefile("rb")
        answers = _Answers(server, client)
        with contextlib.suppress(OSError, struct.error):
            while True:  # SSL and GSS requests come before the startup message
                head = reader.read(8)
                (length, code) = struct.unpack("!ii", head)
                server.sendall(head + reader.read(length - 8))
                if code == STARTUP:
                    break
            while head := reader.read(5):
                (length,) = struct.unpack("!i", head[1:])
                message = head + reader.read(length - 4)
                fault = self._count() if head[:1] in {SYNC, QUERY} else None
                if fault is None:
                    server.sendall(message)
                    continue
                self._strike(fault, message, server, answers)
                break
        answers.silent = True
        for one in (client, server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _count(self) -> Fault | None:
        with self._lock:
            self.statements += 1
            return self._fault if self._at <= self.statements <= self._last else None

    def _strike(self, fault: Fault, message: bytes, server: socket.socket, answers: _Answers) -> None:
        answers.silent = True
        if fault in {Fault.CUT_AFTER, Fault.SILENT_AFTER}:
            answers.ready.clear()
            server.sendall(message)
            answers.ready.wait(LIMIT_S)
        if fault in {Fault.SILENT_BEFORE, Fault.SILENT_AFTER}:
            self._closing.wait(LIMIT_S)

    def close(self) -> None:
        """End it with all its connections."""
        self._closing.set()
        for one in (self._server, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class _Answers:
    """Carries answers back; `silent` swallows them; `ready` is set when the server has finished a statement."""

    def __init__(self, server: socket.socket, client: socket.socket) -> None:
        self.silent, self.ready = False, threading.Event()
        self._server, self._client = server, client
        threading.Thread(target=self._carry, daemon=True).start()

    def _carry(self) -> None:
        with contextlib.suppress(OSError):
            while piece := self._server.recv(65_536):
                if not self.silent:
                    self._client.sendall(piece)
                elif piece[-6:-5] == READY:
                    self.ready.set()
        self.ready.set()
        if not self.silent:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def network(url: str, fault: Fault | None = None, at: int = 0, times: int = 1) -> Iterator[tuple[str, Network]]:
    """The URL by which the server is reached through it, and the network itself."""
    parts = urlsplit(url)
    made = Network((str(parts.hostname), int(parts.port or 5432)), fault, at, times)
    login, _, _ = parts.netloc.rpartition("@")
    try:
        yield urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{made.port}")), made
    finally:
        made.close()
