"""The short drill: the checklist's five promises and the dry run, in four limited calls.

It needs BASE_URL, TRANSBOT_HMAC_SECRET, TEST_COMPANY_ID and ADMIN_JWT only, and then acts for TEST_COMPANY_ID: one real
replay of at most one item, its repetition, one dry run, and a fourth call that must be refused. Where DATABASE_URL is
given it acts for a drill tenant of its own.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pytest

from drills.workbench.bench import let_in
from drills.workbench.credentials import REPLAY, Signer, admin_token
from drills.workbench.database import SqlDoor
from drills.workbench.rate_limit import client_addresses
from gates.checks.recorder import Observer, Unmet, check
from gates.deployment.dialect.current import current
from gates.deployment.http.client import HttpDoor
from gates.deployment.requests import (
    BUSY,
    SIGNATURE,
    Answer,
    Exchange,
    Request,
    encode_body,
    forged_signature,
    post,
    token_post,
)
from gates.deployment.sql.database import value
from gates.deployment.target import Target
from gates.deployment.tenants.tenants import Tenants
from gates.evidence import Severity
from gates.text import foreign

pytestmark = pytest.mark.together

REFUSED = ("unsigned", "forged", "bad token", "oversized")
LIMITED = ("signed", "token", "dry", "fourth")
COUNTED = "select sum(cardinality(hits)) from public.edge_rate_limits where key like %s"


@dataclass
class ShortDrill:
    """The exchanges of the short drill by name, and what the database showed after the dry run.

    `fresh`: the tenant was created for this drill, so that no call before ours can have counted.
    """

    company: str
    fresh: bool
    exchanges: dict[str, Exchange] = field(default_factory=dict)
    outbox_rows: list[int] = field(default_factory=list)
    addresses: int = 1
    """From how many addresses the calls came to the target; each has three of its own."""
    counted: int = 0
    """How many calls of the tenant the limit has counted; 0 where that cannot be seen."""

    def of(self, name: str) -> tuple[Request, Answer]:
        """Request and answer; a limited one is unknown where the limit was used up before the drill began."""
        ours = [self.exchanges[n].answer for n in LIMITED[:3]]
        refused = [a for a in (ours[:1] if self.fresh else ours) if a.status == 429]
        is_limited = name not in {*REFUSED, "largest"}
        if is_limited and refused:
            calls, window_s = current().limit("calls"), current().limit("window_s")
            wait_s = min(foreign.count(refused[-1].header("retry-after")), window_s) or window_s
            again = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=wait_s)
            raise Unmet(
                f"the calls of {self.company} are used up; {calls} in {window_s} s are allowed. "
                f"Try again in {wait_s} s, at {again:%H:%M:%S} UTC"
            )
        exchange = self.exchanges[name]
        spent = [e.request.label for n, e in self.exchanges.items() if n in REFUSED and e.answer.status < 300]
        if is_limited and spent and exchange.answer.status == 429:
            raise Unmet(f"{spent[0]} was admitted, where a refusal was due, and used up a call of the limit")
        return exchange.request, exchange.answer


def _requests(company: str, token: str, signer: Signer) -> Iterator[tuple[str, Request]]:
    """The requests in their order; the first five are refused before the limit and do not count."""
    fields = {"company_id": company, "max": 1, "idempotency_key": f"drill-{uuid.uuid4()}"}
    body = encode_body(fields)
    batch, calls = current().limit("batch"), current().limit("calls")
    preview = encode_body({"company_id": company, "max": 1, "dry_run": True})
    elsewhere = encode_body({"company_id": str(uuid.uuid4()), "max": batch})
    yield "unsigned", post(REPLAY, body, label="no credentials")
    yield "forged", post(REPLAY, body, (SIGNATURE, forged_signature()), label="a wrong signature")
    yield "bad token", token_post(REPLAY, body, f"{token[:-8]}AAAAAAAA", "a wrong token")
    yield (
        "oversized",
        signer.post(REPLAY, encode_body({"company_id": company, "max": batch + 1}), f"a batch of {batch + 1}"),
    )
    yield "largest", signer.post(REPLAY, elsewhere, f"a batch of {batch}, for a company that does not exist")
    yield "signed", signer.post(REPLAY, body, "call 1: signed, at most 1 item")
    yield "token", token_post(REPLAY, body, token, "call 2: the same by the admin token")
    yield "dry", signer.post(REPLAY, preview, "call 3: a dry run")
    for number in range(4, calls + 1):
        yield f"call {number}", signer.post(REPLAY, preview, f"call {number}")
    yield "fourth", signer.post(REPLAY, preview, f"call {calls + 1}")


@pytest.fixture(scope="module")
def company(request: pytest.FixtureRequest, target: Target, run_id: str, sql_door: SqlDoor) -> Iterator[str]:
    """A drill tenant with two items where there is a database, else TEST_COMPANY_ID."""
    if not target.database_url:
        if not target.test_company_id:
            raise Unmet("TEST_COMPANY_ID is not set: there is no tenant to act for. Set it, or DATABASE_URL")
        yield target.test_company_id
        return
    keep: Callable[[str], None] = request.getfixturevalue("keep")
    rollouts, lease = request.getfixturevalue("rollouts"), request.getfixturevalue("lease")
    made = Tenants(sql_door.connection(), run_id, rollouts=rollouts, on_create=keep, lease=lease)
    created = made.create(label="proof")
    made.add_items(created, 2)
    yield created
    made.remove()


@pytest.fixture(scope="module")
def scenario(company: str, target: Target, http: HttpDoor, signer: Signer, sql_door: SqlDoor) -> ShortDrill:
    """Carry the short drill out, once: TEST_COMPANY_ID has its three calls for all checks together."""
    token = admin_token(target, signer.clock.now, company)
    drill = ShortDrill(company, fresh=bool(target.database_url))
    _carry_out(drill, target, http, _requests(company, token, signer), sql_door)
    return drill


def _carry_out(
    drill: ShortDrill, target: Target, http: HttpDoor, requests: Iterable[tuple[str, Request]], sql_door: SqlDoor
) -> None:
    count = "select count(*) from public.event_outbox where company_id = %s"
    for name, request in requests:
        if target.database_url and name in {"dry", "fourth" if current().limit("calls") == 3 else "call 4"}:
            drill.outbox_rows.append(int(str(value(sql_door.connection(), count, drill.company))))
        drill.exchanges[name] = Exchange(request, http.send(request))
    if target.database_url:
        drill.addresses = len(client_addresses(sql_door.connection(), drill.company)) or 1
        drill.counted = foreign.count(value(sql_door.connection(), COUNTED, f"replay:{drill.company}:%"))


def _past_the_door(seen: Observer, scenario: ShortDrill) -> None:
    """The control: signed, and of the largest size, a request is refused for its company at most."""
    request, answer = scenario.of("largest")
    passed = let_in(answer) and answer.status != 400
    seen.expect(request, answer, answer.status if passed else 403, control=True)


@check("drill/proof/invalid-signature-refused", covers=("A02", "A04"))
def test_invalid_signature(scenario: ShortDrill, seen: Observer) -> None:
    """A request with a wrong signature, or with none, is refused with 401.

    Anyone replays any tenant's events.
    """
    _past_the_door(seen, scenario)
    seen.expect(*scenario.of("forged"), 401)
    seen.expect(*scenario.of("unsigned"), 401)


@check("drill/proof/valid-signature-accepted", covers=("A01",))
def test_valid_signature(scenario: ShortDrill, seen: Observer) -> None:
    """A correctly signed replay is accepted with 200.

    The operators' tool is locked out.
    """
    seen.expect(*scenario.of("forged"), 401, control=True)
    admitted = LIMITED[:3]
    broken = [scenario.exchanges[n] for n in admitted if scenario.exchanges[n].answer.status >= 500]
    if len(broken) == len(admitted):
        seen.failing = broken[0]
        statuses = ", ".join(sorted({str(e.answer.status) for e in broken}))
        busy = {e.answer.status for e in broken} & set(BUSY)
        why = "the target is busy, limits us or cannot use its database; its log says which"
        seen.require(not busy, f"every replay answers {statuses}: {why}")
        raise AssertionError(f"every replay answers {statuses} ({len(broken)} of {len(broken)} calls); allowed: 200")
    answer = seen.expect(*scenario.of("signed"), 200)
    allowed = {"started", "completed"}
    assert answer.json().get("status") in allowed, f"status {answer.json().get('status')!r}; allowed: {sorted(allowed)}"


@check("drill/proof/admin-token-accepted", covers=("B01",))
def test_admin_token(scenario: ShortDrill, seen: Observer) -> None:
    """The admin token is accepted with 200, and a token that differs from it is refused with 401.

    The operators are locked out, or anyone is let in as one.
    """
    seen.expect(*scenario.of("signed"), 200, control=True)
    seen.expect(*scenario.of("bad token"), 401)
    seen.expect(*scenario.of("token"), 200)


@check("drill/proof/fourth-call-refused", covers=("C01", "C02"))
def test_fourth_call(scenario: ShortDrill, seen: Observer) -> None:
    """The first three calls are accepted, the fourth is refused with 429 and a Retry-After (`names.limits`: as many as
    are said).

    Nothing stops a script that replays in a loop, or the operators have fewer calls than promised.
    """
    seen.expect(*scenario.of("signed"), 200, control=True)
    for name in ("token", "dry", *(f"call {number}" for number in range(4, current().limit("calls") + 1))):
        request, answer = scenario.of(name)
        admitted = sum(e.answer.status == 200 and e.request.label[:4] == "call" for e in scenario.exchanges.values())
        assert answer.code != "rate_limited" or scenario.counted <= admitted, (
            f"{request.label} is refused by the limit, which counts {scenario.counted} calls where {admitted} were"
            " admitted: calls come to the service more than once, as where a proxy repeats or mirrors them, or refused"
            " ones count"
        )
        seen.expect(request, answer, 200, busy=answer.code == "rate_limited")
    several = scenario.addresses > 1 and scenario.of("fourth")[1].status == 200
    seen.require(not several, f"our calls come to the target from {scenario.addresses} addresses")
    answer = seen.expect(*scenario.of("fourth"), 429, "rate_limited")
    wait = answer.header("retry-after") or ""
    most = current().limit("window_s")
    if not 1 <= foreign.count(wait) <= most:
        seen.severity = Severity.WARN
        raise AssertionError(f"Retry-After is {wait!r}; allowed: whole seconds 1..{most}")


@check("drill/proof/duplicate-short-circuits", covers=("D01",))
def test_duplicate(scenario: ShortDrill, seen: Observer) -> None:
    """The same request a second time, by another credential, is answered as a duplicate of the first.

    Every retry replays the events again.
    """
    first = seen.expect(*scenario.of("signed"), 200, control=True).json()
    again = seen.expect(*scenario.of("token"), 200).json()
    assert again.get("duplicate") is True, f"duplicate is {again.get('duplicate')!r}; due: true"
    assert again.get("replay_run_id") == first.get("replay_run_id"), "the repeated call started another run"


@check("drill/proof/oversized-batch-refused", covers=("E02",))
def test_oversized_batch(scenario: ShortDrill, seen: Observer) -> None:
    """A batch of 51 is refused with 400 (`names.limits`: one more than is said).

    One call floods the agents.
    """
    _past_the_door(seen, scenario)
    answer = seen.expect(*scenario.of("oversized"), 400)
    assert answer.code == "batch_too_large", f"code {answer.code!r}; due: batch_too_large"


@check("drill/proof/dry-run-changes-nothing", covers=("F01", "F02"))
def test_dry_run(scenario: ShortDrill, seen: Observer) -> None:
    """A dry run says that it was dry, starts no run, and (where that can be seen) writes nothing to the outbox.

    A preview changes data.
    """
    seen.expect(*scenario.of("signed"), 200, control=True)
    answer = seen.expect(*scenario.of("dry"), 200).json()
    for name, due in (("status", "dry_run"), ("dry_run", True), ("replay_run_id", None)):
        assert answer.get(name, "absent") == due, f"{name} is {answer.get(name, 'absent')!r}; due: {due!r}"
    if scenario.outbox_rows:
        before, after = scenario.outbox_rows
        assert after <= before, f"a dry run wrote {after - before} outbox rows"
