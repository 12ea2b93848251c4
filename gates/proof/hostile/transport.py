"""Answers that break HTTP itself: drips, floods, bombs, lies about length, torn connections, other protocols."""

import gzip
import itertools
import random
import zlib
from collections.abc import Callable, Iterable

from gates.proof.workbench.servers import HANG, Reply, raw

OK = b"HTTP/1.1 200 OK\r\n"
JSON_HEAD = OK + b"Content-Type: application/json\r\n"
CHUNKS = JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b'{"status":"ok"}'
MOST_PIECES = 400_000
""""Endless" means at most so many pieces of 64 KiB, 26 GB: a reader without a limit is out of memory long before."""
PIECE = b"A" * 65_536
DRIP_S = 0.5


def _endless(head: bytes, piece: bytes = PIECE) -> Reply:
    return Reply(stream=lambda: itertools.chain([head], itertools.repeat(piece, MOST_PIECES)))


def _drip(text: bytes) -> Reply:
    """A byte at a time, which a limit on each read never ends."""
    return Reply(stream=lambda: itertools.chain.from_iterable((bytes((byte,)), DRIP_S) for byte in text * 100))


def _slowly(head: bytes, piece: bytes) -> Reply:
    """The head, and then the same piece repeatedly, for minutes."""
    return Reply(stream=lambda: itertools.chain([head], itertools.chain.from_iterable([(piece, DRIP_S)] * 900)))


