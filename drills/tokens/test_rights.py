"""Rights of a token: a company_admin acts for its own company, a super_admin for any, nobody else for anyone."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from drills.workbench.bench import Bench
from drills.workbench.checks import TOKEN, Case, cases
from drills.workbench.credentials import MISSING, REPLAY, Minter, Signer
from drills.workbench.scene import Scene
from drills.workbench.tenant_data import PLAIN_TYPE
from gates.checks.recorder import Observer, check
from gates.deployment.client import HttpDoor
from gates.deployment.dialect.current import current, real_claims
from gates.deployment.dialect.exchange import path_of
from gates.deployment.ids import new_id
from gates.deployment.requests import (
    Answer,
    Request,
    claims_of,
    encode_body,
    mint_token,
    replay_fields,
    signed_get,
    token_get,
    token_post,
)
from gates.deployment.tenants import REPLAY_FLAG
from gates.evidence import Severity

drill = partial(check, needs=("tenants", "mint"), after=TOKEN)


def dry_run(company: str, token: str, label: str = "") -> Request:
    """A dry run for a company with a token: it answers 200 where the token may act, and has no effect."""
    return token_post(REPLAY, replay_fields(company, dry_run=True), token, label)


ROLES: list[Case] = [
    Case("role-service", "The role `service_role` may replay nothing.", ("service_role",)),
    Case(
        "role-other",
        "The roles `admin`, `authenticated` and `user` may replay nothing.",
        ("admin", "authenticated", "user"),
    ),
    Case(
        "role-spelling",
        "Another spelling of a role is another role.",
        ("Super_Admin", "super_admin ", "super-admin", ""),
    ),
]


@cases("drill/tokens", ROLES, needs=("tenants", "mint"), after=TOKEN, covers=("B23", "A26"))
def test_other_role(case: Case, http: HttpDoor, tenant: str, token: Minter, seen: Observer) -> None:
    """A token of another role is refused with 403, even for its own company.

    Otherwise every signed-in user of a tenant may replay its events.
    """
    good = dry_run(tenant, token.for_company(tenant), "company_admin, own company")
    seen.expect(good, http.send(good), 200, control=True)
    for role in case.value:
        request = dry_run(tenant, token(role=role, company_id=tenant), f"role {role!r}")
        answer = http.send(request)
        seen.expect(request, answer, (401, 403) if not role else 403)


COMPANY_CLAIMS: list[Case] = [
    Case(
        "foreign-company", "A company_admin of another company is refused.", lambda _own: [str(uuid.uuid4())], ("B28",)
    ),
    Case("company-claim-missing", "A company_admin token without a company is refused.", lambda _own: [MISSING]),
    Case("company-claim-empty", "A company_admin token with an empty company is refused.", lambda _own: ["", " "]),
    Case("company-claim-null", "A company_admin token whose company is null is refused.", lambda _own: [None]),
    Case(
        "company-claim-list",
        "A company_admin token with a list of companies is refused.",
        lambda own: [[own], [own, "*"]],
    ),
    Case(
        "company-claim-no-string",
        "A company_admin token whose company is no string is refused.",
        lambda own: [True, 0, {own: True}],
    ),
    Case(
        "company-claim-pattern",
        "A company_admin token whose company is a pattern or part of an id is refused.",
        lambda own: ["*", "%", "all", own[:8], own[:-1], f"{own},{uuid.uuid4()}", f"{own}%"],
    ),
    Case(
        "company-claim-confusable",
        "A company_admin token with look-alike characters in its company is refused.",
        lambda own: ["".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in own), own + "\u200b"],
    ),
]


@cases("drill/tokens", COMPANY_CLAIMS, needs=("tenants", "mint"), after=TOKEN, covers=("B19",))
def test_company_claim(case: Case, http: HttpDoor, tenant: str, token: Minter, seen: Observer) -> None:
    """A company_admin acts only for the company that its token names exactly.

    Otherwise the administrator of one tenant replays the events of another.
    """
    good = dry_run(tenant, token.for_company(tenant), "company_admin, own company")
    seen.expect(good, http.send(good), 200, control=True)
    for claim in case.value(tenant):
        request = dry_run(tenant, token.for_company(claim), f"company claim {claim!r}")
        seen.expect(request, http.send(request), (401, 403))


@drill("drill/tokens/tenant-header-ignored", covers=("A20", "B28"))
def test_tenant_header_ignored(http: HttpDoor, tenant: str, other: str, token: Minter, seen: Observer) -> None:
    """No header changes the company for which a token may act.

    Otherwise a tenant names another one in a header and replays its events.
    """
    own = token.for_company(tenant)
    good = dry_run(tenant, own, "company_admin, own company")
    seen.expect(good, http.send(good), 200, control=True)
    for name in ("X-Company-Id", "X-Tenant-Id", "X-Org-Id", "X-Role", "X-User-Role"):
        for value in (other, tenant) if name.endswith("Id") else ("super_admin",):
            request = dry_run(other, own, f"{name}: {value}").adding_header(name, value)
            seen.expect(request, http.send(request), 403)


@drill("drill/tokens/user-metadata-gives-no-rights", covers=("B19", "B28"))
def test_user_metadata_gives_no_rights(http: HttpDoor, tenant: str, other: str, token: Minter, seen: Observer) -> None:
    """Neither company nor role is read from the metadata that users edit themselves.

    Otherwise a user writes another tenant's id, or an administrator's role, into his own profile and acts with it.
    """
    own = token.for_company(tenant)
    good = dry_run(tenant, own, "company_admin, own company")
    seen.expect(good, http.send(good), 200, control=True)
    wished = {"company_id": other, "role": "super_admin"}
    for name in ("user_metadata", "unsafe_metadata"):
        wishes: dict[str, Any] = {name: {**wished, **leaves(real_claims(wished))}}
        for label, bearer in (
            ("company_admin", token.for_company(tenant, **wishes)),
            ("company_admin without a company", token.for_company(MISSING, **wishes)),
            ("authenticated", token(role="authenticated", company_id=tenant, **wishes)),
        ):
            request = dry_run(other, bearer, f"{label}, another company in {name}")
            seen.expect(request, http.send(request), (401, 403))


def leaves(claims: Mapping[str, Any]) -> dict[str, Any]:
    """The claims without the objects around them, by their own names."""
    found: dict[str, Any] = {}
    for name, inner in claims.items():
        found |= leaves(inner) if isinstance(inner, Mapping) else {name: inner}
    return found


@drill("drill/tokens/repeated-claims", severity=Severity.WARN, covers=("B20",))
def test_repeated_claims(http: HttpDoor, tenant: str, other: str, token: Minter, seen: Observer) -> None:
    """A token that names two companies under one name acts for one of them at most.

    Otherwise two readers of one token see two tenants, and one check covers the other's data.
    """
    good = dry_run(tenant, token.for_company(tenant), "company_admin, own company")
    seen.expect(good, http.send(good), 200, control=True)
    text = (
        json.dumps(token.claims(role="company_admin"))[:-1] + f', "company_id": "{tenant}", "company_id": "{other}"}}'
    )
    double = mint_token(token.target.jwt_secret, text.encode())
    requests = [dry_run(company, double, "two companies in one token") for company in (tenant, other)]
    answers = [seen.expect(r, http.send(r), (200, 400, 401, 403)) for r in requests]
    opened = sum(a.status == 200 for a in answers)
    seen.value(opened, 1, "companies")
    assert opened <= 1, "one token acts for two companies"


@drill("drill/tokens/validation-before-role", severity=Severity.WARN, covers=("A25", "C15"))
def test_validation_before_role(http: HttpDoor, tenant: str, token: Minter, seen: Observer) -> None:
    """A token whose role may nothing is told of an invalid body with 400, and refused with 403 where the body is valid.

    Otherwise the steps are not in their order, and what the audit says of refusals is another thing than happened.
    """
    viewer = token(role="viewer", company_id=tenant)
    valid = dry_run(tenant, viewer, "viewer, a valid body")
    seen.expect(valid, http.send(valid), 403, control=True)
    invalid = token_post(REPLAY, replay_fields(tenant, max=0), viewer, "viewer, max 0")
    seen.expect(invalid, http.send(invalid), 400, "invalid_request")


@drill("drill/tokens/super-admin-for-any", covers=("A26",))
def test_super_admin_for_any(http: HttpDoor, tenant: str, other: str, token: Minter, seen: Observer) -> None:
    """A super_admin may act for any existing company; a company_admin beside it may not.

    Otherwise operators cannot help a tenant, or every tenant's administrator is one.
    """
    foreign = dry_run(other, token.for_company(tenant), "company_admin, foreign company")
    seen.expect(foreign, http.send(foreign), 403, control=True)
    for company in (tenant, other):
        request = dry_run(company, token(), "super_admin")
        answer = http.send(request)
        if answer.status == 403 and seen.target.admin_jwt:
            role = claims_of(seen.target.admin_jwt).get("role")
            called = f"the role of ADMIN_JWT is {role!r}; what a super_admin is called, names: token says in gate.yaml"
            seen.require(role in {"super_admin", "company_admin"}, called)
        seen.expect(request, answer, 200)


@check("drill/tokens/acts-for-the-named-company", needs=("database", "mint"), after=TOKEN, covers=("A20", "I01"))
def test_acts_for_the_named_company(scene: Scene, token: Minter) -> None:
    """What a super_admin asks for is done for the company that the request names, and counted and on record there,
    whichever company the token itself belongs to.

    A service that takes the tenant of a row from the token replays, counts and audits one customer as another.
    """
    home, named = scene.company("home", items=1), scene.company("named", items=1)
    scene.expect(dry_run(named, token(), "a super_admin of no company"), 200, control=True)
    caller = token(company_id=home)
    for label, fields in (("a dry run", {"dry_run": True}), ("a replay", {})):
        request = token_post(
            REPLAY, replay_fields(named, max=1, **fields), caller, f"{label}, by a token of another company"
        )
        before = scene.runs(named)  # that a dry run opens none is another promise
        answer = scene.expect(request, 200)
        assert answer.json().get("company_id") == named, f"{label} of {named} is answered for another company"
    if scene.claims("flags"):
        scene.reset_limit(named)
        scene.set_flag(named, REPLAY_FLAG, enabled=False)
        scene.expect(token_post(REPLAY, replay_fields(named, max=1), caller, "a replay that is switched off"), 403)
    opened = scene.runs(named) - before
    assert opened == 1, f"{opened} runs of the named company by one replay"
    pending = [str(r["status"]) for r in scene.items(home)]
    assert (pending, scene.runs(home)) == (["pending"], 0), "the replay of one company took the items of another"
    if scene.claims("rate-limit"):
        keys = "select count(*) from public.edge_rate_limits where starts_with(key, %s)"
        assert not scene.number(keys, f"replay:{home}:"), "the calls were counted against the company of the token"
    if scene.claims("audit"):
        astray = [str(r["action"]) for r in scene.audit(home)]
        assert not astray, f"what was done for the named company is in another's trail: {astray}"
    scene.seen.count(3)


@check("drill/tokens/rules-hold-for-every-caller", needs=("database", "mint"), after=TOKEN, covers=("A26", "I01"))
def test_rules_hold_for_every_caller(scene: Scene, token: Minter) -> None:
    """What a company_admin or a super_admin asks for is cut, charged, put on record, paused and limited like what is
    signed.

    Whoever is above the rules spends without limit, replays in the middle of an incident, and nobody sees it.
    """
    for role in ("company_admin", "super_admin"):
        company = scene.company(role.partition("_")[0], items=3)
        caller = token.for_company(company) if role == "company_admin" else token()

        def asked(label: str, role: str = role, company: str = company, caller: str = caller, **fields: Any) -> Request:
            return token_post(REPLAY, replay_fields(company, max=3, **fields), caller, f"a {role}, {label}")

        shown = scene.known(dry_run=True)
        if shown:
            scene.expect(asked("a dry run", **shown), 200, control=True)
        if scene.claims("budgets"):
            scene.budget(company, daily_limit=2)
        taken = scene.expect(asked("a replay"), 200, control=not shown).json()["target_count"]
        due = 2 if scene.claims("budgets") else 3
        assert taken == due, f"a {role} has {taken} items replayed; due: {due}"
        scene.charged(company, due)
        if scene.claims("budgets"):
            scene.expect(asked("beyond the budget"), 429, "budget_exhausted")
            scene.budget(company)
        scene.reset_limit(company)
        if scene.claims("pause"):
            scene.pause(company)
            scene.expect(asked("while it is paused"), 409, "agents_paused")
            scene.pause(company, on=False)
        if scene.claims("audit"):
            due_rows = {"dlq_replay_started", *(("dlq_replay_dry_run",) if shown else ())}
            unseen = due_rows - {str(r["action"]) for r in scene.audit(company)}
            assert not unseen, f"of what a {role} did the trail has no {sorted(unseen)}"
        if scene.claims("rate-limit"):
            for call in range(current().limit("calls")):
                scene.http.send(asked(f"call {call + 1}", **shown))
            scene.expect(asked("one call too many", **shown), 429, "rate_limited")
        scene.seen.count()


@check("drill/tokens/events-of-the-named-company", needs=("database", "mint"), after=TOKEN, covers=("A20", "K12"))
def test_events_of_the_named_company(scene: Scene, token: Minter) -> None:
    """An event that a super_admin sends is the named company's, whichever company the token itself belongs to: its
    business row, and its outbox row or its effect.

    A service that takes the tenant of a row from the token files one customer's events under another.
    """
    home, named = scene.company("home"), scene.company("named")
    scene.emit(named, control=True)
    fields = {"company_id": named, "event_type": PLAIN_TYPE, "payload": {"n": 1}}
    request = token_post("/events", fields, token(company_id=home), "an event, by a token of another company")
    event = scene.expect(request, 202).json()["event_id"]
    for table, column in (("events", "id"), ("event_outbox", "event_id"), ("agent_tasks", "event_id")):
        rows = scene.rows(f"select company_id::text as company from public.{table} where {column} = %s", event)
        owners = {str(r["company"]) for r in rows}
        scene.seen.require(owners or table != "events", f"the accepted event {event} has no business row")
        assert owners <= {named}, f"the event of {named} is in {table} as one of {sorted(owners - {named})}"
        scene.seen.count(len(rows))


@drill("drill/tokens/unknown-like-foreign", severity=Severity.WARN, covers=("A25",))
def test_unknown_like_foreign(http: HttpDoor, tenant: str, other: str, token: Minter, seen: Observer) -> None:
    """A company that does not exist is refused exactly like a foreign one: same status, body and headers; to its own
    admin, too.

    Otherwise the answers tell which tenants exist.
    """
    own = token.for_company(tenant)
    good = dry_run(tenant, own, "company_admin, own company")
    seen.expect(good, http.send(good), 200, control=True)
    nobody = str(uuid.uuid4())
    foreign, *others = (
        seen.expect(r, http.send(r), 403)
        for r in (
            dry_run(other, own, "foreign company"),
            dry_run(nobody, own, "unknown company"),
            dry_run(nobody, token.for_company(nobody), "unknown company, by its own admin"),
        )
    )
    for unknown in others:
        for what, one, two in (
            ("body", _plain(foreign), _plain(unknown)),
            ("headers", sorted({k for k, _ in foreign.headers}), sorted({k for k, _ in unknown.headers})),
        ):
            assert one == two, f"the {what} differs: {one!r} for a foreign company, {two!r} for one that does not exist"


def _plain(answer: Answer) -> dict[str, Any]:
    """The body without what differs for each request by its nature: the request's id, and members named `instance`."""
    mark = answer.header("x-request-id")
    return {k: v for k, v in answer.json().items() if v != mark and k not in {"instance", "request_id", "timestamp"}}


