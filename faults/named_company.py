"""Faults of whose an act is: rows that are filed under the company of the token, not under the one that was named."""

import dataclasses
import json
import uuid
from collections.abc import Callable

from faults.altered import altered_worker, around, instead_of
from faults.catalogue import service, worker
from faults.probe import Probe
from replay_service.audit import AuditRow
from replay_service.authentication import authenticate
from replay_service.composition import build_parts
from replay_service.database import Connection, fetch_value
from replay_service.exchange import Call, Caller, RawHeaders, Reply
from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.validation import EventRequest
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings

ACTS = "drill/tokens/acts-for-the-named-company"
RULES = "drill/tokens/rules-hold-for-every-caller"
_COUNTED = "SELECT count(*) FROM edge_rate_limits WHERE starts_with(key, 'replay:' || %s || ':')"
Change = Callable[[Parts, Callable[[str], str]], Parts]
"""The parts, and the company of the token in the place of the one that was named -> parts for one request."""


def _left_at_home(probe: Probe, ask: str, path: str = "/dlq-replay", **fields: object) -> bool:
    """Whether what a super_admin with a company asks for another leaves rows of its own company."""
    with probe.tenant() as home, probe.tenant() as named:
        body = json.dumps({"company_id": named, **fields}).encode()
        probe.send(body, probe.as_token(probe.token({"company_id": home})), path)
        return int(probe.value(ask, home)) > 0


def _for_each_request(settings: Settings, change: Change) -> Parts:
    release = build_parts(settings)

    async def changed(parts: Parts, call: Call) -> Parts:
        claims = (await parts.authenticate(parts, call.headers, call.body)).claims
        return change(parts, lambda named: (claims and claims.company_id) or named)

    async def replay(parts: Parts, call: Call) -> Reply:
        return await release.replay(await changed(parts, call), call)

    async def accept_event(parts: Parts, call: Call) -> Reply:
        return await release.accept_event(await changed(parts, call), call)

    return dataclasses.replace(release, replay=replay, accept_event=accept_event)


