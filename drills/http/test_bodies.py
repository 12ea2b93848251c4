"""The HTTP surface: how large, how deep and how framed a body may be."""

import gzip
import json
import time
from functools import partial
from typing import Any

import pytest

from drills.workbench.bench import Bench
from drills.workbench.checks import SIGNED, Case, cases
from drills.workbench.credentials import REPLAY
from gates.checks.recorder import Observer, check
from gates.deployment.dialect.current import current
from gates.deployment.dialect.exchange import can_be_said, real_body
from gates.deployment.http.client import HttpDoor
from gates.deployment.http.wire import WireDoor
from gates.deployment.requests import BUSY, SIGNATURE, Request, encode_body, is_a_firewalls
from gates.evidence import Severity, Where
from gates.text import foreign

drill = partial(check, after=SIGNED, severity=Severity.WARN)

BODY_LIMIT, MEBIBYTE = 65_536, 1 << 20
EARLY_S = 1.0
"""A refusal that does not wait for the rest of a body comes sooner."""


def _padded(body: bytes, size: int) -> bytes:
    return body + b" " * (size - len(real_body(body)))


@drill("drill/http-surface/body-at-the-limit", where=Where.READ_ONLY, covers=("E14",))
def test_body_at_the_limit(bench: Bench) -> None:
    """A body of exactly 64 KiB is accepted, by token too.

    The service enforces another limit than the documented one.
    """
    body = _padded(bench.body(), BODY_LIMIT)
    bench.taken(bench.signed(body, "64 KiB"))
    if bench.target.admin_jwt and current().claims("tokens"):
        bench.taken(bench.with_token(bench.target.admin_jwt, body, "64 KiB, by token"))


SIZES = [
    Case("body-over-the-limit", "A body of one byte more than 64 KiB is refused with 413.", BODY_LIMIT + 1),
    Case("body-of-1-mebibyte", "A body of 1 MiB is read, dropped and refused with 413.", MEBIBYTE),
]


