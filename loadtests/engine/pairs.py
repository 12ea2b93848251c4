"""The interleaved baseline: each call goes to the release and to the previous one at the same time, in changing order.

A slow machine or network slows both. Of each pair it is noted which of the two was slow, or wrong, alone. What is slow
is known before the pair: the percentile of the baseline's answers until then, for the release with a margin on top. So,
if the release is exactly as slow as the margin allows, either of the two is slow alone equally often (McNemar's test),
however often one looks.
"""

import bisect
import time

import gevent

from gates.deployment.ids import answered
from loadtests.engine.drive import BaselineCall, Call, Drive, Terms
from loadtests.engine.wire import OWN_FAULTS, Connection, TransportError, parse_address
from loadtests.judgement.interleaved import ANSWERED, DIFFERS, FAILED, SLOWER, SPARED

LEAST_MS = 5.0
"""A release may always be this much slower: for a fast answer a relative margin means nothing."""
WARM_UP, MOST_KEPT = 20, 5000
"""Answers of the baseline before the first pair is judged by its latency, and after which the limits are fixed."""


class Pairs:
    """The calls of one load process to both deployments."""

    def __init__(self, drive: Drive) -> None:
        plan = drive.plan
        self.drive = drive
        self.factor = 1.0 + plan.slower_percent / 100.0
        self.address = parse_address(plan.baseline_url, keeps=plan.keeps_connections, checked=plan.checks_certificates)
        self._idle: list[Connection] = []
        self._known_ms: list[float] = []
        self._twin_first = False
        self._build: tuple[object, ...] = ()
        """What the baseline last said of its build."""
        self._shares_events = False
        """Whether the baseline was seen to know an event of this run: else what is written there would stay there."""

    def request(self, call: Call, connection: Connection, terms: Terms) -> int:
        """Send a call to both; returns the status of the release, which is recorded as ever."""
        if call.twin is None or (call.operation == "event" and not self._shares_events):
            return self.drive.request(call, connection, terms)
        began = time.perf_counter()
        twin = gevent.spawn(self._ask, call.twin, call)
        self._twin_first = not self._twin_first
        if self._twin_first:
            gevent.sleep(0)
        status = self.drive.request(call, connection, terms)
        passed, ours_ms = call.expectation.holds(status, connection.body), _took_ms(connection)
        answered = status != 0
        found = twin.get()
        if call.url == "/version" and (ours := _build_of(connection.body)) and self._build:
            self.drive.samples.add(DIFFERS, ours != self._build)
        if call.operation == "status":
            self._shares_events = self._shares_events or bool(found and found[0])
        if found is not None and (call.operation != "status" or self._shares_events):
            self.note(began - self.drive.started, passed, ours_ms if passed or not answered else None, *found)
        return status

    def _ask(self, twin: BaselineCall, call: Call) -> tuple[bool, float] | None:
        """Whether the baseline answered as expected, and how long it took (ms); None where it was not our request."""
        connection = self._idle.pop() if self._idle else self.drive.connection(self.address)
        try:
            status = self.drive.exchange(connection, twin.data, call.method, call.url)
            self._build = _build_of(connection.body) if call.url == "/version" else self._build
            return twin.expectation.holds(status, connection.body), _took_ms(connection)
        except TransportError as none:
            return None if none.args[0] in OWN_FAULTS else (False, _took_ms(connection))
        finally:
            self._idle.append(connection)

    def note(self, at_s: float, passed: bool, ours_ms: float | None, twin_passed: bool, twin_ms: float) -> None:
        add, known = self.drive.samples.add_at, self._known_ms
        add(ANSWERED, twin_passed, at_s)
        add(FAILED, twin_passed and not passed, at_s)
        add(SPARED, passed and not twin_passed, at_s)
        if not twin_passed or ours_ms is None:
            return
        if len(known) >= WARM_UP:
            for metric, share in SLOWER.items():
                limit_ms = known[int(share * (len(known) - 1))]
                ours, theirs = ours_ms > limit_ms * self.factor + LEAST_MS, twin_ms > limit_ms
                if ours is not theirs:
                    add(metric, ours, at_s)
        if len(known) < MOST_KEPT:
            bisect.insort(known, twin_ms)


def _build_of(body: bytes) -> tuple[object, ...]:
    """Release and commit, as /version tells them; empty where it tells no release."""
    said = answered(body)
    return (said["release"], said.get("commit")) if said.get("release") else ()


def _took_ms(connection: Connection) -> float:
    return (connection.ended - connection.started - connection.connected_s - connection.tls_s) * 1000.0
