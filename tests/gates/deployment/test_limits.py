"""Every HTTP exchange has limits, even against servers that respect none."""

import contextlib
import itertools
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import psycopg
import pytest

from gates.deployment.http import addresses, client
from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.http.wire import RawAnswer, WireDoor
from gates.deployment.requests import Answer, Request
from gates.deployment.sql import database
from gates.proof.hostile.transport import BROKEN
from gates.proof.workbench.servers import Reply, serve
from tests.small_target import accepting
from tests.waiting import pause, without_threads

LIMIT_S = 0.5
IDLE_S = 1.5
OK = b"HTTP/1.1 200 OK\r\n"


def got(url: str) -> Answer:
    """The answer to one request through a new door."""
    with HttpDoor(url) as door:
        return door.send(Request("GET", "/"))


def saying(answer: bytes) -> AbstractContextManager[str]:
    """A server that answers every connection alike."""

    def serve(peer: socket.socket, _number: int, _closing: threading.Event) -> None:
        peer.recv(65_536)
        peer.sendall(answer)

    return accepting(serve)


def impatient(connections: list[int]) -> AbstractContextManager[str]:
    """A server that ends connections after IDLE_S; `connections` counts the requests on each."""

    def serve(peer: socket.socket, number: int, _closing: threading.Event) -> None:
        connections.extend([0] * (number + 1 - len(connections)))
        last = time.monotonic()
        while peer.recv(65_536) and time.monotonic() - last < IDLE_S:
            connections[number] += 1
            peer.sendall(OK + b"Content-Length: 0\r\n\r\n")
            last = time.monotonic()

    return accepting(serve)


HEALTH = Request("GET", "/healthz")


def test_an_idle_connection_is_not_used_again_when_the_server_may_end_it() -> None:
    """A server that ends idle connections after 1.5 s still answers every request."""
    with impatient([]) as base, HttpDoor(base) as door:
        for pause_s in (0.0, IDLE_S + 0.1):
            pause(pause_s)
            assert door.send(HEALTH).status == 200


def test_a_connection_is_one_threads_own() -> None:
    """A thread uses its own connection again, and never another thread's."""
    connections: list[int] = []
    with impatient(connections) as base, HttpDoor(base) as door:
        door.send(HEALTH)
        door.send(HEALTH)
        assert [a.status for a in door.several([HEALTH])] == [200]
    assert connections == [2, 1]


LENGTH = OK + b"Content-Length: %d\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def _endless(first: bytes, again: bytes) -> Reply:
    return Reply(stream=lambda: itertools.chain([first], itertools.repeat(again)))


OWN = {
    "endless-length": _endless(LENGTH % 10**15, b"x" * 65_536),
    "endless-small-chunks": _endless(CHUNKED, b"1\r\nx\r\n" * 10_000),
    "drip-trailers": Reply(stream=lambda: itertools.chain([CHUNKED + b"0\r\n"], itertools.cycle((b"a: b\r\n", 0.05)))),
}
NO_ANSWERS = ("ssh", "deflate-bomb", "length-twice", "length-negative", "chunk-no-hex", "status-text", "headers-10000")
ENDLESS = OWN | {
    name: reply
    for name, _, reply in BROKEN
    if name.startswith(("drip", "endless", "flood", "hang")) or name in NO_ANSWERS
}
"""What the proof answers, and what is not worth a run of the whole gate."""


@pytest.mark.parametrize("name", ENDLESS)
def test_no_answer_is_without_limits(name: str) -> None:
    """Whatever a server does with its socket, the exchange ends in time as no answer."""
    with serve(lambda _: ENDLESS[name]) as url, HttpDoor(url, timeout_s=LIMIT_S) as door:
        began = time.monotonic()
        with pytest.raises(NoAnswer) as none:
            door.send(Request("GET", "/version"))
        assert time.monotonic() - began < LIMIT_S + 1.5
    assert "/version" in str(none.value)


