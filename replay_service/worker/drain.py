"""The drain: a scout that sweeps the outbox when woken, and runners that join it while there is a backlog.

A full sweep starts at the lowest id, because rows commit and become due in any order. If full sweeps take long and
deliver little (many held or blocked rows), the sweeps between them start after the last id seen, and a full sweep comes
only after a pause in proportion to its length.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from replay_service.worker.deliveries import Deliveries
from replay_service.worker.door import Connection, wait_for
from replay_service.worker.lanes import LANES, Sweeper
from replay_service.worker.parts import WorkerParts

LONG_SWEEP_S = 0.05
REST_PER_SWEEP = 2.0  # at most a third of one core is spent on rows that cannot be delivered
REST_LIMIT_S = 5.0  # the longest wait of a tenant that is switched on again


class Drain:
    """The scout's and the runners' shared state."""

    def __init__(
        self, parts: WorkerParts, stop: asyncio.Event, first_lane: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._parts, self._settings, self._stop, self._clock = parts, parts.settings, stop, clock
        self._first_lane = first_lane  # differs between workers, so that they rarely contend
        self._news, self._backlog = asyncio.Event(), asyncio.Event()
        self._moved_at = clock()

    def wake(self) -> None:
        """There may be new work: sweep now."""
        self._news.set()

    def still_for_s(self) -> float:
        """Seconds without progress."""
        return self._clock() - self._moved_at

    def _moving(self) -> None:
        self._moved_at = self._clock()

    def _lanes(self, runner: int) -> Sequence[int]:
        """The lanes of one runner while there is a backlog."""
        step = max(self._settings.runners, 1)
        return [(self._first_lane + n) % LANES for n in range(runner, LANES, step)]

    def _share(self) -> Sequence[int]:
        self._backlog.set()
        return self._lanes(0)

    async def scout(self, deliveries: Deliveries, conn: Connection) -> None:
        """Sweep until stopped."""
        sweeper = Sweeper(self._parts, deliveries, self._stop, self._moving)
        everything = [(self._first_lane + n) % LANES for n in range(LANES)]
        ends, next_full = [0] * LANES, 0.0
        while not self._stop.is_set():
            self._news.clear()
            begun = self._clock()
            is_full = begun >= next_full
            done = await sweeper.sweep(conn, everything, [0] * LANES if is_full else ends, self._share)
            ends = done.ends
            if is_full:
                length = self._clock() - begun
                is_long_for_little = length > LONG_SWEEP_S and done.moved < self._settings.window
                rest_s = min(length * REST_PER_SWEEP, REST_LIMIT_S)
                next_full = self._clock() + rest_s if is_long_for_little else 0.0
            if not done.moved:
                await wait_for(self._news, max(self._settings.poll_s, next_full - self._clock()))

    async def run(self, runner: int, deliveries: Deliveries, conn: Connection) -> None:
        """Sweep this runner's own lanes whenever the scout sees a backlog, until they are empty."""
        sweeper = Sweeper(self._parts, deliveries, self._stop, self._moving)
        lanes = self._lanes(runner)
        while not self._stop.is_set():
            if not await wait_for(self._backlog, 5.0):
                continue
            self._backlog.clear()
            while not self._stop.is_set():
                done = await sweeper.sweep(conn, lanes, [0] * LANES, lambda: lanes)
                if not done.moved:
                    break
