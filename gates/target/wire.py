"""The raw HTTP door: sends bytes that no HTTP client would send, over a socket of its own for each exchange."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from gates.target.client import NoAnswer
from gates.target.requests import Answer, Request

WIRE_TIMEOUT_S = 5.0
QUIET_S = 1.0
"""How long a socket must be silent until we take it that no further response comes."""

READ_LIMIT = 1 << 20
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})")


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """Everything that came back on one socket: the status of each response in it, and whether the target closed it."""

    statuses: tuple[int, ...]
    text: bytes
    closed: bool


class WireDoor:
    """Raw exchanges with one target. `source` is the local address to bind (loopback targets only)."""

    def __init__(self, base_url: str, *, timeout_s: float = WIRE_TIMEOUT_S, source: str | None = None) -> None:
        parts = urlsplit(base_url)
        self._tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._authority = parts.netloc.rpartition("@")[2]
        self._prefix = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        self._source = source

    def send(self, request: Request) -> Answer:
        """Send a request with exactly its headers (plus Host, Content-Length, Connection: close) and its path as it is.

        Header values are sent as UTF-8 (undecodable bytes by surrogateescape). Raise NoAnswer where there was none.
        """
        lines = [
            f"{request.method} {self._prefix}{request.path} HTTP/1.1",
            f"Host: {self._authority}",
            *(f"{k}: {v}" for k, v in request.headers),
            f"Content-Length: {len(request.body)}",
            "Connection: close",
        ]
        raw = "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + request.body
        started = time.perf_counter()
        try:
            with self._open() as sock:
                sock.sendall(raw)
                response = http.client.HTTPResponse(sock, method=request.method)
                response.begin()
                body = response.read(READ_LIMIT)
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{request.method} {request.path}: {type(error).__name__}: {error}") from error
        headers = tuple((k.lower(), v) for k, v in response.getheaders())
        return Answer(response.status, headers, body, (time.perf_counter() - started) * 1000)

    def raw(self, head: str, body: bytes) -> RawAnswer:
        """Send a head (without Host; `{path}` stands for the prefix) and body bytes; read until closed or quiet."""
        lines = head.strip("\n").split("\n")  # not splitlines: it also splits at the odd bytes that are to be sent
        first = lines[0].replace("{path}", self._prefix)
        text = "\r\n".join([first, f"Host: {self._authority}", *lines[1:]]).encode("latin-1") + b"\r\n\r\n" + body
        found, closed = b"", False
        try:
            with self._open() as sock:
                sock.sendall(text)
                sock.settimeout(self._timeout_s)
                found, closed = _drain(sock)
        except ConnectionError:
            closed = True
        except OSError as error:
            raise NoAnswer(f"{first}: {type(error).__name__}: {error}") from error
        return RawAnswer(tuple(int(s) for s in _STATUS_LINE.findall(found)), found, closed)

    def inner_request(self, path: str) -> bytes:
        """A complete GET of `path`, to be hidden in a body."""
        return f"GET {self._prefix}{path} HTTP/1.1\r\nHost: {self._authority}\r\n\r\n".encode()

    def _open(self) -> socket.socket:
        source = (self._source, 0) if self._source else None
        sock = socket.create_connection((self._host, self._port), self._timeout_s, source)
        if not self._tls:
            return sock
        return ssl.create_default_context().wrap_socket(sock, server_hostname=self._host)


def _drain(sock: socket.socket) -> tuple[bytes, bool]:
    """All bytes until the peer closes (True) or is quiet after its first bytes (False)."""
    found = b""
    while len(found) < READ_LIMIT:
        try:
            chunk = sock.recv(65_536)
        except TimeoutError:
            return found, False
        except ConnectionError:
            return found, True
        if not chunk:
            return found, True
        found += chunk
        sock.settimeout(QUIET_S)
    return found, False
