"""The state of one load process: connections, samples, the stop flag. Records each request."""

from __future__ import annotations

import math
import resource
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import gevent

from gates.deployment.dialect.exchange import understood_bytes
from loadtests.engine.samples import RequestGroup, Samples, Tags
from loadtests.engine.sinks import Sink
from loadtests.engine.wire import OWN_FAULTS, Address, Connection, TransportError, parse_address
from loadtests.engine.written import Acknowledgement, acknowledged
from loadtests.plan import LoadPlan
from loadtests.thresholds.expectations import SUCCEEDS, Expectation, is_limited

SWEEP_S = 0.2
SILENCE_S = 0.5
"""If no answer came for this long before the end, nor later to open requests, the target had stopped."""
SPARE_DESCRIPTORS = 100
"""File descriptors that are kept for everything but requests, such as writing the result."""
UNFINISHED = "unfinished"
"""The error of a request that the end of the run cut off; its time until then is a lower bound."""


@dataclass(frozen=True, slots=True)
class BaselineCall:
    data: bytes
    expectation: Expectation


@dataclass(frozen=True, slots=True)
class Call:
    """A request ready to be sent. `url` is the template that tags it; `expected` are refusals that are no failures.

    `operation` tags what is asked of the deployment; `expectation` is what `checks` counts. `writes`: what its success
    acknowledges as written (written.py): a kind, and its id; an event without one gets its id from the answer.
    company: whose replay it is. no_sample: answers that are not recorded.
    """

    name: str
    method: str
    url: str
    data: bytes
    expected: frozenset[int] = frozenset()
    scenario: str = "default"
    operation: str = "url"
    expectation: Expectation = SUCCEEDS
    twin: BaselineCall | None = None
    writes: Acknowledgement | None = None
    company: str = ""
    no_sample: frozenset[int] = frozenset()


class Terms(NamedTuple):
    """intended: when it was due (0: when it is sent). cut_off: when it is given up. labels: tags of its scenario."""

    intended: float = 0.0
    cut_off: float = math.inf
    labels: Tags = ()


PLAIN = Terms()


