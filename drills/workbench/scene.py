"""The scene of one check: requests of its tenants, and waits for what they cause.

A wait polls until a deadline. `Scene.late` alone decides what a missed deadline means. Where the target answered and
had nothing else to do, it is a failure. Where the target was busy with other events, or did not answer, the check is
unknown.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, ClassVar, NoReturn, TypeVar

import psycopg

from drills.workbench.credentials import REPLAY, Signer
from drills.workbench.database import query
from drills.workbench.tenant_data import PLAIN_TYPE, TenantData
from gates.deployment.client import HttpDoor, NoAnswer
from gates.deployment.connection import Answering
from gates.deployment.database import Connection, backend_of, execute, value
from gates.deployment.dialect.current import current, written
from gates.deployment.dialect.exchange import path_of
from gates.deployment.requests import Answer, Request, encode_body, replay_fields, signed_get

T = TypeVar("T")

PATIENCE_S = 6.0
"""How long a check waits for an effect that is due within 2 s. It is three times that, for machines that are busy."""

LONGEST = 3
"""So many times as long it waits at most, while some of what it waits for still comes."""
POLL_S = 0.02
STALL_S = 1.0
"""Where one query, one commit or one answer of /healthz takes longer, a machine stands still: that proves nothing."""
ON_THE_WAY = 10
"""So many round trips go into a wait on top of what the target may take: an act and a few looks at its effect."""

FOURTH, OVER_THE_LIMIT = "drill/rate-limit/fourth-refused", 4
"""The check that judges how the call over the limit is refused, and its number."""

QUIET_S = 0.4
"""How long nothing must have changed before a tenant counts as quiet."""

TOGETHER_S, CLOSE_S = 0.1, 0.05
"""By how much times may disagree with the order of delivery: of rows of one transaction, and of rows of two that were
written in the right order. A row may have the time at which its transaction began, before it had to wait."""


@dataclass
class Scene(TenantData):
    """What one check works with. `wait_scale` is a factor on every wait that ends in a judgement: the project's own
    tests, which plant defects on a quiet machine, wait less. `trip_s`: a round trip to the farther door.
    """

    wait_scale: ClassVar[float] = 1.0
    trip_s: ClassVar[float] = 0.0

    signer: Signer

    # --- requests ------------------------------------------------------------------------------------------------

    def expect(
        self, request: Request, status: int | tuple[int, ...], code: str | None = None, *, control: bool = False
    ) -> Answer:
        """Send one request and expect this answer."""
        return self.seen.expect(request, self.http.send(request), status, code, control=control)

    def event_request(
        self,
        company: str,
        *,
        key: str | None = "k",
        payload: Mapping[str, Any] | None = None,
        event_type: str = PLAIN_TYPE,
        event_id: str | None = None,
    ) -> Request:
        """A signed POST /events; without a key it is an event of no order."""
        fields: dict[str, Any] = {
            "company_id": company,
            "event_type": event_type,
            **({} if key is None else {"aggregate_key": key}),
            "payload": dict(payload or {"n": 1}),
        }
        if event_id is not None:
            fields["event_id"] = event_id
        return self.signer.post("/events", encode_body(fields), "an event")

    def emit(self, company: str, *, control: bool = False, **fields: Any) -> dict[str, Any]:
        """Send one event; the answer's members. Anything but 202 ends the check."""
        request = self.event_request(company, **fields)
        return self.expect(request, 202, control=control).json()

    def replay_request(self, company: str, label: str = "a replay", **fields: Any) -> Request:
        """A signed POST /dlq-replay."""
        return self.signer.post(REPLAY, encode_body(replay_fields(company, **fields)), label)

    def replay(
        self,
        company: str,
        status: int | tuple[int, ...] = 200,
        code: str | None = None,
        *,
        label: str = "",
        control: bool = False,
        **fields: Any,
    ) -> Answer:
        """Send one replay and expect this answer. A `rate_limited` that was not expected says nothing of the target."""
        request = self.replay_request(company, label or (f"replay {fields}" if fields else "replay"), **fields)
        answer = self.http.send(request)
        limited = answer.status == 429 and answer.code in {"rate_limited", ""}
        wanted = status == 429 and code in {None, "rate_limited"}
        self.seen.require(wanted or not limited, f"{request.label}: observed 429 {answer.code}: we were limited")
        # another 429, of the tenant's budget, is the target's judgement and not a busy target
        return self.seen.expect(request, answer, status, code, control=control, busy=answer.status == 429)

    def known(self, **fields: Any) -> dict[str, Any]:
        """Of these members of a replay those that the deployment knows."""
        lacking = {*current().lacking, *(() if self.claims("dry-run") else ("dry_run",))}
        return {name: value for name, value in fields.items() if name not in lacking}

    def run(self, company: str, **fields: Any) -> dict[str, Any]:
        """Start a replay as a control: where it is not accepted the check is unknown. The answer's members."""
        return self.replay(company, control=True, **fields).json()

    def burst(self, requests: Sequence[Request], *doors: HttpDoor) -> list[Answer]:
        """Send all at once, through each of these doors. A request without an answer, or a gateway's error, ends the
        check as unknown: then the race proves nothing.
        """
        chosen = doors or (self.http,)
        with ThreadPoolExecutor(max_workers=len(chosen)) as pool:
            sent = [pool.submit(door.burst, list(requests)) for door in chosen]
            answers = [answer for future in sent for answer in future.result(timeout=60)]
        given = [a for a in answers if isinstance(a, Answer)]
        silent = len(answers) - len(given)
        self.seen.require(not silent, f"{silent} of {len(answers)} concurrent requests got no answer")
        broken = [a.status for a in given if a.status in {502, 503, 504}]
        self.seen.require(not broken, f"{len(broken)} of {len(given)} concurrent requests were answered {set(broken)}")
        return given

    def blame_the_limiter(self, answers: Sequence[Answer], kept: str) -> None:
        """End the check as unknown where calls of a race got a server error and a limiter that is broken gives the same
        to every call over the limit; kept: what the race was seen to keep all the same.
        """
        broken = [a for a in answers if a.status >= 500]
        if not broken:
            return
        company = self.company("limit")
        calls = [self.replay_request(company, f"call {n}", max=1, dry_run=True) for n in range(1, OVER_THE_LIMIT + 1)]
        over = [self.http.send(call) for call in calls][-1]
        told = ", ".join(sorted({str(a.status) for a in broken}))
        self.seen.require(
            over.status < 500,
            f"{kept}; but {len(broken)} of {len(answers)} calls were answered {told}, like any call over the limit."
            " Whether the race fails, too, can be told once the limiter refuses with 429",
            by=FOURTH,
        )

    def in_background(self, request: Request) -> Future[Answer]:
        """Send one request from a thread of its own."""
        return aside(lambda: self.http.send(request))

    def moves_nothing_while(self, held: Answering, company: str, *, within_s: float, what: str) -> Answer:
        """Replay a tenant's items while `held` has locked what a replay reads. Assert that none is moved until the lock
        is released, after that time. The answer, which may come later.
        """
        release = self.released_after(held, within_s + self.way_s)
        running = self.in_background(self.replay_request(company, max=2))
        while release.is_alive():
            moved = self.count("event_outbox", company)
            assert not moved or release.released.is_set(), f"{moved} items were moved while {what} locked by another"
            self.seen.count()
            release.join(timeout=0.1)
        return running.result(timeout=10)

    def get_run(self, run: str, company: str) -> tuple[Request, Answer]:
        """GET /dlq-replay/{id} of a company's, signed by v2."""
        path = path_of(f"{REPLAY}/{run}", company)
        request = signed_get(path, self.target.hmac_secret, self.signer.clock.now(), "a run")
        return request, self.http.send(request)

    # --- waiting -------------------------------------------------------------------------------------------------

    @property
    def way_s(self) -> float:
        """What the distance adds to a limit: every limit of a drill grows by it."""
        return ON_THE_WAY * self.trip_s

    @property
    def stall_s(self) -> float:
        """What takes longer than this stands still."""
        return STALL_S + self.way_s

    def patience_s(self, within_s: float) -> float:
        """How long to wait from here for what a target may take so long for."""
        return within_s * self.wait_scale + self.way_s

    def until(self, probe: Callable[[], T], what: str, *, within_s: float = PATIENCE_S, every_s: float = POLL_S) -> T:
        """Poll until the probe gives something true, and return it; at the deadline, judge as `late` says. It moves on
        while events of the check's own tenants are delivered one by one: that is slow, and `LONGEST` ends it.
        """
        within_s = self.patience_s(within_s)
        begun = before = time.monotonic()
        deadline, stalled_s = begun + within_s, 0.0
        while True:
            found = probe()
            if found:
                return found
            now = time.monotonic()
            stalled_s, before = max(stalled_s, now - before), now
            if now > deadline:
                deadline += within_s / 3
                if deadline > begun + LONGEST * within_s or not self._own_moved(within_s / 3):
                    self.late(what, now - begun, stalled_s)
            time.sleep(every_s)

    def until_true(self, probe: Callable[[], bool], *, within_s: float) -> bool:
        """Poll until the probe is true or the time is over, which proves nothing; whether it became true."""
        deadline = time.monotonic() + self.patience_s(within_s)
        while not (found := probe()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return found

    def looks_through(
        self, acts: Sequence[Callable[[], object]], look: str, *params: object, within_s: float
    ) -> list[Any]:
        """What the server sees with a statement of two columns (what is seen, how many of the acts have come to their
        end), from before the first act on. Each act is done once the end of the one before was seen, in this time.
        All that changed: when the look before began, when this one had ended (Unix seconds), and what was seen: it
        came about between the two.
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
                "replaygate.look": psycopg.ClientCursor(watching).mogrify(statement.encode(), given),
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

    def somebody_waits(self, held: Connection, *, within_s: float) -> bool:
        """Whether a session comes to wait, in that time, for what the connection holds."""
        ask = "select count(*) from pg_stat_activity where %s = any(pg_blocking_pids(pid))"
        holder = backend_of(held)
        return self.until_true(lambda: self.number(ask, holder) > 0, within_s=within_s)

    def late(self, what: str, waited_s: float, stalled_s: float = 0.0) -> NoReturn:
        """A deadline passed: a failure where the target answers promptly, no worker is on its way to it, and neither we
        nor the database stood still meanwhile (stalled_s: the longest time between two looks); else unknown.
        """
        missed, limit_s = f"{what}: not seen in {waited_s:.3g} s", self.stall_s
        self.seen.require(stalled_s < limit_s, f"{missed}, of which {stalled_s:.1f} s went to one look")
        self.seen.require(self.prompt(), f"{missed}, and the target did not answer within {limit_s:g} s")
        self.seen.require(not self._own_moved(waited_s / 3), f"{missed}; what is there comes slowly, one by one")
        waiting = self.number(query("waiting_before"), self.tenants.created, waited_s)
        self.seen.require(not waiting, f"{missed}; {waiting} other events were waiting, and moving")
        raise AssertionError(
            f"{what}: observed nothing in {waited_s:.3g} s; due within 2 s with nothing waiting. Look at the workers"
        )

    def _own_moved(self, lately_s: float) -> bool:
        """Whether an event of the check's tenants was processed in that time."""
        return self.value(query("moved_lately"), self.tenants.created, lately_s) is True

    def prompt(self) -> bool:
        """Whether the target answers, and the database commits, without delay: nobody's machine stands still."""
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
        self.until(lambda: wanted <= set(self.effects(events)), what, within_s=within_s)
        twice = {e: n for e, n in self.effects(events).items() if n > 1}
        if twice:
            self.seen.witness = dict(twice)
        assert not twice, f"{len(twice)} of {len(wanted)} events have more than one effect"
        self.seen.count(len(wanted))

    def ended(self, run: str, *, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """Wait until a run has ended; its row. A run that nothing can end any more is told from one that is slow."""

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

        Equal times say nothing, and neither do small differences between rows of one transaction: they became visible
        together, and a statement over many rows reads the clock in any order. See CLOSE_S for those of two.
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

    def claims_drill_agent(self) -> None:
        """End the check unless the target's agent can be made to fail."""
        answer = self.http.send(Request("GET", "/version"))
        self.seen.require(answer.json().get("drill_agent") is True, "/version does not claim drill_agent")

    def passes_by(self, company: str, rounds: int = 3) -> None:
        """Show that time enough has passed: another tenant's events, sent one after the other, had their effects."""
        for _ in range(rounds):
            event = str(self.emit(company, key=str(uuid.uuid4()))["event_id"])
            self.delivered([event])
        self.seen.control(f"{rounds} events of another tenant were delivered meanwhile")


def new_key() -> str:
    """A key of requests or of events that nobody used before."""
    return f"drill-{uuid.uuid4()}"


def best_of(attempts: int, measure: Callable[[], float], enough: float) -> list[float]:
    """Measure up to so many times, stopping at the first value that is small enough; all values."""
    values: list[float] = []
    for _ in range(attempts):
        values.append(measure())
        if values[-1] <= enough:
            break
    return values


def aside(work: Callable[[], T]) -> Future[T]:
    """Begin something in a thread of its own."""
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        return pool.submit(work)
    finally:
        pool.shutdown(wait=False)
