"""Rights of a token: a company_admin acts for its own company, a super_admin for any, nobody else for anyone."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from drills.workbench.bench import Bench
from drills.workbench.checks import TOKEN, Case, cases
from drills.workbench.credentials import MISSING, REPLAY, Minter, Signer
from drills.workbench.scene import Scene
from gates.checks.recorder import Observer, check
from gates.deployment.dialect.current import current, real_claims
from gates.deployment.dialect.exchange import path_of
from gates.deployment.http.client import HttpDoor
from gates.deployment.ids import new_id
from gates.deployment.requests import (
    BUSY,
    SIGNATURE,
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
from gates.evidence import Severity

pytestmark = pytest.mark.beside_load

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
        ("Super_Admin", "super_admin ", "super-admin", "not_company_admin", "company_admin_readonly", ""),
    ),
]


@cases("drill/tokens", ROLES, needs=("tenants", "mint"), after=TOKEN, covers=("B23", "A26"))
def test_other_role(case: Case, http: HttpDoor, tenant: str, token: Minter, seen: Observer) -> None:
    """A token of another role is refused with 403, even for its own company.

    Every signed-in user of a tenant may replay its events.
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

    The administrator of one tenant replays the events of another.
    """
    good = dry_run(tenant, token.for_company(tenant), "company_admin, own company")
    seen.expect(good, http.send(good), 200, control=True)
    for claim in case.value(tenant):
        request = dry_run(tenant, token.for_company(claim), f"company claim {claim!r}")
        seen.expect(request, http.send(request), (401, 403))


@drill("drill/tokens/tenant-header-ignored", covers=("A20", "B28"))
def test_tenant_header_ignored(http: HttpDoor, tenant: str, other: str, token: Minter, seen: Observer) -> None:
    """No header changes the company for which a token may act.

    A tenant names another one in a header and replays its events.
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

    A user writes another tenant's id, or an administrator's role, into his own profile and acts with it.
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

    Two readers of one token see two tenants, and one check covers the other's data.
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
    """A token whose role has no rights gets 400 for an invalid body, of another company's event too, and 403 for a
    valid one. So does a tenant's admin who asks for more than a batch of another company.

    The steps are out of order, and the audit trail shows another refusal than the one given.
    """
    viewer = token(role="viewer", company_id=tenant)
    valid = dry_run(tenant, viewer, "viewer, a valid body")
    seen.expect(valid, http.send(valid), 403, control=True)
    invalid = [token_post(REPLAY, replay_fields(tenant, max=0), viewer, "viewer, max 0")]
    if current().takes_events:
        untyped = {"company_id": str(uuid.uuid4()), "event_type": 7, "aggregate_key": "k", "payload": {}}
        invalid.append(token_post("/events", untyped, viewer, "viewer, an event of type 7"))
    for request in invalid:
        seen.expect(request, http.send(request), 400, "invalid_request")
    beyond = replay_fields(str(uuid.uuid4()), max=current().limit("batch") + 1)
    request = token_post(REPLAY, beyond, token.for_company(tenant), "company_admin, a large batch of another company")
    seen.expect(request, http.send(request), 400, "batch_too_large")


