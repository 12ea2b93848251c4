"""A lean HTTP/1.1 client on gevent: one connection, ready-made request bytes out, status and body back.

Locust's own clients spend most of their time building requests and parsing responses into objects; here a request is
bytes that were made once. Times are time.perf_counter() seconds. Nothing is retried except a request that found its
kept-alive connection closed before it was sent, or that may be repeated and got no byte (as browsers and k6 do).
"""

import _socket
import errno
import functools
import itertools
import ssl
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gevent import Timeout, get_hub
from gevent import socket as gevent_socket
from gevent import ssl as gevent_ssl

from gates.deployment.http.addresses import reached
from gates.deployment.http.limits import KEEPALIVE_S, MOST_BODY, MOST_HEAD, BeyondLimit, unpacked
from gates.deployment.http.trace import HEADER, new_trace, traceparent

OWN_FAULTS = frozenset({"EMFILE", "ENFILE", "EADDRNOTAVAIL", "ENOBUFS", "ENOMEM"})
"""This machine ran out of descriptors, ports or memory: such a request never left it."""
READ, WRITE = 1, 2
CHUNK = 65_536
MOST_SIZE_DIGITS = 15
SAMPLED_EVERY = 100
"""The service is asked to keep one trace of so many, so that the load does not fill its trace store."""
_NUMBERS = itertools.count()


@dataclass(frozen=True, slots=True)
class Address:
    """Where a base URL points; `prefix` is its path without a trailing slash.

    keeps: whether a connection serves more than one request. checked: whether the certificate is.
    """

    host: str
    port: int
    tls: bool
    prefix: str
    keeps: bool = True
    checked: bool = True

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def parse_address(url: str, *, keeps: bool = True, checked: bool = True) -> Address:
    """Split a http(s) URL. Raise ValueError on anything else."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{url!r} is no http or https address")
    path = parts.path.rstrip("/") + (f"?{parts.query}" if parts.query else "")
    tls = parts.scheme == "https"
    return Address(parts.hostname, parts.port or (443 if tls else 80), tls, path, keeps, checked)


def request_bytes(address: Address, method: str, path: str, headers: list[tuple[str, str]], body: bytes = b"") -> bytes:
    """The bytes of one request; `path` is appended to the prefix of the address."""
    lines = [f"{method} {address.prefix + path or '/'} HTTP/1.1", f"Host: {address.authority}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if not address.keeps:
        lines.append("Connection: close")
    if body or method in {"POST", "PUT", "PATCH"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


REPEATABLE = (b"GET ", b"HEAD ", b"OPTIONS ", b"TRACE ")
"""What a client may send again over a new connection, after one that was kept had ended without an answer (RFC 9110,
9.2.2). All others have failed, as in k6, since they may have been carried out.
"""


def _traced(data: bytes) -> bytes:
    """The request with a trace of its own."""
    first, _, rest = data.partition(b"\r\n")
    parent = traceparent(new_trace(), sampled=next(_NUMBERS) % SAMPLED_EVERY == 0)
    return b"%b\r\n%b: %b\r\n%b" % (first, HEADER.encode(), parent.encode(), rest)


@functools.cache
def _tls_context(*, checked: bool) -> Any:
    """The platform's certificates, checked; read once, because reading them takes longer than a request."""
    context = gevent_ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    if not checked:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class TransportError(Exception):
    """No whole HTTP response came; `args[0]` is one word for the tag `error`."""


