"""Limits of every HTTP exchange: the size of an answer, its time, and the age of its connection.

An answer beyond a limit counts as none: the contract sets no such limit, so the check is unknown. The message names the
observed and the allowed value.
"""

import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from gates.errors import STAYS

MOST_HEAD = 64 * 1024
"""Bytes of status line and headers, including every 1xx answer before them: eight times what common servers send."""
MOST_HEADERS = 200
MOST_BODY = 4 * 1024 * 1024
"""Bytes of a body, packed and unpacked: the largest /metrics and /openapi.json in use have 1 or 2 MB."""
KEEPALIVE_S = 1.0
"""How long an idle connection is reused: less than servers allow (gunicorn 2 s), so that none closes meanwhile."""
PACKED = frozenset({"gzip", "x-gzip", "deflate"})
UNREAD = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})
"""Encodings that clients know, and we do not unpack. What nobody knows, such as `utf-8`, clients ignore."""
MOST_ENCODINGS = 3
MOST_MEMBERS = 200
"""Of a packed body: each costs a copy of the rest. gzip may have several (RFC 1952, 2.2), in use of 64 KB or more."""
_ANY_HEADER_OF_ZLIB, _NO_HEADER = 47, -15
T = TypeVar("T")


class BeyondLimit(Exception):  # noqa: N818  -- an observation about the target, not an error of ours
    """The answer is larger, or takes longer, than allowed."""


@dataclass(slots=True)
class Allowance:
    """What is left of the limits of one exchange: its time, and its bytes on the wire. kept: its connection has served
    another one before, and did not end. has_more: bytes that nobody asked for came on a connection that was idle.
    """

    limit_s: float
    ends: float = 0.0
    received: int = 0
    has_head: bool = field(default=False)
    kept: bool = False
    has_more: bool = False

    def __post_init__(self) -> None:
        self.ends = time.monotonic() + self.limit_s

    def left_s(self) -> float:
        """Seconds that are left. Raise BeyondLimit if there are none, or if the head has no end."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise BeyondLimit(f"no whole answer within {self.limit_s:g} s, the limit for everything together")
        if not self.has_head and self.received > MOST_HEAD:
            raise BeyondLimit(f"more than {MOST_HEAD} bytes of headers and 1xx answers were sent; allowed: {MOST_HEAD}")
        return left

    def take(self, count: int) -> None:
        """Count received bytes. Raise BeyondLimit if there are too many."""
        self.received += count
        if self.received > MOST_HEAD + MOST_BODY:
            raise BeyondLimit(f"more than {self.received - 1} bytes were sent; allowed: a body of {MOST_BODY}")


def checked_headers(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The headers. Raise BeyondLimit if there are too many."""
    if len(headers) > MOST_HEADERS:
        raise BeyondLimit(f"{len(headers)} headers were sent; allowed: {MOST_HEADERS}")
    return headers


def unpacked(body: bytes, encoding: str) -> bytes:
    """The body without its content encodings. We ask for none; some servers encode all the same. Raise BeyondLimit if
    the unpacked body is too large, or if no client can read it: it is not what its encodings say.
    """
    known = [one for word in reversed(encoding.split(",")) if (one := word.strip().lower()) in PACKED | UNREAD]
    for one in known if body else ():
        if one in UNREAD or len(known) > MOST_ENCODINGS:
            raise BeyondLimit(f"{_SAID.format(encoding)} was sent; {_DUE}")
        body = _unpacked(body, encoding, one)
    return body


_SAID = "a body with Content-Encoding {!a:.80}"
_DUE = "allowed: none, as Accept-Encoding asks, or gzip or deflate that ends. See to what encodes: service or proxy"


def _unpacked(body: bytes, encoding: str, one: str) -> bytes:
    """The body without one encoding, as clients read it: all members, and deflate without its header, too."""
    headless = one == "deflate" and (body[0] & 15 != 8 or int.from_bytes(body[:2]) % 31) and body[:2] != b"\x1f\x8b"
    found, rest, members = b"", body, 0
    while rest:
        wrapped = zlib.decompressobj(_NO_HEADER if headless else _ANY_HEADER_OF_ZLIB)
        try:
            found += wrapped.decompress(rest, MOST_BODY + 1 - len(found))
        except zlib.error as error:
            behind = f", behind {len(body) - len(rest)} bytes that can" if found else ""
            raise BeyondLimit(f"{_SAID.format(encoding)} cannot be unpacked ({error}{behind}); {_DUE}") from None
        if len(found) > MOST_BODY:
            raise BeyondLimit(f"{len(body)} packed bytes hold more than {MOST_BODY}; allowed: a body of {MOST_BODY}")
        if not wrapped.eof:
            raise BeyondLimit(f"{_SAID.format(encoding)} was cut off; {_DUE}")
        rest, members = wrapped.unused_data, members + 1
        if members == MOST_MEMBERS and rest:
            raise BeyondLimit(f"{_SAID.format(encoding)} has more than {MOST_MEMBERS} members; {_DUE}")
    return found


def within(look: Callable[[], T], limit_s: float) -> T:
    """The result of `look`. Raise TimeoutError at the limit; the look then ends by itself. For what has no limit of its
    own, such as a name lookup. If no thread can be started, it runs without a limit.
    """
    found: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(look())
        except BaseException as error:  # noqa: BLE001  -- handed to the waiting thread
            raised.append(error)

    thread = threading.Thread(target=run, name=STAYS, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        run()
    else:
        thread.join(limit_s)
    if raised:
        raise raised[0]
    if not found:
        raise TimeoutError(f"no answer within {limit_s:g} s")
    return found[0]