@drill("drill/tokens/super-admin-for-any", covers=("A26",))
def test_super_admin_for_any(http: HttpDoor, tenant: str, other: str, token: Minter, seen: Observer) -> None:
    """A super_admin may act for any existing company, whatever its name; a company_admin beside it may not.

    Operators cannot help a tenant, or every tenant's administrator is one.
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
    request = dry_run(tenant, token(sub="Zoë 北京"), "super_admin of a name beyond ASCII")
    seen.expect(request, http.send(request), 200)


@drill("drill/tokens/unknown-like-foreign", severity=Severity.WARN, covers=("A25",))
def test_unknown_like_foreign(
    http: HttpDoor, tenant: str, other: str, token: Minter, seen: Observer, bench: Bench
) -> None:
    """A company that does not exist is refused exactly like a foreign one: same status, body and headers; to its own
    admin and to a super_admin, too. An event of it is refused.

    The answers tell which tenants exist.
    """
    own = token.for_company(tenant)
    good = dry_run(tenant, own, "company_admin, own company")
    seen.expect(good, http.send(good), 200, control=True)
    nobody = str(uuid.uuid4())
    request = dry_run(other, own, "foreign company")
    foreign = seen.expect(request, http.send(request), 403)
    for request in (
        dry_run(nobody, own, "unknown company"),
        dry_run(nobody, token.for_company(nobody), "unknown company, by its own admin"),
        by_both := dry_run(nobody, token(), "unknown company, by a super_admin"),
        by_both.adding_header(SIGNATURE, bench.signature(bench.signer.secret, by_both.body)).labelled(
            "unknown company, by a super_admin, signed"
        ),
    ):
        unknown = seen.expect(request, http.send(request), 403)
        for what, one, two in (
            ("body", foreign.said(other), unknown.said(nobody)),
            ("headers", foreign.header_names, unknown.header_names),
        ):
            assert one == two, f"{request.label}: the {what} differs, {one!r} for a foreign company and {two!r} for it"
    if current().takes_events:
        fields = {"company_id": nobody, "event_type": "drill.plain", "aggregate_key": "k", "payload": {"n": 1}}
        sent = token_post("/events", fields, token(), "an event of an unknown company, by a super_admin")
        seen.expect(sent, http.send(sent), (403, 404))


# --- reading ------------------------------------------------------------------------------------------------------

AT_ONCE = 4


def _apart(http: HttpDoor, seen: Observer, own: tuple[Request, int], foreign: tuple[Request, tuple[int, ...]]) -> None:
    """The claim: of callers who ask at the same time, each is answered by the rights of its own."""
    asked: list[tuple[Request, int | tuple[int, ...]]] = [own, foreign] * AT_ONCE
    answers = http.burst([request for request, _ in asked])
    told = set()
    for (request, due), answer in zip(asked, answers, strict=True):
        if isinstance(answer, Answer) and answer.status not in BUSY:
            seen.expect(request.labelled(f"{request.label}, beside another caller's"), answer, due)
            told.add(request)
    for request, _ in (own, foreign):
        seen.require(request in told, f"{request.label}, sent {AT_ONCE} times at once: the target was busy each time")


def _signed_too(signer: Signer, read: Request) -> Request:
    """The same read with a right signature beside its token: the token's rights apply."""
    signed = signed_get(read.path, signer.secret, signer.clock.now())
    return replace(read.adding_header(*signed.headers[0]), label=f"{read.label}, signed too")


@drill("drill/tokens/foreign-run-hidden", covers=("A27", "B28"))
def test_foreign_run_hidden(scene: Scene, tenant: str, other: str, token: Minter) -> None:
    """A company_admin reads its own run, and a super_admin any, whichever company its token names; a foreign run is
    404, exactly like one that does not exist, with a right signature beside the token too, and while its own company
    reads it. A role without rights reads none.

    Tenants read, or at least detect, each other's replays.
    """
    scene.add_items(tenant, 1)
    run = scene.run(tenant, max=1).get("replay_run_id")
    request, answer = scene.get_run(str(run), tenant)
    scene.seen.expect(request, answer, 200, control=True)
    scene.expect(dry_run(tenant, token.for_company(tenant), "company_admin, own company"), 200, control=True)
    own = token_get(path_of(f"{REPLAY}/{run}", tenant), token.for_company(tenant), "own run")
    shown = scene.expect(own, 200)
    viewer = token(role="viewer", company_id=tenant)
    scene.expect(token_get(own.path, viewer, "own run, a role without rights"), (403, 404))
    if scene.http.send(dry_run(tenant, token(), "super_admin")).status == 200:
        scene.expect(token_get(own.path, token(company_id=other), "a super_admin's read"), 200)
    foreign = token_get(path_of(f"{REPLAY}/{run}", other), token.for_company(other), "foreign run")
    hidden = scene.expect(foreign, 404)
    nobodys = token_get(own.path, token(role="company_admin", company_id=MISSING), "a run, an admin of no company")
    scene.expect(nobodys, (401, 403, 404))
    if (at_theirs := path_of(f"{REPLAY}/{run}", tenant)) != foreign.path:
        scene.expect(token_get(at_theirs, token.for_company(other), "foreign run, its company's path"), (403, 404))
    scene.expect(_signed_too(scene.signer, own), 200, control=True)
    scene.expect(_signed_too(scene.signer, foreign), 404)
    _apart(scene.http, scene.seen, (own, 200), (foreign, (404,)))
    nobody = new_id("run")
    random = token_get(path_of(f"{REPLAY}/{nobody}", other), token.for_company(other), "unknown run")
    absent = scene.expect(random, 404)
    one, two = hidden.said(str(run)), absent.said(str(nobody))
    assert one == two, f"a foreign run answers {one!r}, one that does not exist {two!r}"
    _is_a_problem(scene.seen, hidden, "run", shown)


