"""Watches how the clocks of the database, the service and the gate move against a monotonic one during the run. It
writes nothing while they are steady. A clock that was set becomes evidence of `preflight/clock-skew`.
"""

import datetime as dt
import math
import time
from typing import Self

import psycopg

from gates.decision.clock import SERVICE_ALONE, STEPPED_S
from gates.deployment.control import is_disrupted
from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.http.clock import date_of
from gates.deployment.requests import Request
from gates.deployment.sql.database import Connection, connect, value
from gates.evidence import Evidence, JsonValue, Outcome, stamp
from gates.stages.companion import Companion
from gates.stages.context import Context
from gates.stages.preflight.database import MOST_SKEW_S, SKEW

EVERY_S = 2.0
AHEAD_S = (
    "select extract(epoch from max(t.at::timestamptz) - clock_timestamp())::float8"
    " from pg_catalog.pg_stat_all_tables s, jsonb_each_text(to_jsonb(s)) t(name, at) where t.name ~ '^last_'"
)
"""Reads how far the server's statistics (when a table was last read) are ahead of its clock: it was set back."""
DATE_S, HTTP_S = 1.0, 3.0
"""The resolution of a Date header in seconds; the limit of waiting for one."""
SERVICE_EVERY = 3
"""The service is asked in one of so many rounds: it may limit requests."""
MOST_STEP_S = {"database": MOST_SKEW_S, "gate": MOST_SKEW_S, "service": 5.0}
"""How far each clock may move; a service's instances may have several clocks."""
MOST_AHEAD_S = 86400.0
"""Statistics further ahead come from a clock that was wrong long ago."""
ENDS = "the gate is run again, when the clocks stand right and what was written before has left the windows"


class Moved:
    """How far a clock has moved against a monotonic one since it was first seen, in seconds.

    looks: how many in a row must agree on its present offset. An offset that changes with each look is no set clock,
    but a constant answer, or instances that take turns.
    """

    def __init__(self, looks: int = 1) -> None:
        self._looks, self._alike = looks, 0
        self._first: tuple[float, float] | None = None
        self._now = (-math.inf, math.inf)
        self.step_s = 0.0
        """The offset that is certain despite the time of the answers; positive: ahead."""

    def see(self, shown: float, before: float, after: float) -> None:
        """shown: its time, asked for and received between two times of the monotonic clock."""
        seen = shown - after, shown - before
        first = self._first = self._first or seen
        both = max(seen[0], self._now[0]), min(seen[1], self._now[1])
        agrees = both[0] <= both[1]
        self._now, self._alike = (both, self._alike + 1) if agrees else (seen, 1)
        if self._alike >= self._looks:
            ahead_s, behind_s = max(0.0, self._now[0] - first[1]), min(0.0, self._now[1] - first[0])
            self.step_s = max(self.step_s, ahead_s, behind_s, key=abs)


class ClockWatch:
    """A context: asks database and service for their times, and reports a clock that was set when it is left."""

    def __init__(self, context: Context, every_s: float = EVERY_S) -> None:
        self._context, self._every_s = context, every_s
        self._companion = Companion("clock-watch", self._run)
        self._moved = {"database": Moved(), "gate": Moved(), "service": Moved(looks=2)}
        self._looks, self._before_s = 0, 0.0
        self._began, self._at = time.monotonic(), dt.datetime.now(dt.UTC)

    def __enter__(self) -> Self:
        if self._context.target.database_url:
            self._companion.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._companion.end()
        steps = {whose: m.step_s for whose, m in self._moved.items() if abs(m.step_s) > MOST_STEP_S[whose]}
        if steps:
            self._context.note(self._evidence(steps, "during the run"))
        elif MOST_SKEW_S < self._before_s < MOST_AHEAD_S:
            self._context.note(self._evidence({"database": -self._before_s}, "a short time before the run"))

    def _run(self) -> None:
        connection: Connection | None = None
        over, wait_s = False, 0.0
        while not over:
            over = self._companion.over.wait(wait_s)  # one last look
            wait_s = self._every_s
            try:
                if connection is None or connection.closed:
                    connection = connect(self._context.target.database_url, read_only=True)
                self._look(connection)
                if self._looks == 1:
                    self._before_s = float(str(value(connection, AHEAD_S) or 0.0))
                if over or self._looks % SERVICE_EVERY == 1:
                    self._look_at_service()
            except psycopg.Error:  # a drill may have restarted the server: the next round asks again
                if connection is not None:
                    connection.close()
        if connection is not None:
            connection.close()

    def _look(self, connection: Connection) -> None:
        before = time.monotonic()
        shown = value(connection, "select clock_timestamp()")
        after = time.monotonic()
        self._moved["gate"].see(time.time(), after, time.monotonic())
        if isinstance(shown, dt.datetime):
            self._moved["database"].see(shown.timestamp(), before, after)
        self._looks += 1

    def _look_at_service(self) -> None:
        """Its Date header, unless it comes from a cache, or a drill has set its clock."""
        target = self._context.target
        if not target.base_url or is_disrupted(target.control):
            return
        before = time.monotonic()
        try:
            with HttpDoor(target.base_url, timeout_s=HTTP_S) as door:
                answer = door.send(Request("GET", "/healthz"))
        except NoAnswer:
            return
        after, shown = time.monotonic(), date_of(answer)
        if shown is not None and not answer.header("age") and not is_disrupted(target.control):
            self._moved["service"].see(shown, before - DATE_S, after)

    def _evidence(self, steps: dict[str, float], when: str) -> Evidence:
        moved = " and ".join(f"the {whose}'s clock stepped by {step_s:+.1f} s" for whose, step_s in steps.items())
        slept = ", or its machine slept" if "gate" in steps else ""
        whose, most = max(steps.items(), key=lambda one: abs(one[1]))
        details: dict[str, JsonValue] = {STEPPED_S: round(most, 3), "ends_when": ENDS}
        details |= {SERVICE_ALONE: True} if [*steps] == ["service"] else {}
        return Evidence(
            check=SKEW.id,
            outcome=Outcome.UNKNOWN,
            message=f"{moved} {when}{slept}: what is judged by times proves nothing",
            observed=round(most, 3),
            limit=MOST_STEP_S[whose],
            unit="s",
            samples=self._looks,
            started_at=stamp(self._at),
            duration_ms=round((time.monotonic() - self._began) * 1000, 1),
            details=details,
        )
