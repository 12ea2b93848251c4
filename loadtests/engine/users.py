"""The Locust users: one keeps a schedule of arrivals (open model), one waits for answers (closed model)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import gevent
from locust import User, constant, task

from loadtests.engine.canaries import Canaries
from loadtests.engine.drive import Call, Drive
from loadtests.engine.schedule import arrivals
from loadtests.engine.wire import Connection
from loadtests.engine.workload import Workload

CLOSED_MIX = ("event", "probe", "event", "probe", "replay")


PAUSE_S = 0.05
"""How often a paused user looks whether the run goes on."""
SPIN_S, SPIN_RATE = 0.0012, 150.0
"""The event loop sleeps in whole milliseconds; the last one is passed looking at the clock, unless that would cost CPU
that a high rate needs for its requests (150 a second times 1.2 ms is a sixth of a core)."""


def _sleep_until(due: float, spin_s: float) -> None:
    wait = due - time.perf_counter()
    if wait > spin_s:
        gevent.sleep(wait - spin_s)
    while time.perf_counter() < due:
        gevent.sleep(0 if spin_s else max(0.0, due - time.perf_counter()))


class Traffic:
    """Performs one arrival or iteration of a kind on a connection."""

    def __init__(self, drive: Drive, workload: Workload, canaries: Canaries) -> None:
        self.drive = drive
        self.workload = workload
        self.canaries = canaries
        self.paused = False

    def perform(self, kind: str, connection: Connection, intended: float = 0.0) -> None:
        """Make the next call of a kind; nothing where there is none left."""
        if kind == "event":
            self.canaries.send(connection, intended)
            return
        call = self.workload.call(kind)
        if call is None:
            return
        status = self.drive.request(call, connection, intended)
        if status == 409 and b"agents_paused" in connection.body:
            self.paused = True


class LoadUser(User):  # type: ignore[misc]
    """What both users share: the drive of their process, and that they are done when it stops."""

    abstract = True
    wait_time = constant(0)

    def on_start(self) -> None:
        self.traffic: Traffic = self.environment.load_traffic
        self.drive: Drive = self.traffic.drive


class ScheduledUser(LoadUser):
    """The open model: starts every arrival at its time, however many are still under way."""

    fixed_count = 0

    @task  # type: ignore[untyped-decorator]
    def keep_schedule(self) -> None:
        """Sleep until the next arrival, start it, note how late it started."""
        drive, late = self.drive, self.drive.samples
        rate = sum(stream.per_s for stream in drive.plan.streams) / drive.of
        spin_s = SPIN_S if rate <= SPIN_RATE else 0.0
        origin = drive.started
        for at, kind in arrivals(drive.plan.streams, drive.index, drive.of):
            if origin + at < drive.resumed_at:
                continue  # it fell into a pause
            _sleep_until(origin + at, spin_s)
            while drive.stopping:
                gevent.sleep(PAUSE_S)
            if self._state == "stopping":
                return
            if origin + at < drive.resumed_at:
                continue
            late.add("schedule_lateness_ms", max(0.0, (time.perf_counter() - origin - at) * 1000.0))
            if drive.open_requests >= drive.most_open:
                drive.drop()
                continue
            drive.open_requests += 1
            drive.spawn(self._arrival(kind, origin + at))

    def _arrival(self, kind: str, intended: float) -> Callable[[], None]:
        def run() -> None:
            connection = self.drive.borrow()
            try:
                self.traffic.perform(kind, connection, intended)
                self.drive.samples.add("iterations", 1)
                self.drive.note_iteration(intended, time.perf_counter())
            finally:
                self.drive.open_requests -= 1
                self.drive.give_back(connection)

        return run


class WaitingUser(LoadUser):
    """The closed model: one connection, one request after the other, with a pause for thinking."""

    @task  # type: ignore[untyped-decorator]
    def iterate(self) -> None:
        """Iterate until the end; the loop is here and not in Locust, which would cost more than the request."""
        drive = self.drive
        connection = drive.connection()
        if drive.plan.is_url:
            self._hammer(drive, connection, self.traffic.workload.call("url"))
            return
        for kind in itertools.cycle(CLOSED_MIX):
            while drive.stopping:
                gevent.sleep(PAUSE_S)
            if self._state == "stopping":
                break
            begun = time.perf_counter()
            self.traffic.perform(kind, connection)
            drive.samples.add("iterations", 1)
            drive.note_iteration(begun, time.perf_counter())
            gevent.sleep(drive.plan.think_s)

    def _hammer(self, drive: Drive, connection: Connection, call: Call | None) -> None:
        if call is None:
            return
        note, request, think_s = drive.note_iteration, drive.request, drive.plan.think_s
        while self._state != "stopping":
            if drive.stopping:
                gevent.sleep(PAUSE_S)
                continue
            request(call, connection)
            note(connection.started, connection.ended)
            if think_s:
                gevent.sleep(think_s)
            elif not connection.received:
                gevent.sleep(0.01)  # nothing came back: do not spin on a target that refuses
