"""Performs the scenarios of a plan in one load process: arrivals on time, users one request after the other.

Users and arrivals are dealt out over the processes by their numbers; so are the iterations, to those that have users.
"""

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import gevent

from loadtests.engine.canaries import Canaries
from loadtests.engine.drive import Drive, Terms
from loadtests.engine.schedule import arrivals, over_s, spells
from loadtests.engine.wire import Connection
from loadtests.engine.workload import Workload
from loadtests.scenario import Executor, Scenario

PAUSE_S = 0.05
"""The poll interval of a paused user."""
NO_ANSWER_S = 0.01
"""The pause after a request without an answer: do not spin on a target that refuses connections."""
SPIN_S, SPIN_RATE = 0.0012, 150.0
"""The event loop sleeps in whole milliseconds; the last one is spent in a busy loop, unless the rate is so high that
its requests need the CPU (150 a second times 1.2 ms is a sixth of a core)."""


def _sleep_until(due: float, spin_s: float = 0.0) -> None:
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

    def perform(self, kind: str, connection: Connection, terms: Terms) -> None:
        """Make the next call of a kind; nothing where there is none left."""
        if kind == "event":
            self.canaries.send(connection, terms)
            return
        call = self.workload.call(kind)
        if call is None:
            return
        status = self.canaries.ask(call, connection, terms)
        if status == 409 and b"agents_paused" in connection.body:
            self.paused = True


class Task(NamedTuple):
    """What a scenario does next."""

    scenario: Scenario
    kinds: Iterator[str]
    end_s: float


class Executors:
    """One process's share of all scenarios."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.drive = traffic.drive
        self.users = 0
        """The number of active users."""
        self._open: Counter[int] = Counter()
        self._at_work: list[gevent.Greenlet] | None = None

    def start(self) -> None:
        """Begin with all scenarios; their clock is that of the drive."""
        plan, drive = self.drive.plan, self.drive
        tasks = [Task(one, self.traffic.workload.kinds(one.exec), over_s(one, plan)) for one in plan.scenarios]
        self._at_work = [gevent.spawn(self._keep_schedule, tasks)]
        for task in tasks:
            if task.scenario.executor is Executor.ARRIVALS:
                continue
            left = self._share_of(task.scenario)
            most = task.scenario.users if task.scenario.is_counted else int(task.scenario.most_level)
            for number in range(drive.index, most, drive.of):
                self._at_work.append(gevent.spawn(self._user, task, number, left))

    def stop(self) -> None:
        """Stop all users at once, also in the middle of a request."""
        gevent.killall(self._at_work or [])

    @property
    def done(self) -> bool:
        """Whether nothing is left to do, and nothing under way."""
        begun = self._at_work is not None
        return begun and all(one.dead for one in self._at_work or []) and not self.drive.open_requests

    def _share_of(self, scenario: Scenario) -> Iterator[int] | None:
        """The iterations that the users of this process share; None where each has its own, or no end."""
        if scenario.executor is not Executor.SHARED:
            return None
        return iter(range(self.drive.index, scenario.iterations, min(self.drive.of, scenario.users)))

    def _keep_schedule(self, tasks: Sequence[Task]) -> None:
        """Start every arrival at its time, however many are under way; note how late it started."""
        drive, late = self.drive, self.drive.samples
        scenarios = [task.scenario for task in tasks if task.scenario.executor is Executor.ARRIVALS]
        rate = sum(one.most_level for one in scenarios) / drive.of
        spin_s = SPIN_S if rate <= SPIN_RATE else 0.0
        origin = drive.started
        for at, place in arrivals(drive.plan, drive.index, drive.of):
            if origin + at < drive.resumed_at:
                continue  # it fell into a pause
            _sleep_until(origin + at, spin_s)
            while drive.stopping:
                gevent.sleep(PAUSE_S)
            if origin + at < drive.resumed_at:
                continue
            late.add("schedule_lateness_ms", max(0.0, (time.perf_counter() - origin - at) * 1000.0))
            scenario = tasks[place].scenario
            most = math.ceil(scenario.users / drive.of) or drive.most_open
            if drive.open_requests >= drive.most_open or self._open[place] >= most:
                drive.drop(scenario.labels)
                continue
            drive.open_requests += 1
            self._open[place] += 1
            drive.spawn(self._arrival(tasks[place], place, origin + at))

    def _arrival(self, task: Task, place: int, intended: float) -> Callable[[], None]:
        def run() -> None:
            connection = self.drive.borrow()
            try:
                self._iterate(task, connection, intended, self.drive.started + task.end_s + task.scenario.grace_s)
            finally:
                self.drive.open_requests -= 1
                self._open[place] -= 1
                self.drive.give_back(connection)

        return run

    def _user(self, task: Task, number: int, left: Iterator[int] | None) -> None:
        """One user: one connection, one request after the other, with a pause for thinking."""
        drive, scenario, connection = self.drive, task.scenario, self.drive.connection()
        if not scenario.is_counted:
            for since, until in spells(scenario, number, task.end_s):
                grace_s = scenario.grace_s if until >= task.end_s else scenario.ramp_down_s
                self._loop(task, connection, (since, until, until + grace_s), itertools.repeat(0))
            return
        own = iter(range(scenario.iterations)) if left is None else left
        self._loop(task, connection, (scenario.start_s, task.end_s, task.end_s + scenario.grace_s), own)
        for _ in own:  # not begun when the time was over
            drive.drop(scenario.labels)

    def _loop(
        self, task: Task, connection: Connection, times: tuple[float, float, float], iterations: Iterator[int]
    ) -> None:
        """Iterate from a second of the run to another, with what is under way cut off at a third."""
        drive = self.drive
        since, until, cut_off = (drive.started + at for at in times)
        _sleep_until(since)
        self.users += 1
        try:
            while time.perf_counter() < until:
                if drive.stopping:
                    gevent.sleep(PAUSE_S)
                    continue
                if next(iterations, None) is None:
                    return
                self._iterate(task, connection, 0.0, cut_off)
                if drive.plan.think_s:
                    gevent.sleep(min(drive.plan.think_s, max(0.0, until - time.perf_counter())))
                elif not connection.received:
                    gevent.sleep(NO_ANSWER_S)
        finally:
            self.users -= 1

    def _iterate(self, task: Task, connection: Connection, intended: float, cut_off: float) -> None:
        begun, labels = intended or time.perf_counter(), task.scenario.labels
        self.traffic.perform(next(task.kinds), connection, Terms(intended, cut_off, labels))
        self.drive.note_iteration(begun, time.perf_counter(), labels)
