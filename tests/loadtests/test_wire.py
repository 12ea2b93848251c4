"""The lean HTTP client against real sockets: framing, reuse, limits. Runs in a process of its own, as gevent does."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = """
import sys
from loadtests.drive import Call, Drive
from loadtests.plan import Credentials, Plan
drive = Drive(Plan(sys.argv[1], timeout_s=0.5), Credentials())
connection = drive.connection()
for _ in range(int(sys.argv[2])):
    call = Call("x", "GET", "/", b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    status = drive.request(call, connection)
    error = [dict(g.tags).get("error", "") for g in drive.samples.groups.values()][-1]
    print(status, connection.body.decode(), error, sep="|")
"""


@contextmanager
def scripted(*answers: bytes | None) -> Iterator[str]:
    """A server that answers the n-th connection's requests with the n-th bytes, then closes; None: never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        for answer in answers:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            peer.recv(65536)
            if answer is None:
                held.append(peer)
                continue
            peer.sendall(answer)
            peer.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()
        for peer in held:
            peer.close()


def ask(url: str, times: int = 1) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, url, str(times)],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    return done.stdout.strip().splitlines()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (OK, "200|ok|"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, "200|ok|"),
        (b"HTTP/1.1 503 No\r\ncontent-length:0\r\n\r\n", "503||"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "204||"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3;x=y\r\nabc\r\n0\r\n\r\n", "200|okabc|"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nTrailer: x\r\n\r\n", "200|ok|"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", "200|until the end|"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "0||closed"),
        (b"", "0||closed"),
        (b"SSH-2.0-x\r\n\r\n", "0||malformed"),
        (b"HTTP/1.1 abc\r\n\r\n", "0||malformed"),
        (None, "0||timeout"),
    ],
)  # fmt: skip
def test_an_answer_is_read_or_named_as_none(answer: bytes | None, expected: str) -> None:
    """Length, chunks, end of connection, no body; what is cut, garbage or late is no answer."""
    with scripted(answer) as url:
        assert ask(url) == [expected]


def test_a_connection_that_the_server_closed_meanwhile_is_opened_again() -> None:
    """A kept-alive connection may be gone: the next request takes a new one and does not count as failed."""
    with scripted(OK, OK, OK) as url:
        assert ask(url, times=3) == ["200|ok|"] * 3


def test_nothing_listens() -> None:
    """A refused connection is recorded as no answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (line,) = ask(f"http://127.0.0.1:{free.getsockname()[1]}")
    assert line == "0||ConnectionError"
