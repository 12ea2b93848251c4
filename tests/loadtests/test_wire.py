"""The lean HTTP client against real sockets: framing, reuse, limits. Runs in a process of its own, as gevent does."""

import gzip
import socket
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.loadtests.load_process import ENVIRON, Load
from tests.small_target import accepting

PROGRAM = """
from loadtests.engine.drive import Call, Drive
from loadtests.plan import Credentials, LoadPlan
import gevent
url, times, method, idle_s = words
drive = Drive(LoadPlan(url, timeout_s=0.5))
connection = drive.connection()
for _ in range(int(times)):
    gevent.sleep(float(idle_s))  # the end of a connection arrives
    call = Call("x", "GET", "/", b"%b / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" % method.encode())
    status = drive.request(call, connection)
    error = [dict(g.tags).get("error", "") for g in drive.samples.groups.values()][-1]
    print(status, connection.body.decode(), error, sep="|")
"""


def scripted(*answers: bytes | None) -> AbstractContextManager[str]:
    """A server that answers the n-th connection's requests with the n-th bytes, then closes; None: never answers."""

    def serve(peer: socket.socket, number: int, closing: threading.Event) -> None:
        peer.recv(65536)
        answer = answers[number] if number < len(answers) else None
        closing.wait() if answer is None else peer.sendall(answer)

    return accepting(serve)


def dripping(first: bytes) -> AbstractContextManager[str]:
    """A server that begins with these bytes and sends one more every 50 ms."""

    def serve(peer: socket.socket, _number: int, closing: threading.Event) -> None:
        peer.recv(65536)
        peer.sendall(first)
        while not closing.wait(0.05):
            peer.sendall(b"x")

    return accepting(serve)


def hanging_up(answered: bool) -> AbstractContextManager[str]:
    """A server that hangs up at once, or after it has read the second request of a connection."""

    def serve(peer: socket.socket, _number: int, _closing: threading.Event) -> None:
        peer.recv(65536)
        peer.sendall(OK)
        if answered:
            peer.recv(65536)

    return accepting(serve)


def ask(url: str, times: int = 1, method: str = "GET", idle_s: float = 0.05) -> list[str]:
    with TemporaryDirectory() as folder:
        asking = Load([url, str(times), method, str(idle_s)], Path(folder), ENVIRON, text=PROGRAM)
        said, _ = asking.communicate(timeout=30)
        assert asking.returncode == 0, said
    return said.strip().splitlines()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OK_PACKED = gzip.compress(b"ok", mtime=0)
PACKED = b"HTTP/1.1 200 OK\r\nContent-Encoding: GZip\r\nContent-Length: %d\r\n\r\n%b"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (OK, "200|ok|"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, "200|ok|"),
        (PACKED % (len(OK_PACKED), OK_PACKED), "200|ok|"),
        (PACKED % (2, b"ok"), "0|ok|encoded"),
        (b"HTTP/1.1 503 No\r\ncontent-length:0\r\n\r\n", "503||"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "204||"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3;x=y\r\nabc\r\n0\r\n\r\n", "200|okabc|"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nTrailer: x\r\n\r\n", "200|ok|"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", "200|until the end|"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "0||closed"),
        (b"", "0||closed"),
        (b"SSH-2.0-x\r\n\r\n", "0||malformed"),
        (b"HTTP/1.1 abc\r\n\r\n", "0||malformed"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "0||malformed"),
        (b"HTTP/1\x001 200 OK\r\n\r\n", "0||malformed"),
        (b"HTTP/1.1 +20 OK\r\n\r\n", "0||malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nok", "0||malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "200|ok|"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\nContent-Length: 0\r\n\r\nok", "0||malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "200|ok|"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n0123456789", "0||malformed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-6\r\nxxxx\r\n", "0||malformed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 3 + b"0\r\n\r\n", "200|xxx|"),
        (b"HTTP/1.1 103 Early\r\n\r\n" * 500 + OK, "200|ok|"),
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


@pytest.mark.parametrize(("method", "second"), [("GET", "200|ok|"), ("POST", "0||closed")])
def test_what_may_not_be_repeated_has_failed_where_the_server_hangs_up_on_it(method: str, second: str) -> None:
    """A POST that was sent over a kept connection and got no answer is a failure, as in k6; a GET is sent again."""
    with hanging_up(answered=True) as url:
        assert ask(url, times=2, method=method) == ["200|ok|", second]


def test_no_request_is_sent_over_a_connection_that_the_server_has_closed() -> None:
    """An idle connection whose end has arrived costs nobody a request, not even a POST."""
    with hanging_up(answered=False) as url:
        assert ask(url, times=2, method="POST") == ["200|ok|"] * 2


def test_a_connection_that_was_idle_for_a_second_is_not_used_again() -> None:
    """Servers close idle connections after two seconds, some sooner: no POST may meet that moment."""
    with hanging_up(answered=True) as url:
        assert ask(url, times=2, method="POST", idle_s=1.1) == ["200|ok|"] * 2


def test_nothing_listens() -> None:
    """A refused connection is no answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (line,) = ask(f"http://127.0.0.1:{free.getsockname()[1]}")
    assert line == "0||ConnectionError"


DOES_NOT_END = {
    "status line": (b"HTTP/1.1 200 ", b"x" * 65_536),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 10_000),
    "1xx": (b"", b"HTTP/1.1 103 Early\r\n\r\n" * 3_000),
    "body": (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536),
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x" * 65_536),
    "small chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000),
    "chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n", b"x" * 65_536),
    "chunk line": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1" * 65_536),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 10_000),
}


@pytest.mark.parametrize("name", DOES_NOT_END)
def test_an_answer_without_end_is_none(name: str) -> None:
    """It is given up at the limits of an answer or of the request's time, and is no answer."""
    first, again = DOES_NOT_END[name]
    with scripted(first + again * (8_000_000 // len(again))) as url:
        (line,) = ask(url)
    assert line in {"0||too large", "0||timeout", "0||malformed"}


def test_a_body_that_only_time_ended_is_no_answer() -> None:
    """A body without a length whose connection stays open is late, not whole."""
    with dripping(b"HTTP/1.1 200 OK\r\n\r\n") as url:
        assert ask(url) == ["0||timeout"]