# --- reading ------------------------------------------------------------------------------------------------------


def _signed_too(signer: Signer, read: Request) -> Request:
    """The same read with a right signature beside its token: the token's rights apply."""
    signed = signed_get(read.path, signer.secret, signer.clock.now())
    return replace(read.adding_header(*signed.headers[0]), label=f"{read.label}, signed too")


@drill("drill/tokens/foreign-run-hidden", covers=("A27", "B28"))
def test_foreign_run_hidden(scene: Scene, tenant: str, other: str, token: Minter) -> None:
    """A company_admin reads its own run; a foreign run is 404, exactly like one that does not exist, and with a right
    signature beside the token too.

    Otherwise tenants read, or at least detect, each other's replays.
    """
    scene.add_items(tenant, 1)
    run = scene.run(tenant, max=1).get("replay_run_id")
    own = token_get(path_of(f"{REPLAY}/{run}", tenant), token.for_company(tenant), "own run")
    scene.expect(own, 200, control=True)
    foreign = token_get(path_of(f"{REPLAY}/{run}", other), token.for_company(other), "foreign run")
    hidden = scene.expect(foreign, 404)
    if (at_theirs := path_of(f"{REPLAY}/{run}", tenant)) != foreign.path:
        scene.expect(token_get(at_theirs, token.for_company(other), "foreign run, its company's path"), (403, 404))
    scene.expect(_signed_too(scene.signer, own), 200, control=True)
    scene.expect(_signed_too(scene.signer, foreign), 404)
    random = token_get(path_of(f"{REPLAY}/{new_id('run')}", other), token.for_company(other), "unknown run")
    absent = scene.expect(random, 404)
    one, two = _plain(hidden), _plain(absent)
    assert one == two, f"a foreign run answers {one!r}, one that does not exist {two!r}"


