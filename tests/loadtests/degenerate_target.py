"""Servers that answer without doing anything: yes to all, an echo, a login page, garbage, one byte a time."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.loadtests.fake_target import Answering
from tests.small_target import listening
from tests.waiting import pause

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def _garbage(handler: BaseHTTPRequestHandler, _body: bytes) -> None:
    handler.wfile.write(b"\x00\xff no protocol at all\r\n\r\n")
    handler.close_connection = True


def _slow_loris(handler: BaseHTTPRequestHandler, _body: bytes) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}":
        handler.wfile.write(bytes([byte]))
        pause(0.2)  # the fault itself


def _hang(_handler: BaseHTTPRequestHandler, _body: bytes) -> None:
    threading.Event().wait(5.0)  # the fault itself, not a wait


def _problem(status: int) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, _body: bytes) -> None:
        _send(handler, status, b'{"code": "rate_limited"}', **{"Retry-After": "300"})

    return answer


ANSWERS: Mapping[str, Answer] = {
    "yes to all": lambda handler, _body: _send(handler, 200, b"{}"),
    "accepted to all": lambda handler, _body: _send(handler, 202, b'{"status": "ok"}'),
    "echo": lambda handler, body: _send(handler, 200, body),
    "empty": lambda handler, _body: _send(handler, 200),
    "login page": lambda handler, _body: _send(handler, 302, Location="/login"),
    "too many to all": _problem(429),
    "broken": _problem(500),
    "garbage": _garbage,
    "slow loris": _slow_loris,
    "hang": _hang,
}


@contextmanager
def degenerate_target(kind: str) -> Iterator[str]:
    """The base URL of a running server that answers everything in this way."""

    class Handler(Answering):
        def answer(self, body: bytes = b"") -> None:
            try:
                ANSWERS[kind](self, body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    with listening(Handler) as url:
        yield url
