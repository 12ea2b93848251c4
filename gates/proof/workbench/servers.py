"""Small HTTP servers on loopback with given answers: no deployment at all, or a proxy to a real one."""

import http.client
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from gates.proof.workbench.relay import reset

MOST_BODY = 8 * 1024 * 1024
FORWARD_TIMEOUT_S = 30.0
IDLE_TIMEOUT_S = 120.0
LONGEST_HANG_S = 600.0
CHUNK = re.compile(rb"[0-9A-Fa-f]{1,8}(;[^\r\n]*)?\r\n")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: path with its query, headers as sent, including repeated ones; a chunked body is joined."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def header(self, name: str) -> str:
        """The first header of that name, or an empty string."""
        return next((v for k, v in self.headers if k.lower() == name.lower()), "")


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer. `stream` is sent instead of a response, byte by byte; a number in it is a pause in seconds. Then the
    connection is closed, or reset (`reset`), or used for the next request (`keep`).
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    stream: Callable[[], Iterable[bytes | float]] | None = None
    reset: bool = False
    keep: bool = False


Behaviour = Callable[[Asked], Reply]


def raw(*pieces: bytes | float, reset: bool = False, keep: bool = False) -> Reply:
    """These bytes and pauses, and nothing else."""
    return Reply(stream=lambda: pieces, reset=reset, keep=keep)


HANG = raw(LONGEST_HANG_S)
"""No answer for a long time."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, behaviour: Behaviour, host: str, port: int) -> None:
        self.behaviour, self.closing = behaviour, threading.Event()
        if ":" in host:
            import socket  # noqa: PLC0415  -- only here

            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that went away"""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S
    disable_nagle_algorithm = True
    server: _Server

    def _answer(self) -> None:
        try:
            body = self._body()
        except ValueError:  # the length of the request is unknown: what follows must not be read as another one
            self._send(Reply(400))
            self.close_connection = True
            return
        asked = Asked(str(self.command), str(self.path), tuple(self.headers.items()), body)
        reply = self.server.behaviour(asked)
        if reply.stream is None:
            self._send(reply)
        else:
            self._pour(reply, reply.stream)

    def _pour(self, reply: Reply, stream: Callable[[], Iterable[bytes | float]]) -> None:
        self.close_connection = not reply.keep
        for piece in stream():
            if self.server.closing.is_set():
                break
            if isinstance(piece, bytes):
                self.wfile.write(piece)
            elif self.server.closing.wait(piece):
                break
        if reply.reset:
            reset(self.connection)

    def _send(self, reply: Reply) -> None:
        self.send_response_only(reply.status)  # without the name of the server
        for name, value in reply.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def _body(self) -> bytes:
        """The body. Raise ValueError if its length is given twice, or ambiguously."""
        lengths, codings = (self.headers.get_all(name, []) for name in ("Content-Length", "Transfer-Encoding"))
        if len(lengths) + len(codings) > 1 or (codings and codings[0].strip().lower() != "chunked"):
            raise ValueError
        if not codings:
            length = lengths[0].strip() if lengths else "0"
            if not (length.isascii() and length.isdigit()):
                raise ValueError
            return self.rfile.read(min(int(length), MOST_BODY))
        body = bytearray()
        while len(body) < MOST_BODY:
            line = self.rfile.readline(64)
            if not CHUNK.fullmatch(line):
                raise ValueError
            size = int(line.split(b";")[0].rstrip(), 16)
            body += self.rfile.read(size)
            if self.rfile.readline(64) != b"\r\n":
                raise ValueError
            if not size:
                break
        return bytes(body)

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Answer every method alike; the base class looks for `do_` and its name."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  -- the name of the base class
        """Silent."""


@contextmanager
def serve(behaviour: Behaviour, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """A server for the time of a `with` block; its URL, without a path."""
    server = _Server(behaviour, host, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{server.server_address[1]}"
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=5.0)


def forward(base: str, asked: Asked) -> Reply:
    """The answer of the server at `base` (scheme, host, port) to the same request; 502 without one."""
    parts = urlsplit(base)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=FORWARD_TIMEOUT_S)
    try:
        connection.putrequest(asked.method, asked.path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", parts.netloc)
        for name, value in asked.headers:
            if name.lower() not in HOP_BY_HOP:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(asked.body)))
        connection.endheaders(asked.body or None)
        with connection.getresponse() as response:
            kept = tuple((n, v) for n, v in response.getheaders() if n.lower() not in HOP_BY_HOP)
            return Reply(response.status, kept, response.read())
    except (OSError, http.client.HTTPException) as error:
        return Reply(502, (("Content-Type", "text/plain"),), f"{type(error).__name__}".encode())
    finally:
        with suppress(OSError):
            connection.close()
