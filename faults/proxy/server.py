"""A proxy: a real HTTP server before a real deployment, that breaks one promise by rewriting requests or answers.

A defect is a function of the request and of a way to send requests on; it returns the answer. The proxy keeps the raw
path, the order and repetition of headers, and the client's address (on loopback). It names its faults at `NAME_PATH`,
and is otherwise invisible.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from faults.probe import Probe

SIGNATURE = "X-Transbot-Signature"
NAME_PATH = "/fault-of-this-proxy"
TIMEOUT_S = 15.0
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Sent:
    """A request as it came in: raw path under the base URL's prefix, headers in order, body."""

    method: str
    path: str
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((v for k, v in self.headers if k.lower() == name.lower()), None)

    def all(self, name: str) -> list[str]:
        """Every header of that name."""
        return [v for k, v in self.headers if k.lower() == name.lower()]

    def without(self, *names: str) -> Sent:
        """The request without headers of these names."""
        dropped = {n.lower() for n in names}
        return replace(self, headers=tuple((k, v) for k, v in self.headers if k.lower() not in dropped))

    def having(self, name: str, value: str) -> Sent:
        """The request with one header replaced or added."""
        plain = self.without(name)
        return replace(plain, headers=(*plain.headers, (name, value)))

    @property
    def is_replay(self) -> bool:
        """Whether it is a POST to the replay endpoint."""
        return self.method == "POST" and self.path.partition("?")[0] == "/dlq-replay"

    @property
    def signature(self) -> str:
        return self.header(SIGNATURE) or ""


@dataclass(frozen=True)
class Reply:
    """An answer; headers in order."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((v for k, v in self.headers if k.lower() == name.lower()), None)

    def having(self, name: str, value: str) -> Reply:
        """The answer with one header replaced or added."""
        return replace(self, headers=(*self.without(name).headers, (name, value)))

    def without(self, name: str) -> Reply:
        return replace(self, headers=tuple((k, v) for k, v in self.headers if k.lower() != name.lower()))


Forward = Callable[[Sent], Reply]
Defect = Callable[[Sent, Forward], Reply]


def no_defect(sent: Sent, forward: Forward) -> Reply:
    """The proxy changes nothing."""
    return forward(sent)


def all_of(defects: Sequence[Defect]) -> Defect:
    """All these defects, the first of them next to the deployment."""

    def outer(inner: Defect, defect: Defect) -> Defect:
        return lambda sent, forward: defect(sent, lambda changed: inner(changed, forward))

    return reduce(outer, defects)


def framed_carelessly(sent: Sent, forward: Forward) -> Reply:
    """The proxy reads the ends of bodies where it should not; what it read it sends on as it is."""
    return forward(sent)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    defect: Defect = staticmethod(no_defect)
    upstream: str = ""
    names: Sequence[str] = ()
    is_careless: bool = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = TIMEOUT_S
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name is the base class's
        """Quiet."""

    def _serve(self) -> None:
        body = self._body()
        if body is None:
            self.close_connection = True
            self.send_error(400)
            return
        prefix = urlsplit(self.server.upstream).path
        path = self.path.removeprefix(prefix)
        sent = Sent(self.command, path, tuple((k, v) for k, v in self.headers.items()), body)
        try:
            named = Reply(200, (), "\n".join(self.server.names).encode()) if path == NAME_PATH else None
            reply = named or self.server.defect(sent, self._forward)
        except (OSError, http.client.HTTPException):
            self.close_connection = True
            return
        self.send_response_only(reply.status)
        for name, value in reply.headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def _body(self) -> bytes | None:
        """The body; None where its framing is not sound. Who frames carelessly takes chunks before lengths, the last of
        several lengths, and a bad size for the end.
        """
        lengths = self.headers.get_all("Content-Length") or []
        coding = self.headers.get("Transfer-Encoding")
        if not self.server.is_careless and (len(lengths) + (coding is not None) > 1 or coding not in {None, "chunked"}):
            return None
        if "chunked" not in (coding or ""):
            return self.rfile.read(int((lengths or ["0"])[-1]))
        body = b""
        while size := self._chunk_size():
            body += self.rfile.read(size)
            self.rfile.readline()
        if size is None:
            return None
        while self.rfile.readline().strip():
            pass
        return body

    def _chunk_size(self) -> int | None:
        line = self.rfile.readline().strip() or b"0"
        if all(digit in b"0123456789abcdefABCDEF" for digit in line):
            return int(line, 16)
        return 0 if self.server.is_careless else None

    def _forward(self, sent: Sent) -> Reply:
        parts = urlsplit(self.server.upstream)
        source = (self.client_address[0], 0)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, TIMEOUT_S, source_address=source)
        try:
            connection.putrequest(sent.method, parts.path + sent.path, skip_accept_encoding=True)
            for name, value in sent.headers:
                if name.lower() not in HOP_BY_HOP:
                    connection.putheader(name, value.encode("latin-1"))
            connection.putheader("Content-Length", str(len(sent.body)))
            connection.endheaders(sent.body)
            response = connection.getresponse()
            return Reply(response.status, tuple(response.getheaders()), response.read())
        finally:
            connection.close()

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_TRACE = do_HEAD = do_OPTIONS = _serve  # noqa: N815


@contextmanager
def proxy(upstream: str, *defects: Defect, names: Sequence[str] = (), is_careless: bool = False) -> Iterator[str]:
    """Run the proxy before `upstream` (a base URL with its prefix) for a while; gives its own base URL. A careless one
    reads bodies to wrong ends.
    """
    server = _Server(("127.0.0.1", 0), _Handler)
    server.upstream, server.defect, server.names = upstream.rstrip("/"), all_of(defects or (no_defect,)), names
    server.is_careless = is_careless or framed_carelessly in defects
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{urlsplit(upstream).path}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def stands_before(fault_id: str) -> Callable[[Probe], bool]:
    """The witness of a proxy: it stands before the deployment, and says so."""
    return lambda probe: fault_id in probe.get(NAME_PATH).text.splitlines()
