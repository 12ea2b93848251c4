"""Waits of a drill for what its tenants cause: each polls until a deadline.

`Waiting.late` alone decides what a missed deadline means. Where the target answered and had nothing else to do, it is a
failure. Where its workers were slow or busy with other events, or it did not answer, the check is unknown.
"""

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, ClassVar, NoReturn, TypeVar

import psycopg

from drills.workbench.crowd import Crowd
from drills.workbench.database import query
from drills.workbench.tenant_data import TenantData
from gates.checks.observation import Breach, Busy
from gates.deployment.dialect.current import written
from gates.deployment.http.client import NoAnswer
from gates.deployment.requests import Request
from gates.deployment.sql.cells import with_values
from gates.deployment.sql.database import Connection, backend_of, execute, value
from gates.evidence import WAITED

T = TypeVar("T")

DUE_S, PATIENCE_S = 2.0, 6.0
"""When an effect is due, and how long a check waits for it: three times as long, for busy machines."""

LONGEST, LONGEST_OF_MANY = 3, 9
"""The most times that a wait is extended by its length while workers deliver; and where other drills wait, too."""
POLL_S = 0.02
STALL_S = 1.0
"""If a query, a commit or an answer of /healthz takes longer, the machine is stalled, and the check proves nothing."""
ON_THE_WAY = 10
"""Round trips that are added to a wait for the target: an act and a few looks at its effect."""

FEW_AT_ONCE = "If they take few events at once, give them more places, or run the check again when they are idle"

QUIET_S = 0.4
"""How long nothing must have changed before a tenant counts as quiet."""

TOGETHER_S, CLOSE_S = 0.1, 0.05
"""By how much times may disagree with the order of delivery: of rows of one transaction; and of two transactions in the
right order, since a row may have the time at which its transaction began, before it had to wait."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The progress of workers on events of the check's own tenants and of others; see sql/pace.sql."""

    waits: bool
    held: bool
    own_moved: bool
    moved: bool
    passed_over: bool
    in_line: bool

    @property
    def at_work(self) -> bool:
        """Whether they work on what the check waits for."""
        return self.own_moved or (self.held and self.moved)

    @property
    def elsewhere(self) -> bool:
        """Whether they serve others, while something of the check's own waits."""
        return self.waits and self.moved and not self.at_work


