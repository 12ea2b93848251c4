"""Sends the exact bytes of a Request and keeps what came back. No retries, no redirects, no cookies. Every exchange is
limited as a whole, in time and bytes (limits.py), whatever a target does with its sockets.
"""

import base64
import select
import socket
import ssl
import string
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import cache
from threading import Barrier, BrokenBarrierError, get_ident
from typing import Any, Self
from urllib.parse import SplitResult, quote, unquote, urlsplit

import httpcore

from gates.deployment.dialect.exchange import on_the_wire, understood
from gates.deployment.http.addresses import FIRST_ASKED, reached
from gates.deployment.http.limits import KEEPALIVE_S, Allowance, BeyondLimit, checked_headers, unpacked
from gates.deployment.http.trace import traced
from gates.deployment.requests import Answer, Headers, Request

REQUEST_TIMEOUT_S = 10.0

A_FEW = 8

SETTLED_S = 0.001
"""A connection is used again this long after its last byte at the earliest. A server that recycles connections ends one
right after an answer; a request that met the end would be lost.
"""

WRITTEN_AT_ONCE = 16_384
"""The piece size of sent data: limits are checked between pieces, since a target may read slowly."""

NOT_ASKED = (
    "bytes that nobody asked for stood behind an earlier answer of this connection, where this one begins. Have the"
    " service end each answer where it says so (RFC 9112, 6.3)"
)

ENDED = "the connection was closed without an answer"
CLOSED = ("Server disconnected without sending a response", "peer unexpectedly closed connection")

IDLE_ENDS = (b"HTTP/1.1 408", b"HTTP/1.0 408")
"""How some servers end a connection that is idle (RFC 9110, 15.5.9)."""

HINTS = {
    "PROTOCOL_VERSION": ". It may speak TLS 1.0 or 1.1 alone, which this machine refuses: have it speak 1.2 or later",
    "illegal ": ". What answers there does not speak HTTP/1.1: it may speak HTTP/2 or TLS alone",
    "CERTIFICATE_VERIFY_FAILED": ". This machine does not trust the certificate: if an authority of your own signed it,"
    " name the authority's file in SSL_CERT_FILE; if it ran out or is of another host, renew it",
}
"""What a failure says -> what it means, and what to do."""

_FAILURES = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
    httpcore.ConnectionNotAvailable,
)
_ALLOWANCE: ContextVar[Allowance] = ContextVar("allowance")

Heard = Callable[[Request, Answer], None]


class NoAnswer(Exception):  # noqa: N818  -- it is an observation about the target, not an error of ours
    """The target gave no HTTP answer within our own limits. Shows nothing, so the check is unknown."""


@cache
def _trust() -> ssl.SSLContext:
    """The platform's certificate authorities, read once: that takes longer than a request."""
    return ssl.create_default_context()


class _LimitedStream(httpcore.NetworkStream):
    """A connection on which each exchange has the allowance of its caller."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner
        self._last: Allowance | None = None
        self._read_at = 0.0
        self.has_more = False
        """Whether bytes followed the last answer: they would be read as the beginning of the next one."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002  -- the allowance is stricter
        allowance = _ALLOWANCE.get()
        data = self._inner.read(max_bytes, allowance.left_s())
        self._read_at = time.monotonic()
        allowance.take(len(data))
        allowance.kept &= bool(data)  # return nothing if the connection has ended
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002  -- likewise
        allowance = _ALLOWANCE.get()
        if allowance is not self._last:
            if self.has_more:
                raise BeyondLimit(NOT_ASKED)
            allowance.kept, self._last = self._last is not None, allowance
        for start in range(0, len(buffer), WRITTEN_AT_ONCE):
            self._inner.write(buffer[start : start + WRITTEN_AT_ONCE], allowance.left_s())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002  -- likewise
    ) -> httpcore.NetworkStream:
        return _LimitedStream(self._inner.start_tls(ssl_context, server_hostname, _ALLOWANCE.get().left_s()))

    def get_extra_info(self, info: str) -> Any:
        if info != "is_readable":
            return self._inner.get_extra_info(info)
        peer = self._inner.get_extra_info("socket")
        if (left_s := self._read_at + SETTLED_S - time.monotonic()) > 0:
            ends = select.poll()
            ends.register(peer, select.POLLIN)
            ends.poll(left_s * 1000)
        if not self._inner.get_extra_info(info):
            return False
        if type(peer) is socket.socket:  # TLS has messages of its own
            with suppress(OSError):
                late = peer.recv(len(IDLE_ENDS[0]), socket.MSG_PEEK | socket.MSG_DONTWAIT)
                _ALLOWANCE.get().has_more |= late not in {b"", *IDLE_ENDS}
        return True


