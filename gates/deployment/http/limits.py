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
PACKED = ("gzip", "x-gzip", "deflate")
_ANY_HEADER_OF_ZLIB = 47
T = TypeVar("T")


class BeyondLimit(Exception):  # noqa: N818  -- an observation about the target, not an error of ours
    """The answer is larger, or takes longer, than allowed."""


@dataclass(slots=True)
class Allowance:
    """What is left of the limits of one exchange: its time, and its bytes on the wire. kept: its connection has served
    another one before, and did not end.
    """

    limit_s: float
    ends: float = 0.0
    received: int = 0
    has_head: bool = field(default=False)
    kept: bool = False

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
    """The body without its content encoding, or as it is if that is unknown or broken. We ask for no encoding; some
    servers encode all the same. Raise BeyondLimit if the unpacked body is too large.
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
