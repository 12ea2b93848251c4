"""Faults of signatures: what is accepted without a valid one, and what a valid one is good for."""

import base64
import dataclasses
import hashlib
import hmac
import json
import time
import uuid
from typing import Any

from faults.altered import around, instead_of
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import calling, hearing
from replay_service.authentication import authenticate
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Call, Caller, RawHeaders, Reply
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings, TokenRules
from replay_service.signatures import Signature, check_signature
from replay_service.tokens import Claims, check_token

HEADER = b"x-transbot-signature"
SCOPE = "drill/authentication"


def answers(probe: Probe, sent: str, body: bytes = b"", *, token: str = "") -> int:
    """The status of a dry run with this signature, whoever it is for."""
    more = probe.as_token(token) if token else {}
    return probe.send(body or dry_body(probe), {"X-Transbot-Signature": sent, **more}).status_code


def dry_body(probe: Probe) -> bytes:
    company = probe.environ.get("TEST_COMPANY_ID", "00000000-0000-4000-8000-000000000001")
    return json.dumps({"company_id": company, "dry_run": True, "max": 0}).encode()


def is_let_in(status: int) -> bool:
    """Past step 2: the body of `_dry` is invalid, so what is let in is a 400 and changes nothing."""
    return status == 400


@service(
    lambda p: is_let_in(answers(p, "0" * 64)),
    (f"{SCOPE}/wrong-secret", f"{SCOPE}/random-signature", "drill/proof/invalid-signature-refused"),
    "401",
)
@instead_of("signature_check")
def unverified(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
    """Any signature of the right shape is accepted."""
    if len(header) == 64:
        return Signature(1, header.decode("latin-1"))
    return check_signature(header, message, secrets, now_s)


@service(
    lambda p: is_let_in(answers(p, "")), (f"{SCOPE}/empty-signature", f"{SCOPE}/whitespace-signature"), ("empty", "401")
)
@instead_of("authenticate")
async def empty_skips(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
    """An empty signature header skips the check (`if signature and not valid`)."""
    if [value.strip() for name, value in headers if name == HEADER] == [b""]:
        return Caller(None, None)
    return await authenticate(parts, headers, message, accepts_v1=accepts_v1)


@service(
    lambda p: is_let_in(answers(p, p.sign(dry_body(p))[:32])),
    (f"{SCOPE}/truncated-half", f"{SCOPE}/truncated-by-one", f"{SCOPE}/one-digit"),
    "401",
)
@instead_of("signature_check")
def prefix_is_enough(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
    """The beginning of a valid signature is enough (prefix compare)."""
    macs = [hmac.new(secret, message, hashlib.sha256).hexdigest() for secret in secrets]
    found = [mac for mac in macs if header and mac.startswith(header.decode("latin-1"))]
    return Signature(1, found[0]) if found else check_signature(header, message, secrets, now_s)


@service(
    lambda p: is_let_in(answers(p, p.sign(dry_body(p)).upper())),
    (f"{SCOPE}/upper-case-hex", f"{SCOPE}/v2-upper-case-hex"),
    "upper",
)
def case_folded(settings: Settings) -> Parts:
    """Hex digits in upper case are accepted: one request has two spellings."""
    return hearing(settings, lambda found: [(n, v.lower() if n == HEADER else v) for n, v in found])


@service(
    lambda p: is_let_in(answers(p, p.sign(json.dumps(json.loads(dry_body(p))).encode()), b" " + dry_body(p) + b" ")),
    "drill/authentication/canonical-forms",
    "401",
)
@instead_of("signature_check")
def mac_over_parsed_body(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
    """The MAC is taken over the parsed body, not over the raw bytes."""
    found = check_signature(header, message, secrets, now_s)
    try:
        body = json.loads(message)
    except (ValueError, RecursionError):
        return found
    for text in (json.dumps(body), json.dumps(body, separators=(",", ":"))):
        found = found or check_signature(header, text.encode(), secrets, now_s)
    return found


@service(lambda p: is_let_in(_two_signatures(p, good_first=True)), f"{SCOPE}/two-signatures-good-bad", ("two", "401"))
def first_of_two(settings: Settings) -> Parts:
    """Of two signature headers only the first is checked."""

    def first(found: RawHeaders) -> RawHeaders:
        ours = [pair for pair in found if pair[0] == HEADER]
        return [pair for pair in found if pair[0] != HEADER] + ours[:1]

    return hearing(settings, first)


@service(lambda p: is_let_in(_two_signatures(p, good_first=False)), f"{SCOPE}/two-signatures-bad-good", ("two", "401"))
def last_of_two(settings: Settings) -> Parts:
    """Of two signature headers only the last is checked."""
    return hearing(settings, lambda found: list(dict(found).items()))


def _two_signatures(probe: Probe, *, good_first: bool) -> int:
    body = dry_body(probe)
    pair = [probe.sign(body), "0" * 64]
    headers = [("X-Transbot-Signature", value) for value in (pair if good_first else reversed(pair))]
    return probe.http.post(
        f"{probe.base_url}/dlq-replay", content=body, headers=[("Content-Type", "application/json"), *headers]
    ).status_code


@service(
    lambda p: is_let_in(answers(p, p.sign(dry_body(p)), token="nonsense")),
    f"{SCOPE}/bad-token-beside-good-signature",
    ("token", "401"),
)
@instead_of("authenticate")
async def bad_token_ignored(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
    """A valid signature is enough, whatever token comes with it."""
    try:
        return await authenticate(parts, headers, message, accepts_v1=accepts_v1)
    except Refusal:
        kept = [pair for pair in headers if pair[0] != b"authorization"]
        return await authenticate(parts, kept, message, accepts_v1=accepts_v1)


@service(
    lambda p: is_let_in(answers(p, "0" * 64, token=p.environ["ADMIN_JWT"])),
    f"{SCOPE}/bad-signature-beside-good-token",
    ("signature", "401"),
)
@instead_of("authenticate")
async def bad_signature_ignored(
    parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True
) -> Caller:
    """A valid token is enough, whatever signature comes with it."""
    has_token = any(name == b"authorization" for name, _ in headers)
    kept = [pair for pair in headers if not has_token or pair[0] != HEADER]
    return await authenticate(parts, kept, message, accepts_v1=accepts_v1)


@service(lambda p: _both_for_another(p) == 200, f"{SCOPE}/token-rights-apply-when-both-are-sent", ("token", "403"))
def signature_rights_win(settings: Settings) -> Parts:
    """With a token and a signature the signature's rights apply: a company admin acts for any company."""
    return calling(settings, lambda caller: Caller(caller.signature, None) if caller.signature else caller)


def _both_for_another(probe: Probe) -> int:
    with probe.tenant() as company:
        body = json.dumps({"company_id": company, "dry_run": True}).encode()
        claims = {"role": "company_admin", "company_id": "00000000-0000-4000-8000-0000000000ff"}
        both = {"X-Transbot-Signature": probe.sign(body), **probe.as_token(probe.token(claims))}
        return probe.send(body, both).status_code


@service(
    lambda p: p.send(b"{}", {}, "/events").status_code == 400,
    ("drill/safety-rails/events-need-credentials", "drill/http-surface/every-route-needs-credentials"),
    ("/events", "401"),
)
def events_open_to_all(settings: Settings) -> Parts:
    """POST /events needs no credentials."""
    release = build_parts(settings)

    async def anybody(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
        return Caller(None, None)

    async def accept(given: Parts, call: Call) -> Reply:
        return await release.accept_event(dataclasses.replace(given, authenticate=anybody), call)

    return dataclasses.replace(release, accept_event=accept)


@service(
    lambda p: p.get("/dlq-replay/00000000-0000-4000-8000-0000000000ff").status_code == 404,
    (f"{SCOPE}/read-without-credentials", "drill/http-surface/every-route-needs-credentials"),
    "401",
)
@instead_of("authenticate")
async def reads_open_to_all(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
    """The status of a run needs no credentials."""
    if not accepts_v1 and not any(name in {HEADER, b"authorization"} for name, _ in headers):
        return Caller(None, None)
    return await authenticate(parts, headers, message, accepts_v1=accepts_v1)


@service(
    lambda p: (
        p.send(dry_body(p), {"X-Transbot-Signature": "0" * 64}).json()["detail"]
        != p.send(dry_body(p), {}).json()["detail"]
    ),
    f"{SCOPE}/one-refusal",
    ("401", "body", "refus"),
)
@instead_of("authenticate")
async def tells_what_was_wrong(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
    """A 401 says what was wrong with the credentials."""
    try:
        return await authenticate(parts, headers, message, accepts_v1=accepts_v1)
    except Refusal as refusal:
        if any(name == HEADER for name, _ in headers):
            raise Refusal("unauthenticated", "The signature does not match.", headers=refusal.headers) from None
        raise


@service(lambda p: is_let_in(answers(p, "0" * 64)), f"{SCOPE}/dry-run-needs-a-signature", ("dry", "401"))
@instead_of("authenticate")
async def dry_run_unsigned(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
    """A dry run needs no signature: it only looks."""
    try:
        return await authenticate(parts, headers, message, accepts_v1=accepts_v1)
    except Refusal:
        if b'"dry_run"' in message and b"true" in message:
            return Caller(None, None)
        raise


@service(
    lambda p: answers(p, "zz" * 32) == 500,
    (f"{SCOPE}/one-refusal", f"{SCOPE}/escaped-newline", f"{SCOPE}/fullwidth-digits"),
    "500",
)
@instead_of("signature_check")
def odd_signature_crashes(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
    """A signature that is not hexadecimal is answered with 500 instead of 401."""
    if b"=" not in header:
        bytes.fromhex(header.decode())
    return check_signature(header, message, secrets, now_s)


@service(lambda p: _status_of_a_removed_company(p) == 200, f"{SCOPE}/removed-company-is-unknown", "removed")
def removed_companies_stay_known(settings: Settings) -> Parts:
    """A company that was served once is taken to exist until the service is restarted."""
    release = build_parts(settings)
    known: set[str] = set()

    async def twin(conn: Connection, caller: Caller, company_id: str) -> bool:
        if caller.may_act_for(company_id) and company_id in known:
            return True
        if is_served := await release.is_authorised(conn, caller, company_id):
            known.add(company_id)
        return is_served

    return dataclasses.replace(release, is_authorised=twin)


def _status_of_a_removed_company(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.replay(company, dry_run=True)
        probe.rows("DELETE FROM companies WHERE id = %s", company)
        return probe.replay(company, dry_run=True).status_code


@service(
    lambda p: _is_let_in_as_nobodys_admin(p), "drill/tokens/unknown-like-foreign", ("its own admin", "does not exist")
)
@around("is_authorised")
async def nobodys_admin_is_served(release: Parts, conn: Connection, caller: Caller, company_id: str) -> bool:
    """The admin of a company that does not exist is served."""
    is_own = caller.claims is not None and caller.claims.company_id == company_id
    return is_own or await release.is_authorised(conn, caller, company_id)


def _is_let_in_as_nobodys_admin(probe: Probe) -> bool:
    """Whether it comes as far as the flag, which may be off for that id."""
    nobody = str(uuid.uuid4())
    token = probe.token({"role": "company_admin", "company_id": nobody})
    body = json.dumps({"company_id": nobody, "dry_run": True}).encode()
    return bool(probe.send(body, probe.as_token(token)).json().get("code") != "forbidden")


@service(lambda p: _status_beside_another_scheme(p) == 400, "drill/tokens/other-scheme", "two schemes")
def other_schemes_are_overlooked(settings: Settings) -> Parts:
    """Of two Authorization headers, one of another scheme is ignored."""

    def bearers(found: RawHeaders) -> RawHeaders:
        return [(n, v) for n, v in found if n != b"authorization" or v[:7].lower() == b"bearer "]

    return hearing(settings, bearers)


def _status_beside_another_scheme(probe: Probe) -> int:
    """Of a dry run with two Authorization headers; 400: let in, as the body of `dry_body` is invalid."""
    sent = [("Content-Type", "application/json"), ("Authorization", "Basic eDp5")]
    sent += probe.as_token(probe.environ["ADMIN_JWT"]).items()
    return probe.http.post(f"{probe.base_url}/dlq-replay", content=dry_body(probe), headers=sent).status_code


@service(
    lambda p: is_let_in(p.send(dry_body(p), p.as_token(p.token({"nbf": time.time() + 200.5}))).status_code),
    ("drill/tokens/not-yet-valid", "drill/tokens/issued-in-the-future"),
    "401",
)
@instead_of("token_check")
def fractions_of_seconds_are_not_read(token: bytes, rules: TokenRules, now_s: float) -> Claims | None:
    """A fractional `nbf` or `iat` of a token is not checked."""
    found = check_token(token, rules, now_s)
    later = [c for n in ("nbf", "iat") if isinstance(c := _claims(token).get(n), float)] if found is None else []
    return check_token(token, rules, max(later) + 1) if later else found


@service(
    lambda p: p.send(dry_body(p), p.as_token(p.token({"sub": "Łukasz"}))).status_code == 500,
    "drill/tokens/super-admin-for-any",
    "500",
)
@instead_of("token_check")
def names_are_ascii(token: bytes, rules: TokenRules, now_s: float) -> Claims | None:
    """A caller whose token has a `sub` with letters beyond ASCII gets a server error."""
    found = check_token(token, rules, now_s)
    if found is not None:
        found.subject.encode("ascii")
    return found


@service(
    lambda p: p.send(dry_body(p), p.as_token(p.token({"iat": int(time.time()) - 400}))).status_code == 401,
    "drill/tokens/unset-audience-not-checked",
    "issued ten minutes ago",
)
@instead_of("token_check")
def tokens_have_an_age(token: bytes, rules: TokenRules, now_s: float) -> Claims | None:
    """A token that was issued over five minutes ago is refused, as a signature would be, though it has not expired."""
    found = check_token(token, rules, now_s)
    # ADMIN_JWT is as old as the deployment: its refusal is another check's
    aged = _claims(token).get("iat", now_s) < now_s - 300 and found is not None and found.subject != "gate-up"
    return None if aged else found


@service(
    lambda p: p.send(dry_body(p), p.as_token(p.token({"sub": "auth0|1"}))).status_code == 401,
    "drill/tokens/unset-audience-not-checked",
    "a provider's sub",
)
@instead_of("token_check")
def names_are_words(token: bytes, rules: TokenRules, now_s: float) -> Claims | None:
    """A token whose `sub` has a bar, as those of a common provider do, is refused."""
    found = check_token(token, rules, now_s)
    return None if found is None or "|" in found.subject else found


def _claims(token: bytes) -> dict[str, Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(token.split(b".")[1] + b"=="))
    except (ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}