class _LimitedNetwork(httpcore.NetworkBackend):
    """Opens limited connections."""

    def __init__(self) -> None:
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002  -- the allowance is stricter
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        def connect(address: str, share_s: float) -> httpcore.NetworkStream:
            return self._inner.connect_tcp(address, port, share_s, local_address, socket_options)

        return _LimitedStream(reached(host, port, _ALLOWANCE.get().left_s, connect))


class HttpDoor:
    """Requests to one target.

    source: the local address to bind (loopback targets only). timeout_s: for a whole exchange, from the first byte sent
    to the last one read. as_it_is: the address is not the deployment, so its names and headers do not apply. heard:
    called with each exchange, by the thread that made it.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
        source: str | None = None,
        as_it_is: bool = False,
        heard: Heard | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._as_it_is = as_it_is
        self._source = source
        self._heard = heard
        self._pools: dict[int, httpcore.ConnectionPool] = {}

    def _pool(self) -> httpcore.ConnectionPool:
        """The connections of this thread. A shared pool closes, as too old, what another thread just took."""
        mine = self._pools.get(get_ident())
        if mine is None:
            mine = self._pools[get_ident()] = httpcore.ConnectionPool(
                ssl_context=_trust() if self.base_url.lower().startswith("https:") else None,  # no redirect is followed
                keepalive_expiry=KEEPALIVE_S,
                local_address=self._source,
                network_backend=_LimitedNetwork(),
            )
        return mine

    def send(self, request: Request, *, timeout_s: float | None = None) -> Answer:
        """Send one request. Raise NoAnswer if there was no answer; milliseconds are from send to the last byte."""
        if not self.base_url:
            raise NoAnswer(f"{request.place}: BASE_URL is not set")
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            if self._as_it_is:
                return self._exchange(_built(self.base_url, request, limit_s), limit_s)
            told, trace = traced(on_the_wire(request))
            answer = self._exchange(_built(self.base_url, told, limit_s), limit_s)
            answer = replace(understood(answer, request.method, request.path), trace=trace)
        except BeyondLimit as beyond:
            raise NoAnswer(f"{request.place}: {beyond}") from beyond
        except (*_FAILURES, ValueError, OSError) as error:
            hint = next((meant for said, meant in HINTS.items() if said in str(error)), "")
            raise NoAnswer(f"{request.place}: {in_our_words(error)}{hint}") from error
        if self._heard:
            self._heard(request, answer)
        return answer

    def _exchange(self, built: httpcore.Request, limit_s: float) -> Answer:
        started = time.perf_counter()
        with _allowed(limit_s) as allowance:
            try:
                response = self._pool().handle_request(built)
            except httpcore.RemoteProtocolError as error:
                if not allowance.kept:
                    raise
                raise BeyondLimit(f"{NOT_ASKED} ({error})") from error
            try:
                allowance.has_head = True
                if allowance.has_more:
                    raise BeyondLimit(NOT_ASKED)
                headers = checked_headers(
                    tuple((k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in response.headers)
                )
                body = response.read()
                elapsed_ms = (time.perf_counter() - started) * 1000
                response.extensions["network_stream"].has_more = bool(_behind(response))
            finally:
                response.close()
        return Answer(response.status, headers, unpacked(body, packing(headers)), elapsed_ms)

    def several(self, requests: Sequence[Request]) -> list[Answer]:
        """Send all, a few at a time; answers in the order of the requests. Raise NoAnswer if one got none."""
        with ThreadPoolExecutor(A_FEW) as pool:
            return list(pool.map(self.send, requests))

    def burst(self, requests: Sequence[Request], *, spread: bool = False) -> list[Answer | NoAnswer]:
        """Send all at once, from threads behind one barrier; answers in the order of the requests. spread: over the
        addresses of the host name, in turn.
        """
        barrier = Barrier(len(requests))
        return self._together(
            [lambda n=n, r=r: self._behind(barrier, r, n * spread) for n, r in enumerate(requests)]  # type: ignore[misc]
        )

    def _behind(self, barrier: Barrier, request: Request, first: int) -> Answer | NoAnswer:
        FIRST_ASKED.set(first)
        try:
            barrier.wait(timeout=10)
            return self.send(request)
        except NoAnswer as none:
            return none
        except BrokenBarrierError:
            return NoAnswer("the gate was stopped, or its machine too busy, so that nothing was sent at once")

    @staticmethod
    def _together(calls: Sequence[Callable[[], Answer | NoAnswer]]) -> list[Answer | NoAnswer]:
        with ThreadPoolExecutor(max_workers=len(calls)) as pool:
            return [f.result() for f in [pool.submit(call) for call in calls]]  # each has limits of its own

    def close(self) -> None:
        for pool in list(self._pools.values()):
            pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def in_our_words(error: Exception) -> str:
    """Why there is no answer, without the classes of a library, and without a full stop."""
    said = str(error).strip().rstrip(".")
    return ENDED if said in CLOSED else said or type(error).__name__


def _behind(response: Any) -> bytes:
    """The bytes after a complete answer; httpcore keeps them for the next one, and does not show them."""
    found: bytes = response.stream._stream._connection._h11_state.trailing_data[0]  # noqa: SLF001
    return found


@contextmanager
def _allowed(limit_s: float) -> Iterator[Allowance]:
    """The allowance of this thread's exchange."""
    allowance = Allowance(limit_s)
    token = _ALLOWANCE.set(allowance)
    try:
        yield allowance
    finally:
        _ALLOWANCE.reset(token)


