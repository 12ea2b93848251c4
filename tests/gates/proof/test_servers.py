"""The degenerate servers and the relay change only the bytes that they should."""

import http.client
import json
import socket
import time
from contextlib import closing, suppress
from urllib.parse import urlsplit

import pytest

from gates.proof.degenerate import SERVERS, DegenerateServer, never_unpassed
from gates.proof.healthy.before import in_chunks, other_case, spelled_otherwise, with_a_member
from gates.proof.workbench.relay import RelayOptions, relay
from gates.proof.workbench.servers import Asked, Reply, forward, serve

BODY = b'{"company_id": "x", "max": 3}'


def ask(base: str, path: str = "/dlq-replay", method: str = "POST", timeout_s: float = 5.0) -> Reply:
    parts = urlsplit(base)
    with closing(http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=timeout_s)) as connection:
        connection.request(method, path, BODY, {"Content-Type": "application/json", "Connection": "close"})
        with connection.getresponse() as response:
            return Reply(response.status, tuple(response.getheaders()), response.read())


def told(asked: Asked) -> Reply:
    """Answers with the request itself."""
    shown = {"method": asked.method, "path": asked.path, "body": asked.body.decode(), "headers": asked.headers}
    return Reply(201, (("Content-Type", "application/json"), ("X-A", "1"), ("X-A", "2")), json.dumps(shown).encode())


def named(name: str) -> DegenerateServer:
    return next(s for s in SERVERS if s.name == name)


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("yes", 200, b"{}"),
        ("empty", 200, b""),
        ("echo", 200, BODY),
        ("error-500", 500, b"oops"),
        ("redirect", 302, b""),
    ],
)
def test_a_degenerate_server_answers_everything_alike(name: str, status: int, body: bytes) -> None:
    """The answer does not depend on method or path."""
    with serve(named(name).make("http://127.0.0.1:9", "r1")) as base:
        for method, path in (("POST", "/functions/v1/dlq-replay"), ("GET", "/functions/v1/version"), ("BREW", "/")):
            reply = ask(base, path, method)
            assert (reply.status, reply.body) == (status, BODY if name == "echo" else body)


@pytest.mark.parametrize(("name", "code"), [("no", "unauthenticated"), ("limit-429", "rate_limited")])
def test_a_refusing_server_keeps_the_form_of_the_contract(name: str, code: str) -> None:
    """It answers with problem details and a code of the contract."""
    with serve(named(name).make("http://127.0.0.1:9", "r1")) as base:
        assert json.loads(ask(base).body)["code"] == code


def test_polite_yes_claims_the_release_and_success() -> None:
    """Its answers have the contract's form, the release and a state of success."""
    with serve(named("polite-yes").make("http://127.0.0.1:9", "r1")) as base:
        assert json.loads(ask(base, "/version", "GET").body)["release"] == "r1"
        assert json.loads(ask(base).body)["status"] == "completed"
        assert ask(base, "/events").status == 202


def test_garbage_is_no_http_and_hanging_answers_nothing() -> None:
    """Neither gives an answer, and a hanging server stops with its block."""
    with serve(named("garbage").make("", "")) as base, pytest.raises(http.client.HTTPException):
        ask(base)
    started = time.monotonic()
    with serve(named("hang").make("", "")) as base, pytest.raises(TimeoutError):
        ask(base, timeout_s=0.2)
    assert time.monotonic() - started < 10


def test_the_previous_build_says_another_release_and_forwards_the_rest() -> None:
    """/version names another release; other requests are forwarded."""

    def real(asked: Asked) -> Reply:
        return Reply(200, (), b'{"release": "r2", "drill_agent": true}') if "version" in asked.path else told(asked)

    with serve(real) as there, serve(named("previous-build").make(there, "r2")) as base:
        version = json.loads(ask(base, "/version", "GET").body)
        assert version["release"] != "r2"
        assert version["drill_agent"] is True
        assert ask(base).status == 201


