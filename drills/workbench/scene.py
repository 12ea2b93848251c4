"""The scene of one check: requests of its tenants, on top of waits for what they cause."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from drills.workbench.credentials import REPLAY, Minter, Signer, spellings
from drills.workbench.tenant_data import PLAIN_TYPE
from drills.workbench.waiting import DUE_S, FEW_AT_ONCE, LONGEST, PATIENCE_S, Waiting
from gates.checks.observation import Busy
from gates.deployment.dialect.current import current
from gates.deployment.dialect.exchange import path_of
from gates.deployment.http.client import HttpDoor
from gates.deployment.requests import BUSY, BY_A_PROXY, Answer, Request, encode_body, replay_fields, signed_get
from gates.deployment.sql.connection import Answering

T = TypeVar("T")

FOURTH, OVER_THE_LIMIT = "drill/rate-limit/fourth-refused", 4
"""The check that judges how the call over the limit is refused, and its number."""

CALLS = 12
"""Calls after which a service of a dozen processes has answered by most of them."""
LATE = (
    "{}: observed {}, and {:.1f} s later what was committed before the first of these reads: a replica or a cache"
    " answers them. Who looks at once takes his own run or event for lost: read what is new where it was written"
)
LISTS = ("items", "not_found", "ineligible")
"""Members of the answer to a replay that hold ids of dead letters."""


TASKS_LEFT = """
select count(*) from (
  select from public.agent_tasks t join public.companies c on c.id = t.company_id
  where t.event_id is not null and t.status <> 'completed' and c.name not like 'drill-%' limit 1
) as one
"""
"""Whether a tenant that is no drill's has a task of an event that is not completed."""
FAILED_ATTEMPT = """
select count(*) from public.event_outbox
where event_id = %s and (dead_at is not null or attempts > 0 and (claimed_until is null or claimed_until <= now()))
"""