@dataclass(slots=True)
class Drive:
    """One process's share of a run. `index` of `of` processes; times are time.perf_counter() seconds."""

    plan: LoadPlan
    index: int = 0
    of: int = 1
    samples: Samples = field(default_factory=Samples)
    stopping: bool = False
    resumed_at: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    open_requests: int = 0
    dropped: int = 0
    background: set[gevent.Greenlet] = field(default_factory=set)
    acknowledged: list[Acknowledgement] = field(default_factory=list)
    """Since the last report."""
    replays: dict[str, Counter[bool]] = field(default_factory=dict)
    """By company: replay calls that were answered as expected, and that were not."""
    address: Address = field(init=False)
    most_open: int = field(init=False)
    answered_at: float = 0.0
    silent_s: float = 0.0
    _next_turn: float = 0.0
    _sweeper: gevent.Greenlet = field(init=False)
    _iterations: dict[Tags, tuple[Sink, Sink, array[float]]] = field(default_factory=dict)
    _open: dict[Connection, tuple[Call, Terms]] = field(default_factory=dict)
    _idle: list[Connection] = field(default_factory=list)
    _all: list[Connection] = field(default_factory=list)
    _groups: dict[tuple[Tags, str, str, str, str, int, str, bool], RequestGroup] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most_open = min(self.plan.max_open, max(1, limit - SPARE_DESCRIPTORS))
        plan = self.plan
        self.address = parse_address(plan.base_url, keeps=plan.keeps_connections, checked=plan.checks_certificates)
        self._sweeper = gevent.spawn(self._sweep)

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self.started

    def connection(self, address: Address | None = None) -> Connection:
        """A connection of one's own, watched by the sweeper; to the target, or to another address."""
        made = Connection(address or self.address)
        self._all.append(made)
        return made

    def borrow(self) -> Connection:
        """An idle connection, or a new one; give it back."""
        return self._idle.pop() if self._idle else self.connection()

    def give_back(self, connection: Connection) -> None:
        self._idle.append(connection)

    def spawn(self, work: Callable[[], None]) -> None:
        """Start work that the end of the run waits for."""
        greenlet = gevent.spawn(work)
        self.background.add(greenlet)
        greenlet.rawlink(self.background.discard)

    def drop(self, labels: Tags) -> None:
        """A request that was due and that this process could not send."""
        self.dropped += 1
        self.samples.add("dropped_iterations", 1, labels)

    def note_iteration(self, began: float, ended: float, labels: Tags) -> None:
        """One iteration of a user, or one arrival, is over."""
        found = self._iterations.get(labels)
        if found is None:
            count, times = self.samples.sink("iterations", labels), self.samples.sink("iteration_duration", labels)
            found = self._iterations[labels] = count, times, self.samples.pairs("iteration_duration", labels)
        took_ms = (ended - began) * 1000.0
        found[0].add(1)
        found[1].add(took_ms)
        found[2].extend((began - self.started, took_ms))

    def request(self, call: Call, connection: Connection, terms: Terms = PLAIN) -> int:
        """Send, wait, record. Returns the status, 0 without an answer; the connection then holds body and times.

        What the end of the run cuts off is recorded by `finish`.
        With an intended start the duration begins there (what a stalled server delays counts); else with the sending,
        and without the connecting, as in k6.
        """
        status, error = 0, UNFINISHED
        if self.plan.rps:
            terms = self._wait_for_turn(terms)
        self._open[connection] = call, terms
        try:
            left_s = min(self.plan.timeout_s, max(0.0, terms.cut_off - time.perf_counter()))
            status, error = connection.exchange(call.data, left_s, head=call.method == "HEAD"), ""
            status, connection.body = understood_bytes(status, connection.body, call.method, call.url)
            self.answered_at = connection.ended
        except TransportError as none:
            error = str(none.args[0])
        finally:  # a user may be stopped in the middle of a request: that counts, too
            if self._open.pop(connection, None) and status not in call.no_sample:
                self._record(call, connection, status, error, connection.ended, terms)
        return status

    def exchange(self, connection: Connection, data: bytes, method: str, url: str, most_s: float = math.inf) -> int:
        """Send and wait, without a record. Returns the status. Raise TransportError without an answer."""
        status = connection.exchange(data, min(most_s, self.plan.timeout_s), head=method == "HEAD")
        status, connection.body = understood_bytes(status, connection.body, method, url)
        return status

    def _wait_for_turn(self, terms: Terms) -> Terms:
        """Wait until the limit of requests a second allows the next one. That wait is no part of its duration."""
        turn = max(time.perf_counter(), self._next_turn)
        self._next_turn = turn + self.of / self.plan.rps
        gevent.sleep(max(0.0, turn - time.perf_counter()))
        return terms._replace(intended=max(terms.intended, turn)) if terms.intended else terms

    def _record(self, call: Call, c: Connection, status: int, error: str, ended: float, terms: Terms) -> None:
        if error in OWN_FAULTS:
            self.drop(terms.labels)
            return
        passed = self.look(call, status, c.body)
        key = (terms.labels, call.scenario, call.name, call.method, call.url, status, error, passed)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = self._group(call, status, error, terms.labels, passed=passed)
        timings = group.timings
        setup = c.connected_s + c.tls_s
        began = terms.intended or c.started + setup
        timings["http_req_duration"].append((ended - began) * 1000.0)
        group.starts.append(began - self.started)
        group.sent += len(call.data)
        group.received += c.received
        if self.plan.detail:
            timings["http_req_waiting"].append((c.first_byte - c.sent) * 1000.0)
            timings["http_req_sending"].append((c.sent - c.started - setup) * 1000.0)
            timings["http_req_receiving"].append((ended - c.first_byte) * 1000.0)
            timings["http_req_connecting"].append(c.connected_s * 1000.0)
            timings["http_req_tls_handshaking"].append(c.tls_s * 1000.0)
            timings["http_req_blocked"].append(setup * 1000.0)

    def look(self, call: Call, status: int, body: bytes) -> bool:
        """Whether the answer is the expected one. What it acknowledges, whose it is, and how its company fared."""
        passed, is_anothers = call.expectation.holds(status, body), call.expectation.is_anothers(status, body)
        if is_limited(status, body) and not self.plan.is_url:
            self.samples.add("limited", 1)
        if is_anothers is not None:
            self.samples.add("answers_mixed", is_anothers)
        if call.writes and passed and 200 <= status < 300:
            self.acknowledged.append(acknowledged(call.writes, body))
        if call.company:
            self.replays.setdefault(call.company, Counter())[passed] += 1
        return passed

    @property
    def failing(self) -> list[str]:
        """Companies none of whose replay calls was answered as expected."""
        return [company for company, fared in self.replays.items() if not fared[True]]

    def _group(self, call: Call, status: int, error: str, labels: Tags, *, passed: bool) -> RequestGroup:
        answered = 200 <= status < 400
        expected = answered or status in call.expected
        tags = {
            "name": call.name,
            "method": call.method,
            "url": call.url,
            "scenario": call.scenario,
            "operation": call.operation,
            "status": str(status),
            "expected_response": "true" if expected else "false",
            **dict(labels),
        }
        if error:
            tags["error"] = error
        check = f"{call.name}: {call.expectation.says}"
        refused = expected and not answered
        return self.samples.group(tags, failed=not expected, refused=refused, check=check, passed=passed)

    def _sweep(self) -> None:
        """Give up on requests that are over their limit; one timer for all of them is cheaper than one each."""
        before = time.perf_counter()
        while True:
            gevent.sleep(SWEEP_S)
            now = time.perf_counter()
            late_s, before = max(0.0, now - before - 2 * SWEEP_S), now
            for connection in self._all:
                if connection.deadline:  # while this process stood still it could read no answer
                    connection.deadline += late_s
                if connection.deadline and now > connection.deadline and not connection.timed_out:
                    connection.expire()

    def close(self) -> None:
        self._sweeper.kill()
        for connection in self._all:
            connection.close()

    def resume(self) -> None:
        """Go on after `finish`; arrivals that fell into the pause are left out."""
        self.resumed_at = time.perf_counter()
        self.stopping = False

    def finish(self) -> None:
        """Start nothing more; wait for open requests, at most the plan's grace. What is still open then has failed,
        with its age as duration: a target that stops answering must not vanish from the numbers.
        """
        self.stopping, now = True, time.perf_counter()
        is_waiting = bool(self._open)
        deadline = now + self.plan.grace_s
        gevent.joinall(list(self.background), timeout=self.plan.grace_s)
        while self._open and time.perf_counter() < deadline:
            gevent.sleep(0.02)
        for connection, (call, terms) in self._open.items():
            self._record(call, connection, 0, UNFINISHED, time.perf_counter(), terms)
        self._open.clear()
        silent_s = now - max(self.answered_at, self.started)
        self.silent_s = silent_s if is_waiting and silent_s > SILENCE_S else 0.0