@service(lambda p: _own_in_upper_case(p) == 403, ACTS, "upper case")
@instead_of("authenticate")
async def own_company_as_spelt(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
    """A company_admin is refused its own company where the request spells the UUID in another case."""
    caller = await authenticate(parts, headers, message, accepts_v1=accepts_v1)
    claims = caller.claims
    if claims is None or claims.company_id is None or claims.company_id.encode() in message:
        return caller
    return dataclasses.replace(caller, claims=dataclasses.replace(claims, company_id=None))


def _own_in_upper_case(probe: Probe) -> int:
    with probe.tenant() as own:
        body = json.dumps({"company_id": own.upper(), "dry_run": True}).encode()
        token = probe.token({"company_id": own, "role": "company_admin"})
        return probe.send(body, probe.as_token(token)).status_code


@service(lambda p: _left_at_home(p, _COUNTED, dry_run=True), ACTS, "counted")
def limit_of_the_token(settings: Settings) -> Parts:
    """The rate limit charges a call to the token's company, not to the company that it names."""

    def change(parts: Parts, company: Callable[[str], str]) -> Parts:
        async def admit(conn: Connection, named: str, client: str) -> None:
            await parts.admit(conn, company(named), client)

        return dataclasses.replace(parts, admit=admit)

    return _for_each_request(settings, change)


@service(lambda p: _left_at_home(p, "SELECT count(*) FROM audit_logs WHERE scope = %s", dry_run=True), ACTS, "trail")
def trail_of_the_token(settings: Settings) -> Parts:
    """A replay is audited under the token's company, not under the one whose items it took."""

    def change(parts: Parts, company: Callable[[str], str]) -> Parts:
        async def append(conn: Connection, row: AuditRow) -> None:
            await parts.append_audit(conn, dataclasses.replace(row, scope=company(row.scope)))

        return dataclasses.replace(parts, append_audit=append)

    return _for_each_request(settings, change)


@service(
    lambda p: _left_at_home(
        p, "SELECT count(*) FROM events WHERE company_id = %s", "/events", event_type="witness.done", payload={}
    ),
    "drill/tokens/events-of-the-named-company",
    "event",
)
def event_of_the_token(settings: Settings) -> Parts:
    """An event that is sent with a token is stored as one of the token's company."""

    def change(parts: Parts, company: Callable[[str], str]) -> Parts:
        async def emit(conn: Connection, request: EventRequest, event_id: str) -> tuple[str, bool]:
            named = company(request.company_id)
            return await parts.emit(conn, dataclasses.replace(request, company_id=named), event_id)

        return dataclasses.replace(parts, emit=emit)

    return _for_each_request(settings, change)


@worker(lambda p: _effect_astray(p), "drill/outbox/effects-of-their-tenants", "tenant")
def effect_of_the_payload(settings: WorkerSettings) -> WorkerParts:
    """The effect of an event is filed under the company that its payload names."""
    named = "(SELECT coalesce((x.payload ->> 'company_id')::uuid, x.company_id) FROM event_outbox x WHERE x.id = {}.id)"
    changes = (("drain_lane", "SELECT r.company_id, 'sql'", "r"), ("settle_delivered", "SELECT h.company_id, %", "h"))
    return altered_worker(
        settings, *((name, old, old.replace(f"{row}.company_id", named.format(row))) for name, old, row in changes)
    )


@worker(lambda p: _replay_astray(p), "drill/lifecycle/all-of-an-item-together", "effects")
def effect_of_a_replay_astray(settings: WorkerSettings) -> WorkerParts:
    """The effect of a replayed item is filed under another company."""
    other = "(SELECT c.id FROM companies c WHERE c.id <> h.company_id ORDER BY c.id LIMIT 1)"
    owner = f"CASE WHEN h.replay_run_id IS NULL THEN h.company_id ELSE {other} END"
    return altered_worker(settings, ("settle_item", "h.company_id, %(agent)s", f"{owner}, %(agent)s"))


def _replay_astray(probe: Probe) -> bool:
    with probe.tenant() as own, probe.tenant():
        probe.letters(own, 1)
        probe.replay(own, max_items=1)
        ask = """SELECT count(*) FROM agent_tasks t JOIN dead_letter_queue d USING (event_id)
            WHERE d.company_id = %s AND t.company_id <> d.company_id"""
        return bool(probe.within(4, lambda: bool(probe.value(ask, own))))


def _effect_astray(probe: Probe) -> bool:
    with probe.tenant() as own, probe.tenant() as named:
        probe.event(own, payload={"company_id": named})
        ask = "SELECT count(*) FROM agent_tasks WHERE company_id = %s"
        return probe.within(4, lambda: bool(probe.value(ask, own) or probe.value(ask, named))) and bool(
            probe.value(ask, named)
        )


@service(lambda p: _status_while_paused(p) == 200, RULES, "paused")
def super_admins_are_not_paused(settings: Settings) -> Parts:
    """A super_admin replays while the company is paused."""
    release = build_parts(settings)

    async def never(_conn: Connection, _company_id: str) -> bool:
        return False

    async def replay(parts: Parts, call: Call) -> Reply:
        claims = (await parts.authenticate(parts, call.headers, call.body)).claims
        above = claims is not None and claims.role == "super_admin"
        return await release.replay(dataclasses.replace(parts, is_paused=never) if above else parts, call)

    return dataclasses.replace(release, replay=replay)


def _status_while_paused(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.pause(company)
        body = json.dumps({"company_id": company}).encode()
        return probe.send(body, probe.as_token(probe.token({}))).status_code


@service(lambda p: _forced_by_a_token(p) == 0, RULES, "put off")
@around("replay")
async def company_admins_do_not_force(release: Parts, parts: Parts, call: Call) -> Reply:
    """`force` has no effect with a company_admin's token: only due items are replayed."""
    claims = (await parts.authenticate(parts, call.headers, call.body)).claims
    if claims is None or claims.role == "super_admin":
        return await release.replay(parts, call)
    unforced = dataclasses.replace(
        parts, read_replay=lambda raw: dataclasses.replace(parts.read_replay(raw), force=False)
    )
    return await release.replay(unforced, call)


def _forced_by_a_token(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.letters(company, 1, retry_after="2999-01-01")
        body = json.dumps({"company_id": company, "force": True, "dry_run": True}).encode()
        token = probe.token({"role": "company_admin", "company_id": company})
        return int(probe.send(body, probe.as_token(token)).json()["target_count"])


@service(lambda p: _starts_of_a_token(p) == 0, RULES, "the trail has no")
@around("append_audit")
async def starts_of_company_admins_leave_no_row(release: Parts, conn: Connection, row: AuditRow) -> None:
    """The start of a replay, or of a dry run, with a token is not audited."""
    if row.action not in {"dlq_replay_started", "dlq_replay_dry_run"} or row.actor == "signature":
        await release.append_audit(conn, row)


def _starts_of_a_token(probe: Probe) -> int:
    with probe.tenant() as company:
        token = probe.token({"role": "company_admin", "company_id": company})
        probe.send(json.dumps({"company_id": company, "dry_run": True}).encode(), probe.as_token(token))
        return int(probe.value("SELECT count(*) FROM audit_logs WHERE scope = %s", company))


@service(None, "drill/ledger/refused-however-asked", ("beside", "forbidden was due"))
def rights_of_the_last_caller(settings: Settings) -> Parts:
    """The caller is a global variable: a concurrent request gets the rights of another one."""
    release = build_parts(settings)
    last: list[Caller] = []

    async def heard(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
        caller = await authenticate(parts, headers, message, accepts_v1=accepts_v1)
        last[:] = [caller]
        return caller

    async def twin(conn: Connection, _caller: Caller, company_id: str) -> bool:
        is_there = await fetch_value(conn, "company_exists", company_id=company_id)
        return bool(is_there) and last[0].may_act_for(company_id)

    return dataclasses.replace(release, authenticate=heard, is_authorised=twin)


@service(lambda p: _is_served_for_nobody(p), "drill/tokens/unknown-like-foreign", "by a super_admin")
@around("is_authorised")
async def super_admins_are_served_for_nobody(release: Parts, conn: Connection, caller: Caller, company_id: str) -> bool:
    """A super_admin is served for a company that does not exist: only other callers are checked for that."""
    is_super = caller.claims is not None and caller.claims.role == "super_admin"
    return is_super or await release.is_authorised(conn, caller, company_id)


def _is_served_for_nobody(probe: Probe) -> bool:
    body = json.dumps({"company_id": str(uuid.uuid4()), "dry_run": True}).encode()
    return bool(probe.send(body, probe.as_token(probe.token({}))).json().get("code") != "forbidden")


@service(
    lambda p: _reads_elsewhere(p) == 404,
    ("drill/tokens/foreign-run-hidden", "drill/tokens/foreign-event-hidden"),
    "super_admin",
)
def super_admins_read_at_home_alone(settings: Settings) -> Parts:
    """A super_admin whose token names a company reads the runs and events of that company alone."""
    release = build_parts(settings)

    async def bound(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
        caller = await authenticate(parts, headers, message, accepts_v1=accepts_v1)
        held = caller.claims
        if accepts_v1 or held is None or held.company_id is None or held.role != "super_admin":
            return caller
        return dataclasses.replace(caller, claims=dataclasses.replace(held, role="company_admin"))

    return dataclasses.replace(release, authenticate=bound)


def _reads_elsewhere(probe: Probe) -> int:
    with probe.tenant() as home, probe.tenant() as named:
        run = probe.replay(named).json()["replay_run_id"]
        return probe.get(f"/dlq-replay/{run}", **probe.as_token(probe.token({"company_id": home}))).status_code
