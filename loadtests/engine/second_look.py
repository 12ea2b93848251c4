"""After the load: each event is asked for once more, and each company whose replays all failed gets what is left to it.

What is asked here is no sample of the load. An event has one commit, so two answers about it that tell two commits
cannot both be its own. A company that fails alone is lost in a rate over all of them: its calls are counted by company.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import gevent
from gevent.pool import Pool

from gates.deployment.ids import answered
from loadtests.engine.canaries import Canaries
from loadtests.engine.drive import Call, Drive
from loadtests.engine.wire import TransportError
from loadtests.engine.workload import Workload

T = TypeVar("T")
AT_ONCE = 8
PAUSE_S = 0.5
"""The pause before each call of a company, so that a short outage fails no company."""
LOOK_S = 2.0
"""The time limit for all events, and again for all companies."""


@dataclass(slots=True)
class SecondLook:
    """The second look of one load process."""

    drive: Drive
    workload: Workload
    canaries: Canaries

    def take(self) -> None:
        """Ask for the events, then for the companies; nothing where the target has stopped answering."""
        if self.drive.silent_s:
            return
        events = list(self.canaries.committed)
        self._each(events, lambda one: self._of_event(*one))
        self._each(list(self.drive.failing), self._of_company)

    def _each(self, asked: list[T], ask: Callable[[T], None]) -> None:
        pool, until = Pool(AT_ONCE), time.perf_counter() + LOOK_S
        for one in asked:
            if time.perf_counter() > until:
                break
            pool.spawn(ask, one)  # waits for a free place
        pool.join(timeout=2 * LOOK_S)

    def _of_event(self, event_id: str, company: str) -> None:
        status, body = self._ask(self.workload.event_status(event_id, company))
        if status == 200:
            self.canaries.compare(event_id, company, answered(body))
            self.canaries.committed.pop((event_id, company), None)

    def _of_company(self, company: str) -> None:
        while company in self.drive.failing and (call := self.workload.left_of(company)) is not None:
            gevent.sleep(PAUSE_S)
            self.drive.look(call, *self._ask(call))

    def _ask(self, call: Call) -> tuple[int, bytes]:
        connection = self.drive.borrow()
        try:
            return self.drive.exchange(connection, call.data, call.method, call.url, LOOK_S), connection.body
        except TransportError:
            return 0, b""
        finally:
            self.drive.give_back(connection)