@dataclass
class Waiting(TenantData):
    """The doors of one check, and its waits. `wait_scale` is a factor on every wait that ends in a judgement: the
    project's own tests, which plant defects on a quiet machine, wait less. `trip_s`: a round trip to the farther door.
    """

    wait_scale: ClassVar[float] = 1.0
    trip_s: ClassVar[float] = 0.0
    crowd: ClassVar[Crowd] = Crowd()

    @property
    def way_s(self) -> float:
        """What the network distance adds to each limit of a drill."""
        return ON_THE_WAY * self.trip_s

    @property
    def stall_s(self) -> float:
        """An answer that takes longer than this means a stall."""
        return STALL_S + self.way_s

    def patience_s(self, within_s: float) -> float:
        """The limit `within_s` of the target, adapted to tests and to the network distance."""
        return within_s * self.wait_scale + self.way_s

    def until(self, probe: Callable[[], T], what: str, *, within_s: float = PATIENCE_S, every_s: float = POLL_S) -> T:
        """Poll until the probe gives something true, and return it; at the deadline, judge as `late` says. The deadline
        is extended while other drills are at work, and then, up to `LONGEST` times, while workers deliver anything or
        hold events of the check's own tenants. If the awaited comes only after the workers served others, the check is
        unknown: the workers may take only few events at once.
        """
        within_s = self.patience_s(within_s)
        begun = alone = before = time.monotonic()
        deadline, stalled_s, served_others = begun + within_s, 0.0, False
        while True:
            found = probe()
            now = time.monotonic()
            if found:
                self.crowd.go_on()
                if served_others:
                    after = f"{what}: seen after {now - begun:.3g} s, when the workers had served others"
                    raise Busy(f"{after}: they are busy or slow. {FEW_AT_ONCE}")
                return found
            stalled_s, before = max(stalled_s, now - before), now
            if now > deadline:
                pace = self._pace(within_s)
                self.crowd.wait()
                in_crowd = self.crowd.others_drill()
                served_others |= pace.elsewhere or (in_crowd and not pace.at_work)
                deadline = now + within_s / 3
                if in_crowd:
                    alone, stalled_s = now, 0.0
                elif deadline > alone + self._longest() * within_s or not (pace.at_work or pace.elsewhere):
                    try:
                        self.late(what, now - begun, stalled_s)
                    except AssertionError:
                        if not probe():
                            self.crowd.lose()
                            raise
            time.sleep(every_s)

    def _longest(self) -> int:
        return LONGEST_OF_MANY if self.crowd.others_wait() else LONGEST

    def until_true(self, probe: Callable[[], bool], *, within_s: float) -> bool:
        """Poll until the probe is true or the time is over; returns whether it became true, and judges nothing."""
        deadline = time.monotonic() + self.patience_s(within_s)
        while not (found := probe()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return found

    def looks_through(
        self, acts: Sequence[Callable[[], object]], look: str, *params: object, within_s: float
    ) -> list[Any]:
        """Poll on the server, from before the first act on, a statement of two columns: what is seen, and how many acts
        have ended. Each act is done once the end of the one before was seen, within this time. Returns each change:
        when the look before it began, when the look that saw it ended (Unix seconds), and what was seen.
        """
        statement, given = written(look, params)
        steps: SimpleQueue[int] = SimpleQueue()

        def hear(said: psycopg.errors.Diagnostic) -> None:
            name, _, step = str(said.message_primary).rpartition(" ")
            if name == "replaygate look":
                steps.put(int(step))

        with self.transaction() as watching, ThreadPoolExecutor(1) as beside:
            patience_s = self.patience_s(within_s)
            limit_s = len(acts) * patience_s + 10 * STALL_S
            settings = {
                "replaygate.look": with_values(watching, statement, given),
                "replaygate.look_steps": str(len(acts)),
                "replaygate.look_s": str(patience_s),
                "statement_timeout": f"{limit_s:.0f}s",
            }
            watching.may_be_kept = False
            watching.answer_limit_s = limit_s + STALL_S
            watching.add_notice_handler(hear)
            calls = ", ".join(["set_config(%s, %s, true)"] * len(settings))
            execute(watching, f"select {calls}", *itertools.chain.from_iterable(settings.items()))
            looking = beside.submit(execute, watching, query("look_often"))
            looking.add_done_callback(lambda _: steps.put(len(acts)))
            done = 0
            while (reached := steps.get(timeout=watching.answer_limit_s)) < len(acts):
                for act in acts[done : reached + 1]:
                    act()
                done = reached + 1
            looking.result()
            return list(json.loads(str(value(watching, "select current_setting('replaygate.looks')"))))

    def somebody_waits(self, held: Connection, *, within_s: float, sessions: int = 1) -> bool:
        """Whether within that time this many sessions wait for a lock of the connection."""
        ask = "select count(*) from pg_stat_activity where %s = any(pg_blocking_pids(pid))"
        holder = backend_of(held)
        return self.until_true(lambda: self.number(ask, holder) >= sessions, within_s=within_s)

    def late(self, what: str, waited_s: float, stalled_s: float = 0.0) -> NoReturn:
        """A deadline passed. It is unknown where the gate or the database stood still (stalled_s: the longest time
        between two looks), the target is slow to answer, or its workers are slow or busy: what is awaited still comes,
        customers' events wait, other replays come first, or an event of another tenant is late, too. Else it is a
        failure.
        """
        missed, limit_s = f"{what}: not seen in {waited_s:.3g} s", self.stall_s
        self.seen.require(stalled_s < limit_s, f"{missed}, of which {stalled_s:.1f} s went to one look")
        self.seen.require(self.prompt(), f"{missed}, and the target did not answer within {limit_s:g} s")
        pace = self._pace(min(waited_s, LONGEST * self.patience_s(PATIENCE_S)))
        self.seen.require(not pace.own_moved, f"{missed}; what is there comes slowly, one by one")
        waiting = self.number(query("waiting_elsewhere"))
        self.seen.require(not (waiting and pace.moved), f"{missed}; {waiting} other events were waiting, and moving")
        if pace.in_line:
            raise Busy(f"{missed}; other replays have their turn before it. {FEW_AT_ONCE}")
        if pace.moved and not pace.passed_over:
            event = self.write_outbox(self.company("beside"))
            prompt = self.until_true(lambda: bool(self.effects(event)), within_s=DUE_S)
            if not prompt:
                slow = f"an event of another tenant took longer than {DUE_S:g} s, too: the workers are busy or slow"
                raise Busy(f"{missed}; {slow}. {FEW_AT_ONCE}")
        late = f"{what}: observed nothing in {waited_s:.3g} s; due within {DUE_S:g} s"
        nothing = "Nothing of its tenants waits in the outbox: look at what should have written it"
        raise Breach(f"{late}. {'Look at the workers' if pace.waits else nothing}", WAITED)

    def _pace(self, waited_s: float) -> Pace:
        """The workers' progress during a wait of this length."""
        return Pace(**self.one(query("pace"), self.tenants.created, waited_s / 3, waited_s / 2))

    def prompt(self) -> bool:
        """Whether the target answers and the database commits without a stall."""
        try:
            answer = self.http.send(Request("GET", "/healthz"), timeout_s=self.stall_s)
        except NoAnswer:
            return False
        started = time.monotonic()
        for company in self.tenants.created[-1:]:
            self.rows("update public.companies set name = name where id = %s", company)
        return answer.status == 200 and time.monotonic() - started < self.stall_s

    def delivered(self, events: Sequence[str], *, within_s: float = PATIENCE_S, when: str = "") -> None:
        """Wait until every event has its effect, and assert that none has two. `when`: under which fault."""
        wanted = set(events)
        what = f"effects of {len(wanted)} events{when}"
        try:
            self.until(lambda: wanted <= set(self.effects(events)), what, within_s=within_s)
        except AssertionError as late:
            raise Breach(f"{late}. {self._whereabouts(wanted - set(self.effects(events)))}", WAITED) from None
        twice = {e: n for e, n in self.effects(events).items() if n > 1}
        if twice:
            self.seen.witness = dict(twice)
        assert not twice, f"{len(twice)} of {len(wanted)} events have more than one effect"
        self.seen.count(len(wanted))

    def _whereabouts(self, events: Collection[str]) -> str:
        """What outbox and agent tasks say of events without effect: `Of 2 without effect: 2 processed`."""
        seen = Counter(str(r["what"]) for r in self.rows(query("whereabouts"), *[list(events)] * 2))
        said = ", ".join(f"{n} {what}" for what, n in sorted(seen.items())) or "nothing in the outbox"
        return f"Of {len(events)} without effect: {said}"

    def ended(self, run: str, *, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait until a run has ended; its row. Tells a run that nothing can end any more from a slow one."""

        def probe() -> dict[str, Any]:
            return self.one(query("run") + " and status <> 'started'", run)

        try:
            return self.until(probe, f"the end of replay run {run}", within_s=within_s)
        except AssertionError:
            assert self.one(query("run"), run), f"there is no replay run {run}, which the answer named"
            assert self.number(query("unfinished"), run), (
                f"replay run {run} is still started after {within_s:g} s, though none of its items is on its way:"
                " nothing ends it"
            )
            raise

    def still_under_way(self, company: str, run: str, since: str) -> None:
        """The claim: the run of an `add_blocked` goes on, and is completed once its item is free."""
        state = self.one(query("run"), run)["status"], self.item(company)["status"]
        assert state == ("started", "replaying"), f"after {since} a run that is under way and its item are {state}"
        self.make_due(company)
        end = self.ended(run)["status"]
        assert end == "completed", f"after {since} a run that was under way ended as {end!r}"

    def quiet(self, company: str, *, within_s: float = 2.0) -> None:
        """Wait until nothing of a tenant is in flight and nothing has changed for a moment, or the time is over."""
        state, since = self._moves(company), time.monotonic()
        deadline = since + within_s + self.way_s
        while time.monotonic() < min(deadline, since + QUIET_S):
            time.sleep(POLL_S)
            now = self._moves(company)
            if now != state or now[0]:
                state, since = now, time.monotonic()

    def _moves(self, company: str) -> tuple[int, int, int]:
        row = self.one(query("progress"), company)
        return int(row["flying"]), int(row["processed"]), int(row["dead"])

    def in_order(self, events: Sequence[str]) -> None:
        """Assert that events, all delivered, were delivered in this order.

        Equal times say nothing. Nor do small differences between rows of one transaction, which became visible together
        and were dated in any order; nor (CLOSE_S) of two.
        """
        found: list[dict[str, Any]] = []

        def probe() -> bool:
            found[:] = self.rows(query("processed_in_order"), list(events))
            return len(found) == len(events) and all(r["at"] is not None for r in found)

        self.seen.require(self.until_true(probe, within_s=PATIENCE_S), "not every event is marked as processed")
        for before, after in itertools.pairwise(found):
            first, second = int(before["tx"]), int(after["tx"])
            allowed_s = TOGETHER_S if first == second else CLOSE_S if first < second else 0.0
            late = float(before["at"]) - float(after["at"]) > allowed_s
            if late:
                self.seen.witness = [{k: str(v) for k, v in r.items()} for r in (before, after)]
            assert not late, f"event {after['event']} of the same key was delivered before {before['event']}"
            self.seen.count()