@pytest.mark.parametrize("name", [name for name in ENDLESS if name.startswith(("drip", "endless", "flood"))])
def test_a_raw_exchange_ends_as_well(name: str) -> None:
    """The raw door keeps what came before its time was up."""
    with serve(lambda _: ENDLESS[name]) as url:
        began = time.monotonic()
        answer = WireDoor(url, timeout_s=LIMIT_S).raw("GET {path}/ HTTP/1.1", b"")
        assert time.monotonic() - began < LIMIT_S + 1.5
    assert not answer.closed
    assert len(answer.text) < 2_000_000


def test_what_comes_before_a_final_answer_is_none() -> None:
    """The raw door counts final answers only, not interim ones (100, 103) or quotes in a body."""
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    final = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    quoted = b"the line was: HTTP/1.1 200 OK"
    refused = b"HTTP/1.1 400 Bad Request\r\n"
    length, close = (refused + kind + b"\r\n\r\n" + quoted for kind in (b"Content-Length: 29", b"Connection: close"))
    chunks = refused + b"Transfer-Encoding: chunked\r\n\r\n1d\r\n" + quoted + b"\r\n0\r\n\r\n"
    told = [(early, ()), (early + final, (413,)), (final + early + final, (413, 413)), (b"none\r\n" + final, (413,))]
    told += [(length, (400,)), (close, (400,)), (length + final, (400, 413)), (chunks + final, (400, 413))]
    for said, expected in told:
        with saying(said) as url:
            assert WireDoor(url, timeout_s=LIMIT_S).raw("GET {path}/ HTTP/1.1", b"").statuses == expected


@pytest.mark.parametrize(
    "behind",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nX",
        b"HTTP/1.1 200 OK\r\nX-A: ",  # the next answer would be of this status
        b"HTTP/1.1 20",
        b"\r\n",
        b"}",
    ],
)
def test_what_stands_behind_an_answer_is_no_answer(behind: bytes) -> None:
    """Extra bytes are not the next answer: that request fails, and a new connection works."""

    def more(peer: socket.socket, number: int, _closing: threading.Event) -> None:
        while peer.recv(65_536):
            peer.sendall(LENGTH % 1 + b"%d" % number + behind)

    with accepting(more) as url, HttpDoor(url) as door:
        assert door.send(HEALTH).body == b"0"
        with pytest.raises(NoAnswer, match="that nobody asked for stood behind"):
            door.send(HEALTH)
        assert door.send(HEALTH).body == b"1"


@pytest.mark.parametrize(
    ("late", "is_wrong"),
    [(LENGTH % 1 + b"X", True), (b"}", True), (b"HTTP/1.0 408 Request Time-out\r\nContent-Length: 0\r\n\r\n", False)],
)
def test_what_comes_late_behind_an_answer_is_told(late: bytes, is_wrong: bool) -> None:
    """Bytes on an idle connection fail the next request, but for the notice by which a server ends such a one."""
    was_late = threading.Event()

    def more(peer: socket.socket, number: int, _closing: threading.Event) -> None:
        while peer.recv(65_536):
            peer.sendall(LENGTH % 1 + b"%d" % number)
            if not number:
                pause(0.05)
                peer.sendall(late)
                was_late.set()

    with accepting(more) as url, HttpDoor(url) as door:
        assert door.send(HEALTH).body == b"0"
        assert was_late.wait(LIMIT_S * 10)
        if is_wrong:
            with pytest.raises(NoAnswer, match="that nobody asked for stood behind"):
                door.send(HEALTH)
        assert door.send(HEALTH).body == (b"2" if is_wrong else b"1")


def test_a_connection_that_ends_as_it_is_used_again_has_nothing_behind_it() -> None:
    """The control: a closed connection without extra bytes gives another error."""

    def once(peer: socket.socket, number: int, _closing: threading.Event) -> None:
        peer.recv(65_536)
        peer.sendall(LENGTH % 1 + b"0")
        peer.recv(65_536)

    with accepting(once) as url, HttpDoor(url) as door:
        assert door.send(HEALTH).body == b"0"
        with pytest.raises(NoAnswer, match="closed without an answer"):
            door.send(HEALTH)