@dataclass
class Scene(Waiting):
    """What one check works with."""

    signer: Signer

    # --- requests ------------------------------------------------------------------------------------------------

    def expect(
        self, request: Request, status: int | tuple[int, ...], code: str | None = None, *, control: bool = False
    ) -> Answer:
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

    def emit_unkeyed(self, company: str, **fields: Any) -> dict[str, Any]:
        """Send one event without a key; the answer's members, or none where the deployment demands a key."""
        answer = self.expect(self.event_request(company, key=None, **fields), (202, 400))
        return answer.json() if answer.status == 202 else {}

    def token_of(self, company: str) -> str:
        """A token of the company's administrator; empty where none can be minted."""
        can_mint = self.target.jwt_secret and self.claims("tokens")
        return Minter(self.target, self.signer.clock.now).for_company(company) if can_mint else ""

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

    def everywhere(self, company: str, status: int = 200, code: str | None = None, **given: Any) -> None:
        """Send a replay often enough to reach most processes of the service, each of which may have its own cache."""
        for _ in range(1 if "edge_rate_limits" in current().lacking else CALLS):
            self.replay(company, status, code, **given)
            self.reset_limit(company)

    def known(self, **fields: Any) -> dict[str, Any]:
        """Those of these members of a replay that the deployment knows."""
        lacking = {*current().lacking, *(() if self.claims("dry-run") else ("dry_run",))}
        return {name: value for name, value in fields.items() if name not in lacking}

    def run(self, company: str, **fields: Any) -> dict[str, Any]:
        """Start a replay as a control: where it is not accepted the check is unknown. The answer's members; a list that
        is null is read as empty, which drill/safety-rails/answer-adds-up judges.
        """
        answer = self.replay(company, control=True, **fields).json()
        return answer | {name: [] for name in LISTS if name in answer and answer[name] is None}

    def burst(self, requests: Sequence[Request], *doors: HttpDoor) -> list[Answer]:
        """Send all at once, through each of these doors. A request without an answer, or a gateway's error, ends the
        check as unknown: then the race proves nothing.
        """
        chosen = doors or (self.http,)
        with ThreadPoolExecutor(max_workers=len(chosen)) as pool:
            sent = [pool.submit(door.burst, list(requests)) for door in chosen]
            answers = [answer for future in sent for answer in future.result()]
        given = [a for a in answers if isinstance(a, Answer)]
        silent = len(answers) - len(given)
        self.seen.require(not silent, f"{silent} of {len(answers)} concurrent requests got no answer")
        broken = [str(a.status) for a in given if a.status in BY_A_PROXY or a.is_in_front]
        told = ", ".join(sorted({*broken}))
        self.seen.require(not broken, f"{len(broken)} of {len(given)} concurrent requests were answered {told}")
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
        return running.result()

    def read(self, path: str, company: str, label: str) -> Request:
        """A GET of what is the company's, signed by v2."""
        return signed_get(path_of(path, company), self.target.hmac_secret, self.signer.clock.now(), label)

    def get_run(
        self, run: str, company: str, is_due: Callable[[Answer], bool] = lambda answer: answer.status != 404
    ) -> tuple[Request, Answer]:
        """GET /dlq-replay/{id} of a run that exists."""
        return self._up_to_date(lambda: self.read(f"{REPLAY}/{run}", company, "a run"), is_due)

    def event_status(self, event: str, company: str, *, done: bool = False) -> dict[str, Any]:
        """What GET /events/{id} says of an event that exists; done: it has had its effect."""

        def is_due(answer: Answer) -> bool:
            return answer.status != 404 and bool(answer.json().get("effect_at") or not done)

        asked = self._up_to_date(lambda: self.read(f"/events/{event}", company, "an event's status"), is_due)
        return self.seen.expect(*asked, 200).json()

    def _up_to_date(self, made: Callable[[], Request], is_due: Callable[[Answer], bool]) -> tuple[Request, Answer]:
        """A read and its answer. End the check as unknown where it shows only later what was committed before: the
        contract does not say how soon, and a replica or a cache may answer.
        """
        request = made()
        answer, began = self.http.send(request), time.monotonic()
        if answer.status in {200, 404} and not is_due(answer):
            came = self.until_true(lambda: is_due(self.http.send(made())), within_s=PATIENCE_S)
            late_s = time.monotonic() - began
            self.seen.require(not came, LATE.format(request.label, answer.status, late_s))
        return request, answer

    def shut_to_strangers(self, place: str, known: str, absent: str, company: str) -> None:
        """The claim: without credentials, reads and HEADs of what is there and of what is not are answered alike, and
        no other spelling of the path shows what is there.
        """
        label = f"{place}/{{id}} without credentials"
        there, nowhere = (path_of(f"{place}/{one}", company) for one in (known, absent))
        asked = [Request("GET", path, label=f"GET of {label}") for path in (nowhere, there, nowhere)]
        before, told, after = (self.expect(request, 401).said(known, absent) for request in asked)
        if before == after:  # else each answer has something of its own
            assert told == before, f"GET of {label}: {told!r} where there is one, and {before!r} where there is none"
        due = self.http.send(Request("HEAD", nowhere)).status
        self.seen.require(due not in BUSY, f"HEAD of {label} answered {due}: the target was busy or limited us")
        self.expect(Request("HEAD", there, label=f"HEAD of {label}"), due)
        for odd, of_nothing in zip(spellings(there), spellings(nowhere), strict=True):
            request = Request("GET", odd, label=f"GET of {odd} without credentials")
            answer = self.http.send(request)
            if answer.status < 300 and answer.json():  # what stands in front may answer any path
                same = answer.said(known, absent) == self.http.send(Request("GET", of_nothing)).said(known, absent)
                self.seen.expect(request, answer, answer.status if same else 401)

    def behind_s(self, company: str) -> float:
        """By how many seconds the clock that dates effects is behind the database's, as a new event shows; or 0."""
        begun = self.value("select clock_timestamp()")
        event = str(self.emit(company)["event_id"])
        self.delivered([event])
        at = self.event_status(event, company, done=True).get("effect_at")
        read = "select extract(epoch from clock_timestamp() - at) as s from (select %s::timestamptz at) e where at < %s"
        return next((float(row["s"]) for row in self.rows(read, at, begun)), 0.0)

    def claims_drill_agent(self) -> None:
        """End the check unless the target's agent can be made to fail."""
        self.seen.require(self._has_drill_agent(), "/version does not claim drill_agent")

    def _has_drill_agent(self) -> bool:
        answer = self.http.send(Request("GET", "/version"))
        busy = answer.status in BUSY
        self.seen.require(not busy, f"/version answered {answer.status}: the target was busy or limited us")
        return answer.json().get("drill_agent") is True

    def leaves_tasks(self, company: str) -> bool:
        """Whether the target leaves tasks that are not completed to events: as a failed attempt leaves one in this
        tenant, or as they stand in the table. Where it never does, nobody but a drill writes one. A target without
        such a task whose agent cannot be made to fail is asked for no more than for what a drill agent is needed.
        """
        if self.number(TASKS_LEFT):
            return True
        if not self._has_drill_agent():
            return False
        always = {"drill": {"fail_times": -1}}
        event = str(self.emit(company, key=new_key(), event_type="drill.fails", payload=always)["event_id"])
        failed = self.until_true(lambda: self.number(FAILED_ATTEMPT, event) > 0, within_s=LONGEST * PATIENCE_S)
        if not failed:
            ended = "no attempt of an event whose agent always fails was seen to end"
            raise Busy(f"{ended}: the workers are busy or slow. {FEW_AT_ONCE}")
        return self.number("select count(*) from public.agent_tasks where event_id = %s", event) > 0

    def passes_by(self, company: str, rounds: int = 3, *, claims: bool = False) -> None:
        """Show that time enough has passed: events of keys of their own, one after the other, had their effects.
        `claims`: another relay has rows of the tenant. Where that is all of a tenant that relays take at once, events
        of another tenant will do.
        """
        passing, event = company, ""

        def came() -> bool:
            return event in self.effects([event])

        for _ in range(rounds):
            event = str(self.emit(passing, key=str(uuid.uuid4()))["event_id"])
            if claims and passing == company and not self.until_true(came, within_s=DUE_S):
                passing = self.company("beside")
                event = str(self.emit(passing)["event_id"])
            self.delivered([event])
        self.seen.control(f"{rounds} events of other keys were delivered meanwhile")


def new_key() -> str:
    """A new key for requests or events."""
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
    """Start something in a thread of its own."""
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        return pool.submit(work)
    finally:
        pool.shutdown(wait=False)