def _built(base_url: str, request: Request, limit_s: float) -> httpcore.Request:
    """The request as sent: its own headers and path, and what HTTP requires. Raise ValueError."""
    whole = base_url + request.path
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("BASE_URL is no http or https address")
    return httpcore.Request(
        request.method,
        httpcore.URL(
            scheme=parts.scheme.encode(),
            host=parts.hostname.encode("idna") if not parts.hostname.isascii() else parts.hostname.encode(),
            port=parts.port,
            target=quote(whole.partition("://")[2][len(parts.netloc) :] or "/", safe=string.punctuation).encode(),
        ),
        headers=[(k.encode("latin-1"), v.encode("utf-8", "surrogateescape")) for k, v in headers_of(request, parts)],
        content=request.body or None,
        extensions={"timeout": {"pool": limit_s}},
    )


def authority(parts: SplitResult) -> str:
    """The `Host` header of an address."""
    return parts.netloc.rpartition("@")[2]


def login_of(parts: SplitResult) -> list[tuple[str, str]]:
    """The header for the login in an address; empty if it has none."""
    if parts.username is None:
        return []
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return [("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")]


def headers_of(request: Request, parts: SplitResult) -> list[tuple[str, str]]:
    """The headers of the request, after the host, before defaults for what it does not set itself."""
    more = [("Host", authority(parts)), ("Accept-Encoding", "identity"), *login_of(parts)]
    given = {name.lower() for name, _ in request.headers}
    if (request.body or request.method in {"POST", "PUT", "PATCH"}) and "transfer-encoding" not in given:
        more.append(("Content-Length", str(len(request.body))))
    return [*(one for one in more if one[0].lower() not in given), *request.headers]


def packing(headers: Headers) -> str:
    return ",".join(v for k, v in headers if k.lower() == "content-encoding")