@cases("drill/http-surface", SIZES, severity=Severity.WARN, where=Where.READ_ONLY, after=SIGNED, covers=("E14",))
def test_body_over_the_limit(case: Case, bench: Bench) -> None:
    """A body over 64 KiB is refused, with an answer; so is an event of 1 MiB.

    Large bodies fill the memory of the service, or senders see a broken connection instead of the reason.
    """
    bench.opens(bench.signed())
    wide = bench.body(error_type="\u20ac" * (BODY_LIMIT // 3 - 200))  # three bytes each: few characters
    for body in (bench.body(), wide):
        bench.refused(bench.signed(_padded(body, case.value), case.name), 413, "body_too_large")
    if current().takes_events and case.value == MEBIBYTE:
        bench.refused(bench.event(_padded(bench.event().body, MEBIBYTE)), 413, "body_too_large")


@pytest.mark.waits(1)
@drill("drill/http-surface/body-is-read-before-the-refusal", where=Where.READ_ONLY, covers=("E14",))
def test_body_is_read_before_the_refusal(bench: Bench) -> None:
    """A body of 900 KB is read to its end before it is refused.

    A client that is still sending sees a broken connection instead of the reason.
    """
    body = _padded(bench.body(), 900_000)  # more than a server's library reads by itself
    bench.opens(bench.signed())
    head = f"POST {{path}}{REPLAY} HTTP/1.1\nContent-Type: application/json\nContent-Length: {len(body)}"
    answer = WireDoor(bench.target.base_url, timeout_s=EARLY_S).raw(head, body[: BODY_LIMIT + 1000])
    bench.seen.value(list(answer.statuses), "no answer before the end of the body")
    early = answer.statuses or answer.closed
    assert not early, (
        f"the start of a body of 900 KB was answered {answer.statuses}, closed: {answer.closed}; due: the rest is read"
    )
    bench.refused(bench.signed(body, "900 KB"), 413, "body_too_large")


@drill("drill/http-surface/chunked-body-over-the-limit", where=Where.STAGING, covers=("E14",))
def test_chunked_body(bench: Bench, wire: WireDoor) -> None:
    """A body over 64 KiB that is sent in chunks, without a length, is refused with 413 as well, and a smaller one is
    not.

    The limit holds only for senders that announce what they send.
    """
    bench.opens(bench.signed())
    for size in (BODY_LIMIT - 4096, BODY_LIMIT + 4096):
        body = _padded(bench.body(), size)
        real = real_body(body)
        parts = (real[i : i + 8192] for i in range(0, len(real), 8192))
        answer = wire.raw(
            _head("Connection: close", "Transfer-Encoding: chunked", f"{SIGNATURE}: {bench.mac(body)}"),
            b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in parts) + b"0\r\n\r\n",
        )
        bench.seen.require(answer.statuses, "no answer to a chunked body")
        status, is_over = answer.statuses[0], size > BODY_LIMIT
        bench.seen.require(status not in BUSY, f"a chunked body was answered {status}: a busy target")
        is_filtered = is_over and is_a_firewalls(status, answer.text.partition(b"\r\n\r\n")[2])
        bench.seen.require(not is_filtered, f"a chunked body was answered {status} by a firewall in front")
        bench.seen.count()
        bench.seen.value(status, 413 if is_over else "not 413", "status")
        due = (
            f"a chunked body of {size // 1024} KiB: observed {status}; allowed: {'413' if is_over else 'up to 64 KiB'}"
        )
        assert (status in {413, 411}) if is_over else (status != 413), due


@drill("drill/http-surface/compressed-bomb", where=Where.STAGING, covers=("A22",))
def test_compressed_bomb(bench: Bench) -> None:
    """A small compressed body that unfolds to 10 MB is refused within 2 s.

    A few kilobytes fill the memory of the service.
    """
    bench.opens(bench.signed())
    bomb = gzip.compress(_padded(bench.body(), 10_000_000))
    request = bench.signed(bomb, "10 MB in gzip").adding_header("Content-Encoding", "gzip")
    since = time.monotonic()
    answers = [bench.refused(request, (400, 413, 415)) for _ in range(2)]
    bench.seen.quick("refused", [a.elapsed_ms for a in answers], 2000, since)


# --- framing ------------------------------------------------------------------------------------------------------


def _head(*headers: str) -> str:
    return "\n".join([f"POST {{path}}{REPLAY} HTTP/1.1", "Content-Type: application/json", *headers])


SMUGGLED = "/version"
FRAMES: list[Case] = [
    Case(
        "length-and-chunks",
        "A request with both a length and chunks is refused and carries no second request.",
        lambda inner: ((f"Content-Length: {5 + len(inner)}", "Transfer-Encoding: chunked"), b"0\r\n\r\n" + inner),
        severity=Severity.WARN,  # Go's server reads the chunks and goes on: nobody is harmed but behind a lenient proxy
    ),
    Case(
        "two-lengths",
        "A request with two different lengths is refused and carries no second request.",
        lambda inner: ((f"Content-Length: {2 + len(inner)}", "Content-Length: 2"), b"{}" + inner),
    ),
    Case(
        "odd-chunked",
        "A request with an odd spelling of `chunked` is refused and carries no second request.",
        lambda inner: ((f"Content-Length: {5 + len(inner)}", "Transfer-Encoding: \x0bchunked"), b"0\r\n\r\n" + inner),
    ),
    Case(
        "bad-chunk-size",
        "A request whose chunk size is no number is refused and carries no second request.",
        lambda inner: (("Transfer-Encoding: chunked",), b"zz\r\n{}\r\n0\r\n\r\n" + inner),
    ),
]


@cases("drill/http-surface", FRAMES, where=Where.STAGING, after=SIGNED, covers=("A28",))
def test_framing(case: Case, wire: WireDoor, http: HttpDoor, seen: Observer) -> None:
    """A request whose end two servers may see differently is refused, and nothing in it is answered as a request.

    Request smuggling: behind a proxy, one sender's bytes become another sender's request.
    """
    plain = Request("GET", SMUGGLED, label="the inner request, sent properly")
    seen.expect(plain, http.send(plain), 200, control=True)
    headers, body = case.value(wire.inner_request(SMUGGLED))
    answer = wire.raw(_head(*headers), body)
    seen.count()
    seen.value(list(answer.statuses), "one refusal, or a closed connection")
    seen.require(answer.closed or answer.statuses, "neither an answer nor a closed connection")
    seen.witness = foreign.text(answer.text, 500)
    assert len(answer.statuses) <= 1, (
        f"{case.name}: {len(answer.statuses)} answers to one request; allowed: 1. What stands behind its body was"
        " answered as a request of its own: refuse such a head, or close after the answer (RFC 9112, 6.3)"
    )
    assert all(400 <= s < 600 for s in answer.statuses), f"{case.name}: observed {answer.statuses}; allowed: a refusal"


def _nested(depth: int) -> Any:
    return json.loads("[" * depth + "]" * depth)


@drill("drill/http-surface/nesting", where=Where.READ_ONLY, covers=("E14", "B25"))
def test_nesting(bench: Bench) -> None:
    """A body nested 64 levels is read, deeper ones are refused as invalid, and very deep nesting is no server error.

    A small body exhausts the stack of the service.
    """
    fields = {"company_id": bench.company, "event_type": "drill.plain", "aggregate_key": "k"}
    flat = bench.signer.post("/events", encode_body({**fields, "payload": {"a": _nested(20)}}), "20 levels")
    plain = bench.opens(flat)
    whole = bench.signer.post("/events", encode_body({**fields, "payload": {"a": _nested(62)}}), "64 levels")
    bench.seen.expect(whole, bench.http.send(whole), plain.status, plain.code or None)
    for depth in (64, 100, 5000):  # whether the outermost level counts is left open
        deep = encode_body({**fields, "payload": {"a": None}}).replace(b"null", b"[" * depth + b"]" * depth)
        bench.refused(bench.signer.post("/events", deep, f"{depth + 2} levels"), 400, "invalid_request")


@drill("drill/http-surface/signs-in-text", severity=Severity.WARN, where=Where.READ_ONLY, covers=("E14", "B25"))
def test_signs_in_text(bench: Bench) -> None:
    """Brackets, quotes and backslashes inside a JSON string are text: they neither nest nor end anything. A closed list
    does not nest what comes after it. A backslash before `u0000` is text, too, and a surrogate pair is one character.
    Names of members, and strings beyond 40 kB, obey the same rules about forbidden characters as other strings; and a
    body that is not UTF-8 is refused.

    A service that parses them by hand refuses correct messages, or reads another one than was sent.
    """
    plain = bench.opens(bench.signed(bench.body(error_type="plain"), "a plain text"))
    for text in (
        "[" * 100,
        "{" * 100,
        '"' * 50 + "}" * 50,
        '"' + "[" * 100,
        "\\" * 50,
        '\\", "max": 51, "error_type": "',
        r"\u0000\ud800",
    ):
        bench.refused(bench.signed(bench.body(error_type=text), f"a text {text[:12]!r}"), plain.status, plain.code)
    pair = bench.body(error_type="pair").replace(b'"pair"', rb'"\ud83d\ude00"')
    bench.refused(bench.signed(pair, "a character in two escapes"), plain.status, plain.code)
    for odd in (b"pl\xffin", b"pl\xed\xa0\x80in"):
        body = bench.body(error_type="plain").replace(b"plain", odd)
        if can_be_said(body):
            bench.refused(bench.signed(body, "bytes that are no UTF-8"), 400, "invalid_request")
    fields = {"company_id": bench.company, "event_type": "drill.plain"}
    one, many = (encode_body({**fields, "payload": {"a": [[]] * count}}) for count in (1, 100))
    alike = bench.opens(bench.signer.post("/events", one, "a list in a list"))
    bench.refused(bench.signer.post("/events", many, "100 lists side by side"), alike.status, alike.code)
    wide = encode_body({**fields, "payload": {"text": "x" * 40_000, "a": [[]]}})
    for sign in (rb"\u0000", rb"\ud800"):
        named, held = one.replace(b'"a"', b'"%s"' % sign), wide.replace(b"[[]]", b'[{"b":"%s"}]' % sign)
        bench.refused(bench.signer.post("/events", named, f"a member named {sign.decode()}"), 400, "invalid_request")
        bench.refused(bench.signer.post("/events", held, f"{sign.decode()} in 40 kB"), 400, "invalid_request")