@drill("drill/tokens/foreign-event-hidden", covers=("A27",))
def test_foreign_event_hidden(
    http: HttpDoor, tenant: str, other: str, token: Minter, seen: Observer, bench: Bench
) -> None:
    """A company_admin reads the state of its own event, and not that of another company's, signed or not, nor while
    that company reads it; the refusal is a problem document that tells nothing of it. A super_admin reads any, and a
    role without rights none.

    Tenants watch each other's business.
    """
    body = encode_body({"company_id": tenant, "event_type": "drill.plain", "aggregate_key": "k", "payload": {"n": 1}})
    emit = bench.signer.post("/events", body, "an event")
    accepted = seen.expect(emit, http.send(emit), 202, control=True)
    event = accepted.json().get("event_id")
    own = token_get(path_of(f"/events/{event}", tenant), token.for_company(tenant), "own event")
    shown = seen.expect(own, http.send(own), 200, control=True)
    viewers = token_get(own.path, token(role="viewer", company_id=tenant), "own event, a role without rights")
    seen.expect(viewers, http.send(viewers), (403, 404))
    if http.send(dry_run(tenant, token(), "super_admin")).status == 200:
        anybodys = token_get(own.path, token(company_id=other), "a super_admin's read")
        seen.expect(anybodys, http.send(anybodys), 200)
    for at in dict.fromkeys(path_of(f"/events/{event}", company) for company in (tenant, other)):
        foreign = token_get(at, token.for_company(other), "foreign event")
        for request in (foreign, _signed_too(bench.signer, foreign)):
            hidden = seen.expect(request, http.send(request), (403, 404))
            said = hidden.body.decode(errors="replace").lower()
            told = [one for one in (tenant, "drill.plain") if one in said and one not in at]
            assert not told, f"the refusal of a foreign event tells {told}, which is its company's"
        _apart(http, seen, (own, 200), (foreign, (403, 404)))
    _is_a_problem(seen, hidden, "event", accepted, shown)


def _is_a_problem(seen: Observer, hidden: Answer, what: str, *given: Answer) -> None:
    """The claims, smaller ones than that it is hidden: the refusal is a problem document, and the answers that were
    given to its own company have an X-Request-Id.
    """
    if current().claims("http"):
        wrong, seen.severity = hidden.unlike_a_problem(), Severity.WARN
        assert not wrong, f"the refusal of a foreign {what} is no problem document: {wrong}"
        nameless = [answer.status for answer in given if not answer.request_ids]
        assert not nameless, f"answers of status {nameless} to the {what}'s company have no X-Request-Id"
        seen.severity = None


@drill("drill/tokens/foreign-event-refused", covers=("A26", "B28"))
def test_foreign_event_refused(
    http: HttpDoor, tenant: str, other: str, token: Minter, seen: Observer, bench: Bench
) -> None:
    """A company_admin emits events for its own company only, with a right signature beside its token, too, and beside
    another caller's event. A role that may replay nothing emits none.

    One tenant writes another's business events.
    """
    fields = {"event_type": "drill.plain", "aggregate_key": "k", "payload": {"n": 1}}
    own = token_post("/events", {"company_id": tenant, **fields}, token.for_company(tenant), "own company")
    seen.expect(own, http.send(own), 202, control=True)
    foreign = token_post("/events", {"company_id": other, **fields}, token.for_company(tenant), "foreign company")
    viewer = token(role="viewer", company_id=tenant)
    staff = token_post("/events", {"company_id": tenant, **fields}, viewer, "own company, a role that may nothing")
    signed = bench.signer.post("/events", foreign.body, "foreign company, signed too")
    for refused in (foreign, staff, signed.adding_header(*foreign.headers[-1])):
        seen.expect(refused, http.send(refused), 403)
        _apart(http, seen, (own, 202), (refused, (403,)))
