"""The target's clock, by which credentials are made: they stay valid if the gate's own clock is wrong or is set."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.requests import Answer, Request

SKEW_LIMIT_S = 2.0
"""Smaller differences are taken for the rounding of the Date header and the time of the answer's way."""


def date_of(answer: Answer) -> float | None:
    """The Date of an answer in Unix seconds; None without one."""
    try:
        return parsedate_to_datetime(answer.header("date") or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


@dataclass
class Clock:
    """Our clock plus an offset in seconds, measured again if our clock was set meanwhile."""

    http: HttpDoor
    ours: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    offset_s: float = field(init=False)
    _apart_s: float = field(init=False)
    """How far our clock is ahead of the monotonic one, which nobody sets."""

    def __post_init__(self) -> None:
        self._measure()

    def now(self) -> int:
        """Unix seconds."""
        if abs(self.ours() - self.steady() - self._apart_s) > SKEW_LIMIT_S:
            self._measure()
        return int(self.ours() + self.offset_s)

    def _measure(self) -> None:
        """Compare the Date header of an answer, and its Age in a cache, with our clock. A small difference is none."""
        self.offset_s, self._apart_s = 0.0, self.ours() - self.steady()
        try:
            answer = self.http.send(Request("GET", "/healthz"))
            in_cache_s = int(answer.header("age") or 0)
        except (NoAnswer, ValueError):
            return
        shown = date_of(answer)
        if shown is None:
            return
        offset_s = shown + in_cache_s + 0.5 - self.ours()
        self.offset_s = offset_s if abs(offset_s) > SKEW_LIMIT_S else 0.0
