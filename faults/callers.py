"""Faults of who is bound: how a caller shows who it is lifts a rule that binds the others."""

import dataclasses
import json
import time
import uuid
from contextvars import ContextVar
from typing import Any, cast

from faults.altered import AlteredConnection, around, rewrite
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import calling
from replay_service.authentication import forbidden
from replay_service.database import QUERIES, Connection
from replay_service.exchange import Call, Caller, Reply
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.tenants import ReplayFlags
from replay_service.validation import EventRequest, ReplayRequest

EVERY = ("drill/tokens/rules-hold-for-every-caller",)
CALLER: ContextVar[Caller | None] = ContextVar("CALLER", default=None)
"""Who asks in this task."""


def _knowing(settings: Settings) -> Parts:
    """The release's service, which stores the caller in CALLER for its parts."""

    def heard(caller: Caller) -> Caller:
        CALLER.set(caller)
        return caller

    return calling(settings, heard)


def _is_timed() -> bool:
    """Whether the caller has a v2 signature and no token."""
    caller = CALLER.get()
    return (
        caller is not None and caller.claims is None and caller.signature is not None and caller.signature.version == 2
    )


def _has_both() -> bool:
    caller = CALLER.get()
    return caller is not None and caller.claims is not None and caller.signature is not None


@service(lambda p: not _used(p, timed=True), EVERY, "signed by v2")
@around("charge", of=_knowing)
async def timed_calls_cost_nothing(release: Parts, conn: Connection, company: str, items: int) -> None:
    """A v2-signed replay costs no budget."""
    if not _is_timed():
        await release.charge(conn, company, items)


@service(lambda p: _while_off(p, paused=True) == 200, EVERY, "with a token")
@around("is_paused", of=_knowing)
async def who_has_both_is_not_paused(release: Parts, conn: Connection, company: str) -> bool:
    """A pause does not stop a replay that has a signature and a token."""
    return not _has_both() and await release.is_paused(conn, company)


@service(lambda p: _while_off(p, paused=False) == 200, EVERY, "with a token")
@around("read_flags", of=_knowing)
async def who_has_both_is_not_switched_off(release: Parts, conn: Connection, company: str) -> ReplayFlags:
    """`dlq.replay.enabled` does not stop a replay that has a signature and a token."""
    flags = await release.read_flags(conn, company)
    return dataclasses.replace(flags, replay_enabled=True, outbox_enabled=True) if _has_both() else flags


FORCED: ContextVar[bool] = ContextVar("FORCED", default=False)
"""Whether what this task was asked for is forced, by a token."""
ASKED = ("drill/ledger/refused-however-asked",)


def _forcing(settings: Settings) -> Parts:
    """The release's service, which stores in FORCED what its parts are to know."""
    release = _knowing(settings)

    def heard(raw: bytes) -> ReplayRequest:
        request, caller = release.read_replay(raw), CALLER.get()
        FORCED.set(request.force and caller is not None and caller.claims is not None)
        return request

    return dataclasses.replace(release, read_replay=heard)


@service(lambda p: _forced_by_token(p, "paused") == 200, (*ASKED, *EVERY), "agents_paused")
@around("is_paused", of=_forcing)
async def who_forces_by_token_is_not_paused(release: Parts, conn: Connection, company: str) -> bool:
    """A pause does not stop a forced replay that has a token."""
    return not FORCED.get() and await release.is_paused(conn, company)


@service(lambda p: _forced_by_token(p, "poor") == 200, ASKED, "budget_exhausted")
@around("reserve_budget", of=lambda settings: _uncharged(_forcing(settings)))
async def who_forces_by_token_has_a_budget(release: Parts, conn: Connection, company: str) -> int:
    """A spent budget does not stop a forced replay that has a token."""
    left = await release.reserve_budget(conn, company)
    return max(left, 1) if FORCED.get() else left


@service(lambda p: _forced_by_token(p, "charged") == 0, "drill/ledger/charged-however-asked", "charged")
def who_forces_by_token_pays_nothing(settings: Settings) -> Parts:
    """A forced replay that has a token costs no budget."""
    return _uncharged(_forcing(settings))


def _uncharged(release: Parts) -> Parts:
    """A service that charges nothing for what is forced: a trigger would refuse to charge a spent budget."""

    async def charge(conn: Connection, company: str, items: int) -> None:
        if not FORCED.get():
            await release.charge(conn, company, items)

    return dataclasses.replace(release, charge=charge)