def test_half_a_build_has_its_pages_and_not_its_functions() -> None:
    """Pages are forwarded and functions are absent; "every-other" fails every second request."""
    with serve(told) as there, serve(named("half-a-build").make(there, "r")) as base:
        assert ask(base, "/x/healthz", "GET").status == 201
        assert ask(base, "/x/dlq-replay").status == 404
    with serve(told) as there, serve(named("every-other").make(there, "r")) as base:
        assert sorted(ask(base).status for _ in range(4)) == [201, 201, 502, 502]


def test_a_request_is_forwarded_with_repeated_headers_and_a_chunked_body() -> None:
    """Repeated headers stay repeated in both directions."""
    with serve(told) as there, serve(lambda asked: forward(there, asked)) as base:
        parts = urlsplit(base)
        with socket.create_connection((str(parts.hostname), parts.port), timeout=5) as sock:
            sock.sendall(
                b"POST /p?q=1 HTTP/1.1\r\nHost: x\r\nX-S: 1\r\nX-S: 2\r\nTransfer-Encoding: chunked\r\n"
                b"Connection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            )
            answer = b"".join(iter(lambda: sock.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    seen = json.loads(body)
    assert (seen["path"], seen["body"]) == ("/p?q=1", "abcde")
    assert [v for k, v in seen["headers"] if k == "X-S"] == ["1", "2"]
    assert head.count(b"X-A:") == 2


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Content-Length: 3x\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n+2\r\nab",
    ],
)
def test_a_request_of_doubtful_length_is_refused_once(head: bytes) -> None:
    """A request of ambiguous length gets one 400: nothing in it is read as a second request."""
    with serve(told) as base:
        parts = urlsplit(base)
        with socket.create_connection((str(parts.hostname), parts.port), timeout=5) as sock:
            sock.sendall(
                b"POST /p HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
            )
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            with suppress(ConnectionResetError):
                answer = sock.recv(65_536)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"Server:" not in answer


def test_nobody_behind_is_a_bad_gateway() -> None:
    """The proxy answers 502 at once if the server behind it is gone."""
    assert forward("http://127.0.0.1:9", Asked("GET", "/")).status == 502


@pytest.mark.parametrize("delay_s", [0.0, 0.1])
def test_a_relay_changes_no_byte_and_holds_back_answers(delay_s: float) -> None:
    """The relay passes answers on, after its delay."""
    with serve(told) as there, relay(there, RelayOptions(delay_s=delay_s)) as base:
        started = time.monotonic()
        assert ask(base).status == 201
        assert time.monotonic() - started >= delay_s


def test_the_healthy_proxies_change_only_what_clients_must_ignore() -> None:
    """They change the case of headers and add members, but not to the API description."""
    reply = Reply(200, (("Content-Type", "application/json"),), b'{"a": 1}')
    assert ("cONTENT-tYPE", "application/json") in other_case(reply).headers
    assert json.loads(with_a_member(reply).body) == {"a": 1, "served_by": "edge-7"}
    described = Reply(200, reply.headers, b'{"openapi": "3.1.0"}')
    assert with_a_member(described) == described


def test_a_check_that_passes_on_every_degenerate_server_is_named() -> None:
    """Only checks over HTTP are asked not to pass; SQL and load checks are not."""
    checks = ("drill/a", "drill/b", "sql/c", "load/d")
    assert never_unpassed(checks, [["drill/a"], ["load/d", "drill/a"]]) == ("drill/b",)


def test_other_spellings_of_an_answer_say_the_same() -> None:
    """The members are reordered and the body is chunked; its meaning is the same."""
    reply = Reply(200, (("Content-Type", "application/json"),), b'{"a": 1, "b": "\xc3\xa9"}' + b" " * 99)
    spelled = spelled_otherwise(reply)
    assert json.loads(spelled.body) == json.loads(reply.body)
    assert list(json.loads(spelled.body)) == ["b", "a"]
    with serve(lambda _asked: in_chunks(reply)) as base:
        assert forward(base, Asked("GET", "/")).body == reply.body
