"""How much of an answer is read, for how long, and over how old a connection: the limits of every HTTP exchange.

An answer beyond a limit is no answer: the contract sets none of these limits, so that the check is unknown. It names
what was sent and what is allowed.
"""

import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from gates.errors import STAYS

MOST_HEAD = 64 * 1024
"""Bytes of status line and headers, with every 1xx answer before them: eight times what common servers send."""
MOST_HEADERS = 200
MOST_BODY = 4 * 1024 * 1024
"""Bytes of a body, both as it was sent and unpacked: the largest /metrics and /openapi.json in use have 1 or 2 MB."""
KEEPALIVE_S = 1.0
"""An idle connection is used again for so long, well below what servers allow (gunicorn 2 s): no request of ours is to
meet one that is closing.
"""
PACKED = ("gzip", "x-gzip", "deflate")
_ANY_HEADER_OF_ZLIB = 47
T = TypeVar("T")


class BeyondLimit(Exception):  # noqa: N818  -- an observation about the target, not an error of ours
    """The answer is larger, or takes longer, than an answer may."""


@dataclass(slots=True)
class Allowance:
    """What is left of the limits of one exchange: its whole time, and its bytes on the wire.

    kept: its connection has served another one before, and did not end.
    """

    limit_s: float
    ends: float = 0.0
    received: int = 0
    has_head: bool = field(default=False)
    kept: bool = False

    def __post_init__(self) -> None:
        self.ends = time.monotonic() + self.limit_s

    def left_s(self) -> float:
        """Seconds that are left. Raise BeyondLimit where there are none, or where the head has no end."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise BeyondLimit(f"no whole answer within {self.limit_s:g} s, the limit for everything together")
        if not self.has_head and self.received > MOST_HEAD:
            raise BeyondLimit(f"more than {MOST_HEAD} bytes of headers and 1xx answers were sent; allowed: {MOST_HEAD}")
        return left

    def take(self, count: int) -> None:
        """So many more bytes came. Raise BeyondLimit where that is too many."""
        self.received += count
        if self.received > MOST_HEAD + MOST_BODY:
            raise BeyondLimit(f"more than {self.received - 1} bytes were sent; allowed: a body of {MOST_BODY}")


def checked_headers(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The headers. Raise BeyondLimit where there are too many."""
    if len(headers) > MOST_HEADERS:
        raise BeyondLimit(f"{len(headers)} headers were sent; allowed: {MOST_HEADERS}")
    return headers


def unpacked(body: bytes, encoding: str) -> bytes:
    """The body without its content encoding, as it is where that is unknown or broken.

    We ask for no packing; some servers pack all the same. Raise BeyondLimit where it unpacks to more than is read.
    """
    if encoding.strip().lower() not in PACKED:
        return body
    wrapped = zlib.decompressobj(_ANY_HEADER_OF_ZLIB)
    try:
        found = wrapped.decompress(body, MOST_BODY + 1)
    except zlib.error:
        return body
    if len(found) > MOST_BODY:
        raise BeyondLimit(f"{len(body)} packed bytes hold more than {MOST_BODY}; allowed: a body of {MOST_BODY}")
    return found if wrapped.eof else body


def within(look: Callable[[], T], limit_s: float) -> T:
    """The result of the look. Raise TimeoutError at the limit; the look is then left to end by itself.

    For what has no limit of its own: a name that is looked up. Where no thread can be had, it is looked all the same.
    """
    found: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(look())
        except BaseException as error:  # noqa: BLE001  -- handed to the thread that waits
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