def _whole(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> Reply:
    kind = b"Content-Type: application/json"
    head = b"\r\n".join((b"HTTP/1.1 " + status, kind, *headers, b"Content-Length: %d" % len(body)))
    return raw(head + b"\r\n\r\n" + body)


def _chunked(chunks: bytes) -> Reply:
    return raw(CHUNKS + chunks)


def _of_length(said: bytes, *waits_s: float) -> Reply:
    """A body of fifteen bytes with another stated length."""
    return raw(JSON_HEAD + b"Content-Length: " + said + b"\r\n\r\n" + BODY, *waits_s)


def _coded(coding: bytes, body: Callable[[], Iterable[bytes]]) -> Reply:
    """An encoded body of unknown length."""
    head = JSON_HEAD + b"Content-Encoding: " + coding + b"\r\n\r\n"
    return Reply(stream=lambda: itertools.chain([head], body()))


def _gzip_bomb() -> Iterable[bytes]:
    """Gzip members of a quarter of a megabyte, each of a gigabyte of zeros and more, repeated."""
    return itertools.repeat(gzip.compress(bytes(64 << 20), 9), 400)


def _nested() -> Iterable[bytes]:
    inner = gzip.compress(gzip.compress(bytes(256 << 20), 9), 9)
    yield gzip.compress(inner, 9)


ZEROS = bytes.fromhex(
    "f7fe9ffffffff04f00c4610180eefd3fffffffe19f0088c32200ddfb7ffeffffc33f0110870500baf7fffcffff877f02"
    "200e0b0074effff9ffff0fff04401c1600e8defff3ffff1ffe0980382c00d0bdffe7ffff3ffc1300715800a07bff"
)
BROTLI_BOMB = (
    bytes.fromhex("cfffff7ff82700e2b14020")
    + ZEROS
    + (bytes.fromhex("cfffff7ff82700e2b00040") + ZEROS.replace(b"\xc3\x22", b"\xc3\x02")) * 7
    + b"?"
)
"""128 MiB of zeros, eight times."""


def _noise(size: int) -> bytes:
    return random.Random(1).randbytes(size)  # noqa: S311  -- reproducible


def _many(line: bytes) -> Reply:
    return raw(OK + line * 10_000 + b"Content-Length: 2\r\n\r\n{}")


def _away(place: str, status: int = 302) -> Reply:
    return Reply(status, (("Location", place),))


def _challenge(scheme: str) -> Reply:
    return Reply(401, (("WWW-Authenticate", scheme),), b"")


def _page(text: str) -> Reply:
    return Reply(200, (("Content-Type", "text/html; charset=utf-8"),), f"<!doctype html>{text}".encode())


TLS_ALERT = bytes.fromhex("15030300020246")
TLS_HELLO = bytes.fromhex("160303003d0200003903") + bytes(59)
HTTP2 = bytes.fromhex("00001204000000000000030000006400040000ffff000600002000")

BROKEN: tuple[tuple[str, str, Reply], ...] = (
    ("hang", "takes the connection and never answers", HANG),
    ("drip-status", "the status line, a byte every half second", _drip(OK)),
    ("drip-headers", "header lines, a byte every half second", _drip(OK + b"X-A: 1\r\n")),
    ("drip-body", "a body, a byte every half second", _slowly(JSON_HEAD + b"Content-Length: 900\r\n\r\n", b" ")),
    ("drip-chunks", "chunks of one byte, each half a second later", _slowly(CHUNKS, b"1\r\n \r\n")),
    ("drip-1xx", "100 Continue every half second, never an answer", _slowly(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
    ("flood-1xx", "100 Continue without end", _endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000)),
    (
        "flood-103",
        "Early Hints without end, with headers",
        _endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 1000),
    ),
    ("endless-body", "a body without end, of no stated length", _endless(JSON_HEAD + b"\r\n")),
    (
        "endless-spaces",
        "JSON that begins, and then spaces without end",
        _endless(JSON_HEAD + b'\r\n{"status":', b" " * 65_536),
    ),
    ("endless-headers", "headers without end", _endless(OK, b"X-A: " + b"a" * 1000 + b"\r\n")),
    ("endless-header", "one header line without end", _endless(OK + b"X-A: ")),
    ("endless-status", "a status line without end", _endless(b"HTTP/1.1 200 ")),
    ("endless-chunks", "chunks without end", _endless(CHUNKS, b"10000\r\n" + PIECE + b"\r\n")),
    ("endless-extension", "a chunk whose extension never ends", _endless(CHUNKS + b"1;a=")),
    ("endless-trailers", "trailers without end", _endless(CHUNKS + b"0\r\n", b"X-T: " + b"t" * 1000 + b"\r\n")),
    ("gzip-bomb", "gzip, a thousand times its size, member after member", _coded(b"gzip", _gzip_bomb)),
    ("gzip-in-gzip", "gzip in gzip in gzip, a quarter of a gigabyte in all", _coded(b"gzip, gzip, gzip", _nested)),
    ("deflate-bomb", "deflate, half a gigabyte", _coded(b"deflate", lambda: [zlib.compress(bytes(512 << 20), 9)])),
    ("brotli-bomb", "brotli, a gigabyte in a kilobyte", _coded(b"br", lambda: [BROTLI_BOMB])),
    ("gzip-of-noise", "says gzip, and is none", _coded(b"gzip", lambda: [_noise(4096)])),
    ("gzip-torn", "gzip that ends in the middle", _coded(b"gzip", lambda: [gzip.compress(BODY)[:-9]])),
    ("coding-unknown", "a content coding that nobody knows", _whole(_noise(64), b"Content-Encoding: x-nobody")),
    ("length-short", "says fewer bytes than it sends", _of_length(b"2")),
    ("length-long", "says more bytes than it sends, and closes", _of_length(b"900")),
    ("length-long-silent", "says more bytes than it sends, and waits", _of_length(b"900", 600.0)),
    ("length-negative", "a length of -1", _of_length(b"-1")),
    ("length-huge", "a length of 10^40", _of_length(b"1" + b"0" * 40)),
    ("length-of-5000-digits", "a length of 5000 digits", _of_length(b"9" * 5000)),
    ("length-text", "a length that is no number", _of_length(b"many")),
    ("length-twice", "two lengths that differ", _of_length(b"2\r\nContent-Length: 15")),
    (
        "length-and-chunks",
        "a length and chunks",
        raw(JSON_HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n" + BODY + b"\r\n0\r\n\r\n"),
    ),
    (
        "transfer-unknown",
        "a transfer coding that nobody knows",
        raw(JSON_HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + BODY),
    ),
    ("chunk-negative", "a chunk of -1 bytes", _chunked(b"-1\r\n" + BODY + b"\r\n0\r\n\r\n")),
    ("chunk-overflow", "a chunk of 16^40 bytes", _chunked(b"f" * 40 + b"\r\n" + BODY)),
    ("chunk-no-hex", "a chunk size that is no number", _chunked(b"zz\r\n" + BODY + b"\r\n0\r\n\r\n")),
    ("chunk-torn", "chunks that end before the last", _chunked(b"f\r\n" + BODY + b"\r\n")),
    ("status-none", "a status line without a status", raw(b"HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")),
    ("status-text", "a status that is no number", raw(b"HTTP/1.1 yes OK\r\nContent-Length: 2\r\n\r\n{}")),
    ("status-99", "status 99", raw(b"HTTP/1.1 99 Low\r\nContent-Length: 2\r\n\r\n{}")),
    ("status-1000", "status 1000", raw(b"HTTP/1.1 1000 High\r\nContent-Length: 2\r\n\r\n{}")),
    ("status-204-with-body", "204 with a body", _whole(BODY, status=b"204 No Content")),
    ("status-304", "304 to a first request", _whole(b"", status=b"304 Not Modified")),
    (
        "status-206",
        "206 to a request without a range",
        _whole(BODY[:4], b"Content-Range: bytes 0-3/15", status=b"206 Partial Content"),
    ),
    (
        "status-101",
        "switches protocols unasked",
        raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", 600.0),
    ),
    ("only-100", "100 Continue, then the end", raw(b"HTTP/1.1 100 Continue\r\n\r\n")),
    ("http-0.9", "a body without any head", raw(BODY)),
    ("http-9.9", "HTTP/9.9", raw(b"HTTP/9.9 200 OK\r\nContent-Length: 15\r\n\r\n" + BODY)),
    ("icy", "ICY instead of HTTP", raw(b"ICY 200 OK\r\nContent-Length: 15\r\n\r\n" + BODY)),
    ("http-2", "frames of HTTP/2", raw(HTTP2)),
    ("tls", "TLS on a plain port", raw(TLS_ALERT)),
    ("tls-hello", "a TLS hello on a plain port", raw(TLS_HELLO)),
    ("ssh", "the banner of SSH", raw(b"SSH-2.0-OpenSSH_9.6\r\n", 5.0)),
    ("smtp", "the banner of a mail server", raw(b"220 mail.example ESMTP\r\n", 5.0)),
    ("noise", "four kilobytes of noise", raw(_noise(4096))),
    ("zeros", "NUL without end", _endless(b"", bytes(65_536))),
    ("newlines", "empty lines without end", _endless(b"", b"\r\n" * 32_768)),
    ("close", "closes without a byte", raw()),
    ("reset", "resets without a byte", raw(reset=True)),
    ("reset-in-head", "resets in the headers", raw(JSON_HEAD, reset=True)),
    ("reset-in-body", "resets in the body", raw(JSON_HEAD + b"Content-Length: 15\r\n\r\n" + BODY[:7], reset=True)),
    ("reset-in-chunk", "resets in a chunk", Reply(stream=lambda: [CHUNKS + b"f\r\n", BODY[:7]], reset=True)),
    ("header-no-colon", "a header without a colon", raw(OK + b"this is no header\r\nContent-Length: 2\r\n\r\n{}")),
    ("header-nul", "NUL in a header", raw(OK + b"X-A: a\x00b\r\nContent-Length: 2\r\n\r\n{}")),
    ("header-empty-name", "a header without a name", raw(OK + b": a\r\nContent-Length: 2\r\n\r\n{}")),
    ("header-60-kb", "a header of 60 KB", raw(OK + b"X-A: " + b"a" * 60_000 + b"\r\nContent-Length: 2\r\n\r\n{}")),
    ("headers-10000", "ten thousand headers", _many(b"X-A: 1\r\n")),
    ("cookies-10000", "ten thousand cookies", _many(b"Set-Cookie: a=1; Path=/\r\n")),
    ("redirect-loop", "redirects to itself", _away("?again")),
    ("redirect-host", "redirects to another host", _away("http://metadata.invalid/latest/")),
    ("redirect-file", "redirects to a file", _away("file:///etc/passwd")),
    ("redirect-308", "redirects for good, with the method", _away("http://127.0.0.1:1/", 308)),
    ("redirect-nowhere", "redirects without saying where", Reply(302)),
    ("auth-basic", "asks for a password", _challenge('Basic realm="login"')),
    ("auth-negotiate", "asks for Kerberos", _challenge("Negotiate")),
    ("auth-proxy", "a proxy asks for a password", Reply(407, (("Proxy-Authenticate", 'Basic realm="p"'),))),
    (
        "login-page",
        "a login page with 200",
        _page("<title>Log in</title><form method=post><input name=password></form>"),
    ),
    (
        "captive-portal",
        "a captive portal with 200",
        _page("<meta http-equiv=refresh content='0;url=http://portal.invalid/'>"),
    ),
    ("maintenance", "a maintenance page with 200", _page("<h1>We will be back soon</h1>")),
    ("payment-required", "402 of a provider whose bill is not paid", Reply(402, (), b"suspended")),
    ("gone", "410 to everything", Reply(410)),
    ("teapot", "418 to everything", Reply(418)),
    ("bad-gateway", "502 of a load balancer", Reply(502, (("Content-Type", "text/html"),), b"<h1>502</h1>")),
    ("unavailable", "503, to be tried again in a year", Reply(503, (("Retry-After", "31536000"),))),
)
"""The answer to every request: name, description, answer. None of it is a deployment."""