def test_a_connection_that_ends_behind_its_answer_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server ends each connection right after an answer, unannounced. The next request opens another."""
    monkeypatch.setattr(client, "SETTLED_S", LIMIT_S)

    def recycling(peer: socket.socket, _number: int, _closing: threading.Event) -> None:
        peer.recv(65_536)
        peer.sendall(LENGTH % 1 + b"0")
        pause(LIMIT_S / 50)

    with accepting(recycling) as url, HttpDoor(url) as door:
        assert [door.send(HEALTH).body for _ in range(3)] == [b"0"] * 3


def test_what_goes_out_is_what_was_asked() -> None:
    """Path and headers go out unchanged, with one Host, one length and no compression."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                heard.append(peer.recv(65_536))
                peer.sendall(LENGTH % 0)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with HttpDoor(f"{url}/v1/") as door:
            door.send(Request("POST", "/a/../b%2Fc?x=ü y", (("B", "1"), ("A", "ü"), ("B", "2")), b"{}"))
        thread.join(5)
    head, _, body = heard[0].partition(b"\r\n\r\n")
    first, *rest = head.split(b"\r\n")
    assert first == b"POST /v1/a/../b%2Fc?x=%C3%BC%20y HTTP/1.1"
    assert rest.pop().startswith(b"traceparent: ")
    assert rest == [
        *(f"Host: {url.removeprefix('http://')}".encode(), b"Accept-Encoding: identity", b"Content-Length: 2"),
        *(b"B: 1", "A: ü".encode(), b"B: 2"),
    ]
    assert body in {b"{}", b""}


def listeners(held: contextlib.ExitStack) -> list[socket.socket]:
    for _ in range(20):
        with contextlib.ExitStack() as tried:
            made, port = list[socket.socket](), 0
            for number in range(2, 8):
                listener = tried.enter_context(socket.socket())
                try:
                    listener.bind((f"127.0.0.{number}", port))
                except OSError:
                    break
                port = listener.getsockname()[1]
                made.append(listener)
            else:
                held.push(tried.pop_all())
                return made
    raise OSError("no port was free on six addresses in 20 tries")


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """The name many.example has six addresses that accept no connection; tests may change them."""
    with contextlib.ExitStack() as held:
        places = list[tuple[str, int]]()
        for listener in listeners(held):
            listener.listen(0)
            for _ in range(3):
                caller = held.enter_context(socket.socket())
                caller.setblocking(False)
                caller.connect_ex(listener.getsockname())
            places.append(listener.getsockname())
        real = socket.getaddrinfo

        def resolve(host: str, at: Any, *rest: Any, **more: Any) -> Any:
            if host != "many.example":
                return real(host, at, *rest, **more)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        yield places


def assert_given_up_in_time(place: str) -> None:
    """HTTP, the raw door and SQL give this place up at their limit."""
    http, wire = HttpDoor(f"http://{place}", timeout_s=LIMIT_S), WireDoor(f"http://{place}", timeout_s=LIMIT_S)
    asked: tuple[Callable[[], object], ...] = (
        lambda: http.send(Request("GET", "/")),
        lambda: wire.send(Request("GET", "/")),
        lambda: wire.raw("GET {path}/ HTTP/1.1", b""),
        lambda: database.connect(f"postgresql://u@{place}/d"),
    )
    for ask in asked:
        started = time.monotonic()
        with pytest.raises((NoAnswer, psycopg.OperationalError)):
            ask()
        assert time.monotonic() - started < 2 * LIMIT_S + 1.0


