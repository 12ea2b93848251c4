"""Raw HTTP: sends bytes that no HTTP client would send, over a new socket for each exchange."""

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from urllib.parse import urlsplit

import h11

from gates.deployment.dialect.exchange import on_the_wire, real_head, real_path, understood
from gates.deployment.http.addresses import reached
from gates.deployment.http.client import ENDED, NoAnswer, authority, headers_of, in_our_words, login_of, packing
from gates.deployment.http.limits import BeyondLimit, checked_headers, unpacked
from gates.deployment.http.trace import traced
from gates.deployment.requests import Answer, Headers, Request

WIRE_TIMEOUT_S = 5.0
"""The limit of a whole exchange."""
QUIET_S = 1.0
"""How long a socket must be silent before we assume that no further response comes."""

LEAST_S = 0.001
"""The smallest timeout that a socket takes: 0 would not wait, or be refused."""
READ_LIMIT = 1 << 20
UNENDED = (
    f"no whole answer came within the limits of {WIRE_TIMEOUT_S:g} s, {QUIET_S:g} s of silence and {READ_LIMIT} bytes"
)
MOST_ANSWERS = 16
"""The most responses of an exchange: it sends one request, or one more."""
MOST_PARTS = 2000
"""The most chunks of an answer: what follows them is not looked at."""
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (101|[2-9]\d\d)")
"""The start of a final response, or 101; 100 Continue and 103 Early Hints come before one (RFC 9110, 15.2). Searched
for if no response can be read.
"""
_INTERIM = re.compile(rb"(?:HTTP/1\.[01] 1(?!01)\d\d[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n)+")
"""The most interim responses: a reader needs a second for a flood of them."""


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """All bytes from one socket, the status of each final response in them, and whether the target closed it."""

    statuses: tuple[int, ...]
    text: bytes
    closed: bool


class WireDoor:
    """Raw exchanges with one target."""

    def __init__(self, base_url: str, *, timeout_s: float = WIRE_TIMEOUT_S) -> None:
        parts = urlsplit(base_url)
        self._tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._parts = parts
        self._prefix = parts.path.rstrip("/")
        self._timeout_s = timeout_s

    def raw(self, head: str, body: bytes) -> RawAnswer:
        """Send a head (without Host; `{path}` is the prefix) and body bytes; read until closed or quiet. What came
        before the time limit counts. Raise NoAnswer if the target cannot be reached.
        """
        lines = (
            real_head(head).strip("\n").split("\n")
        )  # not splitlines: it also splits at the odd bytes that are to be sent
        first = lines[0].replace("{path}", self._prefix)
        given = {line.partition(":")[0].lower() for line in lines[1:]}
        login = [f"{k}: {v}" for k, v in login_of(self._parts) if k.lower() not in given]
        whole = [first, f"Host: {authority(self._parts)}", *login, *lines[1:]]
        text = "\r\n".join(whole).encode("latin-1") + b"\r\n\r\n" + body
        return self._exchange(text, first)

    def send(self, request: Request) -> Answer:
        """Send a request with header values that no client would send. Raise NoAnswer if there was no answer."""
        told, trace = traced(on_the_wire(request))
        sent = (*headers_of(told, self._parts), ("Connection", "close"))
        lines = [f"{told.method} {self._prefix}{told.path} HTTP/1.1", *(f"{k}: {v}" for k, v in sent)]
        started = time.perf_counter()
        data = "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + told.body
        received = self._exchange(data, request.place)
        try:
            status, headers, body = parsed(received.text, whole=received.closed)
            body = unpacked(body, packing(headers))
        except (h11.RemoteProtocolError, BeyondLimit) as error:
            raise NoAnswer(f"{request.place}: {in_our_words(error)}") from error
        answer = Answer(status, headers, body, (time.perf_counter() - started) * 1000)
        return replace(understood(answer, request.method, request.path), trace=trace)

    def _exchange(self, text: bytes, place: str) -> RawAnswer:
        found, closed = b"", False
        ends = time.monotonic() + self._timeout_s
        try:
            with self._open(ends) as sock, contextlib.suppress(ConnectionError):
                closed = True
                sock.sendall(text)
                found, closed = _drain(sock, ends)
        except OSError as error:
            raise NoAnswer(f"{place}: {in_our_words(error)}") from error
        return RawAnswer(tuple(islice(_statuses(found), MOST_ANSWERS)), found, closed)

    def inner_request(self, path: str) -> bytes:
        """A complete GET of `path`, to hide in a body."""
        return f"GET {self._prefix}{real_path(path)} HTTP/1.1\r\nHost: {authority(self._parts)}\r\n\r\n".encode()

    def _open(self, ends: float) -> socket.socket:
        def connect(address: str, share_s: float) -> socket.socket:
            return socket.create_connection((address, self._port), max(share_s, LEAST_S))

        sock = reached(self._host, self._port, lambda: ends - time.monotonic(), connect)
        sock.settimeout(max(ends - time.monotonic(), LEAST_S))
        if not self._tls:
            return sock
        return ssl.create_default_context().wrap_socket(sock, server_hostname=self._host)


def parsed(text: bytes, *, whole: bool = True) -> tuple[int, Headers, bytes]:
    """Status, headers and body of the one response. Raise h11.RemoteProtocolError if it is no HTTP, or truncated.
    whole: whether its sender closed; if not, an answer that has no end but that was cut by our own limits.
    """
    reader = _reading(text, whole=whole)
    status, parts = 0, list[bytes]()
    headers: Headers = ()
    while True:
        if reader.their_state is h11.SEND_RESPONSE and not reader.trailing_data[0]:
            raise BeyondLimit(ENDED if whole else UNENDED)
        match reader.next_event():
            case h11.Response() as head:
                status = head.status_code
                headers = checked_headers(tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in head.headers))
            case h11.Data() as data:
                parts.append(bytes(data.data))
            case h11.InformationalResponse():
                continue
            case h11.NEED_DATA:
                raise BeyondLimit(UNENDED)
            case _:
                return status, headers, b"".join(parts)


def _statuses(text: bytes) -> Iterator[int]:
    """The status of each final response, one after the other. Responses quoted in a body do not count."""
    while text := text[found.end() if (found := _INTERIM.match(text)) else 0 :]:
        reader, status = _reading(text), 0
        try:
            for event in islice(iter(reader.next_event, None), MOST_PARTS):
                if isinstance(event, h11.Response):
                    yield (status := event.status_code)
                elif isinstance(event, h11.EndOfMessage):
                    break
            else:
                return
        except h11.RemoteProtocolError:  # within a body: all the rest belongs to it
            if not status:
                yield from map(int, _STATUS_LINE.findall(text))
            return
        text = reader.trailing_data[0]


def _reading(text: bytes, *, whole: bool = True) -> h11.Connection:
    """A parser of the response to a request; whole: its sender has closed."""
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=READ_LIMIT)
    reader.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    reader.send(h11.EndOfMessage())
    if text:
        reader.receive_data(text)
    if whole:
        reader.receive_data(b"")
    return reader


def _drain(sock: socket.socket, ends: float) -> tuple[bytes, bool]:
    """All bytes until the peer closes (True), is quiet after its first bytes, or sends too much or too slowly."""
    found = bytearray()
    while len(found) < READ_LIMIT:
        left_s = ends - time.monotonic()
        if left_s <= 0:
            break
        sock.settimeout(min(left_s, QUIET_S) if found else left_s)
        try:
            chunk = sock.recv(65_536)
        except TimeoutError:
            break
        except ConnectionError:
            return bytes(found), True
        if not chunk:
            return bytes(found), True
        found += chunk
    return bytes(found), False