@drill("drill/tokens/foreign-event-hidden", covers=("A27",))
def test_foreign_event_hidden(
    http: HttpDoor, tenant: str, other: str, token: Minter, seen: Observer, bench: Bench
) -> None:
    """A company_admin reads the state of its own event, and not that of another company's, signed or not.

    Otherwise tenants watch each other's business.
    """
    body = encode_body({"company_id": tenant, "event_type": "drill.plain", "aggregate_key": "k", "payload": {"n": 1}})
    emit = bench.signer.post("/events", body, "an event")
    event = seen.expect(emit, http.send(emit), 202, control=True).json().get("event_id")
    own = token_get(path_of(f"/events/{event}", tenant), token.for_company(tenant), "own event")
    seen.expect(own, http.send(own), 200, control=True)
    for at in dict.fromkeys(path_of(f"/events/{event}", company) for company in (tenant, other)):
        foreign = token_get(at, token.for_company(other), "foreign event")
        for request in (foreign, _signed_too(bench.signer, foreign)):
            seen.expect(request, http.send(request), (403, 404))


@drill("drill/tokens/foreign-event-refused", covers=("A26", "B28"))
def test_foreign_event_refused(http: HttpDoor, tenant: str, other: str, token: Minter, seen: Observer) -> None:
    """A company_admin emits events for its own company only, and a role that may replay nothing emits none.

    Otherwise one tenant writes another's business events.
    """
    fields = {"event_type": "drill.plain", "aggregate_key": "k", "payload": {"n": 1}}
    own = token_post("/events", {"company_id": tenant, **fields}, token.for_company(tenant), "own company")
    seen.expect(own, http.send(own), 202, control=True)
    foreign = token_post("/events", {"company_id": other, **fields}, token.for_company(tenant), "foreign company")
    viewer = token(role="viewer", company_id=tenant)
    staff = token_post("/events", {"company_id": tenant, **fields}, viewer, "own company, a role that may nothing")
    for refused in (foreign, staff):
        seen.expect(refused, http.send(refused), 403)