def test_addresses_of_a_name_share_one_limit(silent: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Six silent addresses take no longer than one, over HTTP, the raw door and SQL."""
    monkeypatch.setattr(database, "CONNECT_TIMEOUT_S", LIMIT_S)
    assert_given_up_in_time(f"many.example:{silent[0][1]}")


def test_looking_up_a_name_is_part_of_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that hangs is cut off at the limit, over HTTP, the raw door and SQL."""
    over = threading.Event()
    monkeypatch.setattr(database, "CONNECT_TIMEOUT_S", LIMIT_S)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30))
    try:
        assert_given_up_in_time("no.example")
    finally:
        over.set()


@pytest.mark.parametrize("host", ["db..example", ".example", "a" * 64 + ".example"])
def test_a_host_that_is_no_name_is_one_that_is_not_there(host: str) -> None:
    """An invalid host name, as from an empty variable, is no internal error."""
    for ask in (HttpDoor(f"http://{host}").send, WireDoor(f"http://{host}").send):
        with pytest.raises(NoAnswer):
            ask(Request("GET", "/"))
    with pytest.raises(psycopg.OperationalError):
        database.connect(f"postgresql://u@{host}/d")


def test_a_name_is_looked_up_where_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started, the name is looked up without one."""
    with saying(LENGTH % 0) as base:
        without_threads(monkeypatch)
        assert got(base.replace("127.0.0.1", "localhost")).status == 200
        with pytest.raises(psycopg.OperationalError, match="refused"):
            database.connect("postgresql://u@localhost:9/d")


def test_both_doors_log_in_and_unpack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both doors send the URL's login and decompress answers."""
    heads: list[bytes] = []
    real = WireDoor._exchange

    def seen(door: WireDoor, text: bytes, first: str) -> RawAnswer:
        heads.append(text)
        return real(door, text, first)

    monkeypatch.setattr(WireDoor, "_exchange", seen)
    packed = zlib.compress(b"{}")
    answer = OK + b"Content-Encoding: deflate\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    with saying(answer) as base:
        url = base.replace("//", "//user:word@")
        assert got(url).body == WireDoor(url).send(Request("GET", "/")).body == b"{}"
        assert WireDoor(url).raw("GET {path}/ HTTP/1.1", b"").statuses == (200,)
        WireDoor(url).raw("GET {path}/ HTTP/1.1\nAuthorization: Bearer x", b"")
    login = b"Authorization: Basic dXNlcjp3b3Jk\r\n"
    assert [login in head for head in heads] == [True, True, False]


def test_an_address_that_answers_is_reached_past_a_silent_one(silent: list[tuple[str, int]]) -> None:
    """A dead address does not use up the time of the next one."""
    with saying(LENGTH % 0) as base:
        port = int(base.rpartition(":")[2])
        silent[:] = [("127.0.0.9", port), ("127.0.0.1", port)]  # nobody listens at the first one
        assert got(f"http://many.example:{port}").status == 200
        assert WireDoor(f"http://many.example:{port}").send(Request("GET", "/")).status == 200


def test_a_silent_address_costs_its_head_start_and_no_more(
    silent: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent address is tried last from then on; one that refuses keeps its place."""
    late = set[str]()
    monkeypatch.setattr(addresses, "_LATE", late)
    quiet, port = silent[0]
    with socket.create_server(("127.0.0.8", port)):  # at 127.0.0.1 another program may have this port
        silent[:] = [("127.0.0.9", port), (quiet, port), ("127.0.0.8", port)]
        tried = list[str]()

        def connect(address: str, share_s: float) -> None:
            tried.append(address)
            socket.create_connection((address, port), share_s).close()

        for _ in range(2):
            addresses.reached("many.example", port, lambda: 5.0, connect)
    assert tried == ["127.0.0.9", quiet, "127.0.0.8", "127.0.0.9", "127.0.0.8"]
    assert late == {quiet}


def test_what_was_never_reached_did_not_hang_up() -> None:
    """A refused connection is no answer, and does not count as closed by the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(NoAnswer):
            WireDoor(f"http://127.0.0.1:{free.getsockname()[1]}").raw("GET {path}/ HTTP/1.1", b"")