class Connection:
    """One connection. After `exchange` its attributes describe the last request; reuse it for the next one."""

    __slots__ = (
        *("_address", "_hub", "_reader", "_sock", "_tls", "_writer", "body", "connected_s", "deadline", "ended"),
        *("first_byte", "received", "sent", "started", "status", "timed_out", "tls_s"),
    )

    def __init__(self, address: Address) -> None:
        self._address = address
        self._hub = get_hub()
        self._sock: Any = None
        self._tls: Any = None
        self._reader: Any = None
        self._writer: Any = None
        self.deadline = 0.0
        self.timed_out = False
        self.status = 0
        self.body = b""
        self.received = 0
        self.started = self.sent = self.first_byte = self.ended = 0.0
        self.connected_s = self.tls_s = 0.0

    def exchange(self, data: bytes, timeout_s: float, *, head: bool = False) -> int:
        """Send a request and read its response. Returns the status. Without one, close and raise TransportError."""
        data = _traced(data)
        self.status = self.received = 0
        self.body = b""
        self.connected_s = self.tls_s = 0.0
        self.started = self.sent = self.first_byte = time.perf_counter()
        self.deadline = self.started + timeout_s
        if self._sock is not None and (self.started - self.ended > KEEPALIVE_S or self._is_stale()):
            self.close()
        reused = self._sock is not None
        try:
            try:
                return self._once(data, head=head)
            except (OSError, TransportError):
                is_sent = self.sent != self.started
                if not reused or self.received or self.timed_out or (is_sent and not data.startswith(REPEATABLE)):
                    raise
                self.close()
                return self._once(data, head=head)
        except TransportError as none:
            self.close()
            raise TransportError("timeout" if self.timed_out else none.args[0]) from none
        except OSError as error:
            self.close()
            code = errno.errorcode.get(error.errno or 0, "")
            said = code if code in OWN_FAULTS else type(error).__name__
            raise TransportError("timeout" if self.timed_out else said) from error
        except ValueError as error:
            self.close()
            raise TransportError("malformed") from error
        finally:
            self.ended = time.perf_counter()
            self.deadline = 0.0
            self.timed_out = False

    def _is_stale(self) -> bool:
        """Whether the server has closed the kept connection, or sent unexpected bytes."""
        below = _socket.socket(fileno=(self._tls or self._sock).fileno())
        try:
            below.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            below.detach()
        return True

    def _once(self, data: bytes, *, head: bool) -> int:
        if self._sock is None:
            self._open()
            self.started = time.perf_counter() if self.started == 0 else self.started
        self._send(data)
        self.sent = time.perf_counter()
        first = self._receive()
        self.first_byte = time.perf_counter()
        return self._read_response(first, head=head)

    def expire(self) -> None:
        """Abort the request under way (called by the sweeper): its waiter finds the connection closed."""
        self.timed_out = True
        try:
            if self._sock is not None:
                self._sock.shutdown(2)
        except OSError:
            self.timed_out = True  # still connecting: that wait has a limit of its own

    def close(self) -> None:
        for watcher in (self._reader, self._writer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        for sock in (self._tls, self._sock):
            if sock is not None:
                sock.close()
        self._sock = self._tls = self._reader = self._writer = None

    def _open(self) -> None:
        """Connect to the first address of the host that answers (a name may stand for IPv6 and IPv4)."""
        before = time.perf_counter()
        reached(self._address.host, self._address.port, lambda: self.deadline - time.perf_counter(), self._connect)
        middle = time.perf_counter()
        self.connected_s = middle - before
        if self._address.tls:
            context = _tls_context(checked=self._address.checked)
            self._tls = self._sock = context.wrap_socket(self._sock, server_hostname=self._address.host)
            self.tls_s = time.perf_counter() - middle

    def _connect(self, address: str, share_s: float) -> None:
        try:
            self._connected((address, self._address.port), max(0.1, share_s))
        except BaseException:
            self.close()
            raise

    def _connected(self, where: tuple[str, int], left_s: float) -> None:
        family = _socket.AF_INET6 if ":" in where[0] else _socket.AF_INET
        if self._address.tls:
            self._sock = gevent_socket.socket(family, _socket.SOCK_STREAM)
            self._sock.settimeout(left_s)
            self._sock.connect(where)
            return
        self._sock = sock = _socket.socket(family, _socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        loop = self._hub.loop
        self._reader, self._writer = loop.io(sock.fileno(), READ), loop.io(sock.fileno(), WRITE)
        if sock.connect_ex(where):
            with Timeout(left_s, TimeoutError("connect")):
                self._hub.wait(self._writer)
            code = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
            if code:
                raise ConnectionError(code, "connect failed")

    def _send(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.settimeout(max(0.1, self.deadline - time.perf_counter()))
            self._tls.sendall(data)
            return
        try:
            done = self._sock.send(data)
        except BlockingIOError:
            done = 0
        while done < len(data):
            self._hub.wait(self._writer)
            try:
                done += self._sock.send(data[done:])
            except BlockingIOError:
                continue

    def _receive(self) -> bytes:
        data = self._more()
        if not data:
            raise TransportError("closed")
        return data

    def _more(self) -> bytes:
        """The next bytes, empty at the end. Raise TransportError beyond the limits of an answer."""
        if self._tls is not None:
            data: bytes = self._tls.recv(CHUNK)
        else:
            self._hub.wait(self._reader)
            data = self._sock.recv(CHUNK)
        self.received += len(data)
        if self.received > MOST_HEAD + MOST_BODY:
            raise TransportError("too large")
        return data

    def _read_response(self, buffer: bytes, *, head: bool) -> int:
        status = 100
        while 100 <= status < 200:
            end = buffer.find(b"\r\n\r\n")
            while end < 0:
                if self.received > MOST_HEAD:
                    raise TransportError("too large")
                buffer += self._receive()
                end = buffer.find(b"\r\n\r\n")
            if buffer[:9] not in {b"HTTP/1.1 ", b"HTTP/1.0 "} or buffer[12:13] not in {b" ", b"\r"}:
                raise TransportError("malformed")
            status = _size(buffer[9:12])
            top, buffer = buffer[:end], buffer[end + 4 :]
            if 100 <= status < 200 and not buffer:
                buffer = self._receive()
        fields = top.lower()
        closing = self._read_body(buffer, fields, bodiless=head or status in {204, 304})
        if packed := fields.split(b"\r\ncontent-encoding:")[1:]:
            self.body = _unpacked(self.body, b",".join(one.partition(b"\r\n")[0] for one in packed))
        self.status = status
        if closing or not self._address.keeps or b"\r\nconnection: close" in fields or top[5:8] == b"1.0":
            self.close()
        return status

    def _read_body(self, buffer: bytes, fields: bytes, *, bodiless: bool) -> bool:
        """Read the body into `self.body`; True where only the end of the connection ends it."""
        if bodiless:
            return False
        if b"\r\ntransfer-encoding:" in fields and b"chunked" in fields:
            self.body = self._read_chunks(buffer)
            return False
        if told := fields.split(b"\r\ncontent-length:")[1:]:
            length, *others = {_size(one.partition(b"\r\n")[0]) for one in told}
            if others:
                raise ValueError("several lengths")
            parts, have = [buffer], len(buffer)
            while have < length:
                parts.append(self._receive())
                have += len(parts[-1])
            self.body = b"".join(parts)[:length]
            return False
        parts = [buffer]
        while data := self._more():
            parts.append(data)
        if self.timed_out:
            raise TransportError("timeout")
        self.body = b"".join(parts)
        return True

    def _read_chunks(self, buffer: bytes) -> bytes:
        parts: list[bytes] = []
        at, size = 0, 1
        while size:
            line = buffer.find(b"\r\n", at)
            while line < 0:
                buffer, at = self._joined(buffer, at, MOST_HEAD), 0
                line = buffer.find(b"\r\n")
            size = _size(buffer[at:line].split(b";")[0], 16)
            at = line + 2
            while len(buffer) < at + size + 2:
                buffer, at = self._joined(buffer, at, MOST_BODY), 0
            if size:
                parts.append(buffer[at : at + size])
                at += size + 2
        while buffer[at : at + 2] != b"\r\n" and buffer.find(b"\r\n\r\n", at) < 0:  # trailers follow
            buffer, at = self._joined(buffer, at, MOST_HEAD), 0
        return b"".join(parts)

    def _joined(self, buffer: bytes, at: int, most: int) -> bytes:
        """The rest of the buffer and the next bytes. Raise TransportError if it grows too large."""
        if len(buffer) - at > most + CHUNK:
            raise TransportError("too large")
        return buffer[at:] + self._receive()


def _unpacked(body: bytes, coding: bytes) -> bytes:
    """The body without its encoding. Raise TransportError for what no client could read."""
    try:
        return unpacked(body, coding.decode("latin-1"))
    except BeyondLimit as beyond:
        raise TransportError("encoded") from beyond


def _size(digits: bytes, radix: int = 10) -> int:
    """The number in a head. Raise ValueError for what is not a number: a sign, an underscore, too many digits."""
    text = digits.strip()
    if not text.isalnum() or len(text) > MOST_SIZE_DIGITS:
        raise ValueError("no size")
    return int(text, radix)
