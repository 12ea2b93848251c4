"""How long this process did not run when it wanted to: a thread that wakes every 20 ms notes how late it was. A process
that is stopped, or lacks CPU or the interpreter lock, measures the target late by at most that much.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cache

EVERY_S = 0.02
LEAST_S = 0.002
"""Smaller delays are normal for timers, and no standstill."""
KEPT = 5000


class Standstill:
    """Notes of one process. Times are those of `clock`, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._notes: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._due = clock() + EVERY_S

    def wake(self) -> None:
        """Note how late this is, and when the next one is due."""
        now = self._clock()
        if now - self._due > LEAST_S:
            self._notes.append((now, now - self._due))
        self._due = now + EVERY_S

    def lost_s(self, since: float) -> float:
        """How long the process stood still since then, including a standstill that lasts."""
        now = self._clock()
        noted = sum(min(lost, at - since) for at, lost in list(self._notes) if at > since)
        return float(noted + max(0.0, min(now - self._due, now - since)))


@cache
def own_standstill() -> Standstill:
    """The standstill of this process, watched from the first call on."""
    found = Standstill()

    def watch() -> None:
        while True:
            time.sleep(EVERY_S)
            found.wake()

    threading.Thread(target=watch, name="standstill", daemon=True).start()
    return found
