"""Runs a program against the real service beside a model of the contract, and compares after every step.

The model knows one tenant: its items, its budget, its keys and its limit. A step ends as `ok`, as `fail` (refused, as
was due), as `idle` (it had nothing to act on) or as `indeterminate` (no answer came, so it is unknown whether it was or
will be done). After an indeterminate step the model adopts the state of the database. A later disagreement then proves
nothing and ends the program; but two effects of one event and a broken audit chain always count.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from drills.statemachine.programs import Step
from drills.workbench.audit_chain import broken_links
from drills.workbench.scene import Scene
from gates.deployment.dialect.current import current
from gates.deployment.http.client import NoAnswer
from gates.deployment.ids import new_id
from gates.deployment.requests import BUSY, SIGNATURE, Answer, Request

OK, FAIL, IDLE, INDETERMINATE = "ok", "fail", "idle", "indeterminate"
COMPLETED = (OK, FAIL)
TODAY = "select (now() at time zone 'UTC')::date"
LIMIT = current().limit("calls")
DRAIN_S = 15.0
WINDOW_S = current().limit("window_s") + 1


@dataclass(frozen=True)
class Wrong(Exception):  # noqa: N818  -- a finding, not an error
    """The service and the model disagree."""

    step: int
    rule: str
    what: str

    def __str__(self) -> str:
        return f"step {self.step} ({self.rule}): {self.what}"


class Unsure(Exception):  # noqa: N818  -- the end of a program, not an error
    """The service and the model disagree after a step whose outcome nobody knows."""


@dataclass
class Model:
    """What the tenant looks like if the service keeps the contract."""

    pending: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    event_keys: dict[str, str] = field(default_factory=dict)
    keys: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    """Keys that were refused, and with which size: nothing of them is stored, they are as new."""
    paused: bool = False
    limit: int = 500
    used: int = 0
    admitted: int = 0


@dataclass
class Machine:
    """One program on one fresh tenant. `done` counts (rule, outcome) of all machines that share it."""

    scene: Scene
    done: Counter[tuple[str, str]]
    company: str = ""
    model: Model = field(default_factory=Model)
    step: int = 0
    rule: str = ""
    unsure: bool = False
    _day: object = None

    def run(self, program: Sequence[Step]) -> None:
        """Run all steps and settle. Raise Wrong at the first disagreement."""
        self.company = self.scene.company("machine")
        self.model, self.unsure, self._day = Model(), False, self.scene.value(TODAY)
        try:
            for self.step, one in enumerate([*program, Step("quiesce", 0)]):
                self.rule = one.rule
                self.done[one.rule, self._outcome(one)] += 1
        except Unsure:
            self.done[self.rule, INDETERMINATE] += 1
        finally:
            self.scene.tenants.remove([self.company])

    def _outcome(self, one: Step) -> str:
        try:
            return str(getattr(self, f"_{one.rule}")(one.number) or OK)
        except NoAnswer:
            self._take_over()
            return INDETERMINATE
        except AssertionError as error:  # a wait that failed
            raise Wrong(self.step, self.rule, str(error)) from error

    def _wrong(self, what: str, *, always: bool = False) -> NoReturn:
        # at midnight UTC a budget begins anew, which the model does not know
        if not always and (self.unsure or self.scene.value(TODAY) != self._day):
            raise Unsure
        raise Wrong(self.step, self.rule, what)

    # --- rules: None is OK ---------------------------------------------------------------------------------------

    def _emit(self, number: int) -> None:
        event, key = new_id("event"), f"k{number % 3}"
        answer = self._send(self.scene.event_request(self.company, key=key, event_id=event))
        if answer.status != 202 or answer.json().get("duplicate") is not False:
            self._wrong(f"a new event is answered {answer.status} {answer.json()}")
        self.model.events.append(event)
        self.model.event_keys[event] = key

    def _emit_again(self, number: int) -> str:
        if not self.model.events:
            return IDLE
        event = self.model.events[number % len(self.model.events)]
        known = self.model.event_keys.get(event, "again")
        same = number % 2 == 0 and known != "again"
        answer = self._send(self.scene.event_request(self.company, key=known if same else "again", event_id=event))
        if answer.status == 202 and answer.json().get("duplicate") is not True:
            self._wrong("an event that was there is accepted as a new one")
        # the same id with another key: a duplicate to some, a conflict to others; never a second event
        if answer.status not in ({202} if same else {202, 409, 422}):
            self._wrong(f"an event that was there is answered {answer.status}, sent as it was: {same}")
        return OK if answer.status == 202 else FAIL

    def _add_items(self, number: int) -> None:
        ids = self.scene.tenants.add_items(self.company, 1 + number % 6)
        # later batches are younger, so that the order of claims is the order of insertion
        self.scene.rows(
            "update public.dead_letter_queue set created_at = created_at + make_interval(secs => %s)"
            " where id = any(%s::uuid[])",
            len(self.model.pending) + len(self.model.moved) + self.step * 10,
            ids,
        )
        self.model.pending += ids

    def _replay(self, number: int) -> str:
        return self._replay_with(str(uuid.uuid4()), 1 + number % 7)

    def _retry_same(self, number: int) -> str:
        return self._retry(number, 0)

    def _retry_other(self, number: int) -> str:
        return self._retry(number, 20)

    def _retry(self, number: int, more: int) -> str:
        # in the order of their first use, so that a program always does the same
        sizes = {**{key: size for key, (size, _) in self.model.keys.items()}, **self.model.refused}
        if not sizes:
            return IDLE
        key = list(sizes)[number % len(sizes)]
        return self._replay_with(key, sizes[key] + more)

    def _dry_run(self, number: int) -> str:
        most = 1 + number % 7
        answer = self._send(self.scene.replay_request(self.company, max=most, dry_run=True))
        due = self._refusal(None, most)
        if due is not None:
            return self._compare_refusal(answer, due, most)
        shown, claim = answer.json().get("items"), self._claim(most)
        if answer.status != 200 or not isinstance(shown, list) or sorted(map(str, shown)) != sorted(claim):
            self._wrong(f"a dry run shows {answer.status} {shown}; due: {claim}, the oldest, in any order")
        return OK

    def _discard(self, number: int) -> str:
        if not self.model.pending:
            return IDLE
        item = self.model.pending.pop(number % len(self.model.pending))
        self.scene.rows("update public.dead_letter_queue set status = 'discarded' where id = %s", item)
        return OK

    def _pause(self, _number: int) -> None:
        self.scene.pause(self.company)
        self.model.paused = True

    def _resume(self, _number: int) -> None:
        self.scene.pause(self.company, on=False)
        self.model.paused = False

    def _set_budget(self, number: int) -> None:
        self.model.limit = self.model.used + number % 5
        changed = "update public.replay_budgets set daily_limit = %s where company_id = %s returning daily_limit"
        if not self.scene.rows(changed, self.model.limit, self.company):
            made = "insert into public.replay_budgets (daily_limit, company_id) values (%s, %s)"
            self.scene.rows(made, self.model.limit, self.company)

    def _advance_clock(self, _number: int) -> None:
        self.scene.rows(
            "update public.edge_rate_limits set hits = array(select h - make_interval(secs => %s) from unnest(hits) h)"
            " where starts_with(key, %s)",
            WINDOW_S,
            f"replay:{self.company}:",
        )
        self.model.admitted = 0

    def _hostile(self, number: int) -> str:
        good = self.scene.replay_request(self.company, max=5)
        hostile = (
            (good.with_header(SIGNATURE, "0" * 64), 401),
            (good.without_header(SIGNATURE), 401),
            (good.with_body(good.body + b" "), 401),
            (self.scene.replay_request(self.company, max=51), 400),
            (self.scene.replay_request(self.company, max=1, role="super_admin"), 400),
            (self.scene.replay_request(str(uuid.uuid4()), max=5), 403),
        )
        request, status = hostile[number % len(hostile)]
        answer = self._send(request)
        if answer.status != status:
            self._wrong(f"a hostile request is answered {answer.status}; due: {status}")
        self._check_still()
        return FAIL

    def _quiesce(self, _number: int) -> None:
        if self.model.paused:
            self._resume(0)
        scene, model = self.scene, self.model
        scene.until(self._drained, "the backlog of a program", within_s=DRAIN_S)
        self._check_still()
        open_runs = scene.count("replay_runs", self.company, "status = 'started'")
        if open_runs:
            self._wrong(f"{open_runs} runs are still started with nothing left to do")
        twice = scene.rows(
            "select event_id from public.agent_tasks where company_id = %s and status = 'completed'"
            " group by 1 having count(*) > 1",
            self.company,
        )
        if twice:
            self._wrong(f"{len(twice)} events have more than one effect", always=True)
        effects = len(scene.effects(model.events))
        if effects != len(model.events):
            self._wrong(f"{effects} of {len(model.events)} events had their effect")
        resolved = scene.number(
            "select count(*) from public.dead_letter_queue where id = any(%s::uuid[]) and status = 'resolved'",
            model.moved,
        )
        if resolved != len(model.moved):
            self._wrong(f"{resolved} of {len(model.moved)} replayed items are resolved")
        rows, wrong = broken_links(scene.db, self.company)
        if wrong:
            self._wrong(f"{len(wrong)} of {rows} links of the audit chain are broken: {wrong[0]}", always=True)

    # --- the model -----------------------------------------------------------------------------------------------

    def _replay_with(self, key: str, most: int) -> str:
        answer = self._send(self.scene.replay_request(self.company, max=most, idempotency_key=key))
        due = self._refusal(key, most)
        if due is not None:
            outcome = self._compare_refusal(answer, due, most)
            if outcome == FAIL and key not in self.model.keys:
                self.model.refused[key] = most
            return outcome
        self.model.refused.pop(key, None)
        if answer.status != 200:
            self._wrong(f"a replay is answered {answer.status} {answer.code}; due: 200")
        body = answer.json()
        if key in self.model.keys:
            first = self.model.keys[key][1]
            if body.get("duplicate") is not True or body.get("items") != first.get("items"):
                self._wrong(f"the repetition is answered {body}; first was {first}")
            return OK
        claim = self._claim(most)
        if sorted(body.get("items", [])) != sorted(claim):
            self._wrong(f"a replay took {len(body.get('items', []))} items; due: {len(claim)}, the oldest first")
        self.model.keys[key] = (most, body)
        self.model.pending = self.model.pending[len(claim) :]
        self.model.moved += claim
        self.model.used += len(claim)
        return OK

    def _refusal(self, key: str | None, most: int) -> tuple[int, str] | None:
        """The refusal that is due, in the contract's order; counts the admitted request."""
        model = self.model
        if model.admitted >= LIMIT:
            return 429, "rate_limited"
        model.admitted += 1
        if key in model.keys:
            return None if model.keys[str(key)][0] == most else (422, "idempotency_key_reused")
        if model.paused:
            return 409, "agents_paused"
        if model.limit <= model.used:
            return 429, "budget_exhausted"
        return None

    def _compare_refusal(self, answer: Answer, due: tuple[int, str], most: int) -> str:
        # a spent budget refuses nothing where nothing is eligible: the contract leaves it open
        if due[1] == "budget_exhausted" and not self.model.pending and answer.status == 200:
            if answer.json().get("items"):
                self._wrong("a spent budget let items through")
            if not answer.json().get("dry_run"):
                self.model.keys[str(answer.json()["idempotency_key"])] = (most, answer.json())
            return OK
        if (answer.status, answer.code) != due:
            self._wrong(f"a replay is answered {answer.status} {answer.code}; due: {due[0]} {due[1]}")
        return FAIL

    def _claim(self, most: int) -> list[str]:
        return self.model.pending[: min(most, max(self.model.limit - self.model.used, 0))]

    def _send(self, request: Request) -> Answer:
        answer = self.scene.http.send(request)
        if answer.status >= 500:
            if answer.status in BUSY:
                raise NoAnswer(f"answered {answer.status}")
            self._wrong(f"answered {answer.status}")
        if answer.status == 429 and not answer.code:
            raise NoAnswer("limited by something that is not the service")
        return answer

    def _drained(self) -> bool:
        self.scene.make_due(self.company)
        return self.scene.count("event_outbox", self.company, "processed_at is null and dead_at is null") == 0

    def _check_still(self) -> None:
        """The database agrees with the model on what is pending and what was charged."""
        rows = self.scene.rows(
            "select id from public.dead_letter_queue where company_id = %s and status = 'pending'", self.company
        )
        pending = {str(r["id"]) for r in rows}
        if pending != set(self.model.pending):
            self._wrong(f"{len(pending)} items are pending; due: {len(self.model.pending)}")
        used = self.scene.used(self.company)[0]
        if used != self.model.used:
            self._wrong(f"{used} items were charged; due: {self.model.used}")

    def _take_over(self) -> None:
        """After an indeterminate step, adopt the state of the database once nothing changes any more."""
        self.unsure = True
        self.scene.quiet(self.company)
        rows = self.scene.items(self.company)
        self.model.pending = [str(r["id"]) for r in rows if r["status"] == "pending"]
        self.model.moved = [str(r["id"]) for r in rows if r["status"] in {"replaying", "resolved"}]
        self.model.used = self.scene.used(self.company)[0]
        self.model.admitted = LIMIT
        self._advance_clock(0)
        known = self.scene.rows("select id::text as id from public.events where company_id = %s", self.company)
        self.model.events = [str(r["id"]) for r in known]
        runs = self.scene.rows(
            "select idempotency_key as key from public.replay_runs where company_id = %s", self.company
        )
        self.model.keys = {k: v for k, v in self.model.keys.items() if k in {str(r["key"]) for r in runs}}