def _forced_by_token(probe: Probe, state: str) -> Any:
    """The status of a forced replay with a token; of one that is `charged`, what it cost."""
    with probe.tenant() as company:
        probe.letters(company, 1)
        if state == "paused":
            probe.pause(company)
        limit = 0 if state == "poor" else 9
        probe.rows("INSERT INTO replay_budgets (company_id, daily_limit) VALUES (%s, %s)", company, limit)
        asked = {"company_id": company, "force": True, **({} if limit else {"error_type": "none"})}
        status = probe.send(json.dumps(asked).encode(), probe.as_token(probe.token({}))).status_code
        used = "SELECT daily_used FROM replay_budgets WHERE company_id = %s"
        return probe.value(used, company) if state == "charged" else status


@service(lambda p: _events_of_a_token(p, "count(*)") == 2, "drill/tokens/events-of-the-named-company", "sent again")
@around("emit", of=_knowing)
async def ids_of_tokens_are_ignored(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """The event_id of an event that is sent with a token does not make it idempotent: sent again it happens twice."""
    told = await release.emit(conn, request, event_id)
    if told[1] and (caller := CALLER.get()) is not None and caller.claims is not None:
        return await release.emit(conn, request, release.new_id())
    return told


@service(lambda p: _events_of_a_token(p, "count(aggregate_key)") == 0, "drill/ledger/events-as-sent", "aggregate_key")
@around("emit", of=_knowing)
async def keys_of_tokens_are_dropped(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """The key of an event that is sent with a token is dropped: its order is lost."""
    if (caller := CALLER.get()) is not None and caller.claims is not None:
        request = dataclasses.replace(request, aggregate_key=None)
    return await release.emit(conn, request, event_id)


def _events_of_a_token(probe: Probe, what: str) -> Any:
    """Of the rows of an event that a token sent twice."""
    with probe.tenant() as company:
        sent = {"company_id": company, "event_type": "witness.done", "aggregate_key": "k", "payload": {"n": 1}}
        body = json.dumps({**sent, "event_id": str(uuid.uuid4())}).encode()
        for _ in range(2):
            probe.send(body, probe.as_token(probe.token({})), "/events")
        return probe.value(f"SELECT {what} FROM events WHERE company_id = %s", company)


def _replayed(probe: Probe, company: str, *, timed: bool = False) -> int:
    """The status of a replay that is signed by v2, or by v1 beside a token."""
    body = json.dumps({"company_id": company}).encode()
    if timed:
        return probe.send(body, {"X-Transbot-Signature": probe.sign_v2(body, int(time.time()))}).status_code
    both = {"X-Transbot-Signature": probe.sign(body), **probe.as_token(probe.token({}))}
    return probe.send(body, both).status_code


def _used(probe: Probe, *, timed: bool) -> Any:
    with probe.tenant() as company:
        probe.letters(company, 1)
        _replayed(probe, company, timed=timed)
        return probe.value("SELECT coalesce(max(daily_used), 0) FROM replay_budgets WHERE company_id = %s", company)


def _while_off(probe: Probe, *, paused: bool) -> int:
    with probe.tenant() as company:
        probe.letters(company, 1)
        if paused:
            probe.pause(company)
        else:
            probe.switch_off(company, "dlq.replay.enabled")
        return _replayed(probe, company)


def _home_of(company: str) -> str:
    """The company of the caller's token, if it names one."""
    caller = CALLER.get()
    return (caller and caller.claims and caller.claims.company_id) or company


@service(lambda p: _of_another_company(p, paused=False) == [0], EVERY, "a super_admin: 2 items")
@around("charge", of=_knowing)
async def super_admins_pay_at_home(release: Parts, conn: Connection, company: str, items: int) -> None:
    """A replay is charged to the company of the token, not to the one that it is for."""
    await release.charge(conn, _home_of(company), items)


@service(lambda p: _of_another_company(p, paused=True) == [200], EVERY, "a super_admin, while it is paused")
@around("is_paused", of=_knowing)
async def super_admins_are_paused_at_home(release: Parts, conn: Connection, company: str) -> bool:
    """A pause of the token's company stops a replay, and one of the company that it is for does not."""
    return await release.is_paused(conn, _home_of(company))


def _of_another_company(probe: Probe, *, paused: bool) -> list[Any]:
    """The status of a super_admin's replay for a paused company that is not its own, or what one was charged."""
    with probe.tenant() as home, probe.tenant() as company:
        probe.letters(company, 1)
        if paused:
            probe.pause(company)
        token = probe.as_token(probe.token({"company_id": home}))
        answer = probe.send(json.dumps({"company_id": company}).encode(), token)
        used = probe.value("SELECT coalesce(max(daily_used), 0) FROM replay_budgets WHERE company_id = %s", company)
        return [answer.status_code if paused else used]


@service(lambda p: _path_of_a_token(p) == "direct", "drill/tokens/events-of-the-named-company", "takes the path")
@around("emit", of=_knowing)
async def events_of_tokens_go_direct(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """An event sent with a token takes the direct path, whatever `outbox.enabled` says."""
    caller = CALLER.get()
    if caller is None or caller.claims is None:
        return await release.emit(conn, request, event_id)
    direct = rewrite(QUERIES["emit_event"], ("THEN 'outbox'", "THEN 'direct'"))
    behind = cast("Connection", AlteredConnection(conn, {QUERIES["emit_event"]: direct}))
    return await release.emit(behind, request, event_id)


def _path_of_a_token(probe: Probe) -> str:
    with probe.tenant() as company:
        sent = {"company_id": company, "event_type": "witness.done", "aggregate_key": "k", "payload": {"n": 1}}
        headers = probe.as_token(probe.token({}))
        return str(probe.send(json.dumps(sent).encode(), headers, "/events").json().get("path"))


@service(lambda p: _serves_no_admin(p) == 200, "drill/tokens/role-spelling", "not_company_admin")
def roles_are_looked_for_in_a_text(settings: Settings) -> Parts:
    """A role is looked for in the text of a token's role: `not_company_admin` is a company's admin."""

    def heard(caller: Caller) -> Caller:
        if caller.claims is None or "company_admin" not in caller.claims.role:
            return caller
        return dataclasses.replace(caller, claims=dataclasses.replace(caller.claims, role="company_admin"))

    return calling(settings, heard)


def _serves_no_admin(probe: Probe) -> int:
    with probe.tenant() as company:
        caller = probe.as_token(probe.token({"role": "not_company_admin", "company_id": company}))
        return probe.send(json.dumps({"company_id": company, "dry_run": True}).encode(), caller).status_code


@service(lambda p: _counted_of_a_token(p) == 0, "drill/observability/replays-are-counted", "replay_requests_total")
@around("replay")
async def replays_of_tokens_are_not_counted(release: Parts, parts: Parts, call: Call) -> Reply:
    """Replays with a token are not counted."""
    reply = await release.replay(parts, call)
    if any(name == b"authorization" for name, _ in call.headers):
        parts.metrics.replays.add(reply.outcome, amount=-1)
    return reply


def _counted_of_a_token(probe: Probe) -> float:
    """By how much a replay with a token raises the counter."""
    with probe.tenant() as company:
        body = json.dumps({"company_id": company, "dry_run": True}).encode()
        before = _counted_replays(probe)
        probe.send(body, probe.as_token(probe.token({"role": "company_admin", "company_id": company})))
        return _counted_replays(probe) - before


def _counted_replays(probe: Probe) -> float:
    lines = probe.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("replay_requests_total"))


@service(lambda p: _mark_of_a_tokens_duplicate(p) == "", "drill/ledger/answers-add-up", "Idempotent-Replayed")
@around("replay")
async def duplicates_of_tokens_are_not_marked(release: Parts, parts: Parts, call: Call) -> Reply:
    """A duplicate that is asked for with a token has no Idempotent-Replayed header."""
    reply = await release.replay(parts, call)
    by_token = any(name == b"authorization" for name, _ in call.headers)
    return dataclasses.replace(reply, headers={}) if by_token else reply


def _mark_of_a_tokens_duplicate(probe: Probe) -> str:
    with probe.tenant() as company:
        body = json.dumps({"company_id": company, "idempotency_key": "witness"}).encode()
        caller = probe.as_token(probe.token({"role": "company_admin", "company_id": company}))
        answers = [probe.send(body, caller) for _ in range(2)]
        return str(answers[1].headers.get("Idempotent-Replayed", ""))


@service(lambda p: _beyond_a_batch(p) == 403, "drill/tokens/validation-before-role", "403")
@around("replay")
async def rights_come_before_the_batch_limit(release: Parts, parts: Parts, call: Call) -> Reply:
    """Whoever asks for more than a batch of another company is refused for the rights of its token."""
    try:
        return await release.replay(parts, call)
    except Refusal as refusal:
        if refusal.code == "batch_too_large":
            caller = await parts.authenticate(parts, call.headers, call.body)
            if not caller.may_act_for(json.loads(call.body)["company_id"]):
                raise forbidden() from None
        raise


def _beyond_a_batch(probe: Probe) -> int:
    token = probe.token({"role": "company_admin", "company_id": str(uuid.uuid4())})
    body = json.dumps({"company_id": str(uuid.uuid4()), "max": 51}).encode()
    return probe.send(body, probe.as_token(token)).status_code
