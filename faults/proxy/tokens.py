"""Faults of the token check and of the rights that a token gives, made by a proxy."""

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from faults.catalogue import proxy
from faults.probe import mac, mint
from faults.proxy.rewriting import Fields, Make, World, after, company_of, excuses, problem, refuses, rereads, with_json
from faults.proxy.server import Defect, Forward, Reply, Sent, no_defect

TOKENS = "drill/tokens"
ISSUER = "https://issuer.example"


def token_of(sent: Sent) -> str:
    """The bearer token of a request; empty where there is none."""
    return (sent.header("Authorization") or "").partition(" ")[2]


def part_of(sent: Sent, index: int) -> bytes:
    """One part of the token, decoded."""
    part = (token_of(sent).split(".") * 2)[index]
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        return b""


def _object(part: bytes) -> Fields:
    try:
        value = json.loads(part)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def header_of(sent: Sent) -> Fields:
    """The header of a request's bearer token; empty where there is none."""
    return _object(part_of(sent, 0))


def claims_of(sent: Sent) -> Fields:
    """The claims of a request's bearer token, unverified; empty where there is none."""
    return _object(part_of(sent, 1))


def is_over(sent: Sent) -> bool:
    """Whether the token of the request has expired."""
    until = claims_of(sent).get("exp")
    return isinstance(until, int) and until < time.time()


def signed_with(sent: Sent, secret: str) -> bool:
    """Whether the token of the request is signed with this secret."""
    unsigned, _, signature = token_of(sent).rpartition(".")
    return bool(unsigned) and signature.encode() == mac(unsigned.encode(), secret)


def is_genuine(world: World, sent: Sent) -> bool:
    """Whether the token of the request is signed with the right secret, and says so."""
    return signed_with(sent, world.environ["REPLAY_JWT_SECRET"]) and header_of(sent).get("alg") == "HS256"


def believes(claims: Callable[[Fields], Fields] = dict, genuine: Callable[[World, Sent], bool] = is_genuine) -> Make:
    """A lenient token check: a token that is genuine is signed anew with other claims, and then judged strictly."""

    def reread(world: World, sent: Sent) -> Sent:
        found = claims_of(sent)
        if len(sent.all("Authorization")) != 1 or not found or not genuine(world, sent):  # two are refused as before
            return sent
        return sent.having("Authorization", f"Bearer {mint(claims(found), world.environ['REPLAY_JWT_SECRET'])}")

    return rereads(reread)


def later(seconds: int, *names: str) -> Callable[[Fields], Fields]:
    """These times of a token are so much later, or earlier."""
    return lambda found: {n: v + seconds if n in names and type(v) is int else v for n, v in found.items()}


def lacking(found: Fields, name: str) -> Fields:
    return {n: v for n, v in found.items() if n != name}


def becomes(wanted: Callable[[Fields], object], **claims: object) -> Callable[[Fields], Fields]:
    """Tokens of this kind count with other claims."""
    return lambda found: {**found, **claims} if wanted(found) else found


def first_role(found: Fields) -> Fields:
    role = found.get("role")
    return {**found, "role": str(role[0])} if isinstance(role, list) and role else found


def plain_role(found: Fields) -> Fields:
    role = found.get("role")
    return {**found, "role": role.strip().lower()} if isinstance(role, str) else found


def locks_out(_world: World) -> Defect:
    """After five refused tokens nobody's is good for a while."""
    failures: list[float] = []

    def defect(sent: Sent, forward: Forward) -> Reply:
        failures[:] = [at for at in failures if at > time.monotonic() - 10]
        if len(failures) >= 5 and sent.header("Authorization"):
            return problem(401, "unauthenticated")
        reply = forward(sent)
        if reply.status == 401 and sent.header("Authorization"):
            failures.append(time.monotonic())
        return reply

    return defect


def runs_the_key_id(_world: World, sent: Sent) -> Sent:
    """The database runs the key id of a token as SQL."""
    if b"pg_sleep(5)" in part_of(sent, 0):
        threading.Event().wait(5)
    return sent


def obeys_any_token(world: World) -> Defect:
    """A request that authorisation refused, or hid, is carried out as the administrator."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        obeyed = reply.status in {401, 403, 404} and sent.header("Authorization")
        return forward(world.as_admin(sent)) if obeyed else reply

    return defect


def tells_unknown_companies(world: World, sent: Sent, reply: Reply) -> Reply | None:
    """The refusal of an unknown company differs from that of a foreign one."""
    if reply.status != 403 or not company_of(sent):
        return None
    known = world.rows("select 1 from companies where id = %s", company_of(sent))
    return None if known else with_json(reply, detail="no such company")


def finds_no_company(world: World, sent: Sent, reply: Reply) -> Reply | None:
    """An unknown company is looked up before the rights of the caller are, and is 404."""
    told = tells_unknown_companies(world, sent, reply)
    return told and problem(404, "not_found")


def is_later(sent: Sent, name: str) -> bool:
    """Whether the token says a time that is still to come."""
    value = claims_of(sent).get(name)
    return isinstance(value, int | float) and value > time.time()


OF_A_MANUAL = mint({"sub": "x", "role": "super_admin", "exp": 4_000_000_000}, "changeme")

proxy(
    "tokens/expired-tokens-are-told-so",
    after(
        lambda _world, sent, reply: (
            with_json(reply, detail="expired") if reply.status == 401 and is_over(sent) else None
        )
    ),
    (f"{TOKENS}/one-refusal",),
    green=("drill/authentication/one-refusal",),
)
proxy(
    "tokens/the-key-id-is-run",
    rereads(runs_the_key_id),
    (f"{TOKENS}/kid-runs-nothing",),
    "The key id of a token is part of a query.",
    green=(f"{TOKENS}/kid-sql",),
)
proxy(
    "tokens/bad-tokens-are-server-errors",
    after(lambda _world, sent, reply: replace(reply, status=500) if reply.status == 401 and token_of(sent) else None),
    tuple(f"{TOKENS}/{name}" for name in ("kid-of-8-kilobytes", "exp-in-odd-forms", "token-of-48-kilobytes")),
)
proxy("tokens/iat-has-no-leeway", refuses(lambda sent: is_later(sent, "iat")), (f"{TOKENS}/issued-within-leeway",))
proxy("tokens/nbf-has-no-leeway", refuses(lambda sent: is_later(sent, "nbf")), (f"{TOKENS}/valid-within-leeway",))
proxy("tokens/typ-is-required", refuses(lambda sent: "typ" not in header_of(sent)), (f"{TOKENS}/without-iat",))
proxy(
    "tokens/nbf-is-not-understood", refuses(lambda sent: "nbf" in claims_of(sent)), (f"{TOKENS}/valid-within-leeway",)
)
proxy(
    "tokens/the-default-secret-of-supabase-signs",
    excuses(lambda _world, sent: signed_with(sent, "super-secret-jwt-token-with-at-least-32-characters-long")),
    (f"{TOKENS}/common-secrets",),
    green=(f"{TOKENS}/random-signature",),
)
proxy(
    "tokens/the-secret-is-one-out-of-manuals",
    rereads(lambda world, sent: world.as_admin(sent) if token_of(sent) == OF_A_MANUAL else sent),
    (f"{TOKENS}/secret-not-guessable",),
    told=lambda _world: {"ADMIN_JWT": OF_A_MANUAL},
)
proxy(
    "tokens/rights-are-not-looked-at",
    obeys_any_token,
    (
        *(f"{TOKENS}/{name}" for name in ("role-service", "role-other", "role-spelling", "company-claim-*")),
        *(f"{TOKENS}/{name}" for name in ("foreign-*", "tenant-header-ignored", "repeated-claims")),
        "drill/dry-run/same-authorisation",
    ),
)
proxy(
    "tokens/a-super-admin-is-nobody",
    refuses(lambda sent: claims_of(sent).get("role") == "super_admin", 403),
    (f"{TOKENS}/super-admin-for-any",),
)
proxy(
    "tokens/a-signature-of-another-length-is-an-error",
    refuses(lambda sent: header_of(sent).get("alg") == "HS256" and len(token_of(sent).rpartition(".")[2]) != 43, 500),
    (f"{TOKENS}/random-signature",),
    names=("500",),
)
proxy("tokens/unknown-companies-are-told-apart", after(tells_unknown_companies), (f"{TOKENS}/unknown-like-foreign",))
proxy("tokens/unknown-companies-are-404", after(finds_no_company), (f"{TOKENS}/unknown-like-foreign",), names=("404",))
proxy(
    "tokens/audience-not-checked",
    lambda _world: no_defect,
    (f"{TOKENS}/audience",),
    "Tokens for other services are good here: the audience is not looked at.",
    told=lambda world: {"REPLAY_JWT_AUDIENCE": "replay", "ADMIN_JWT": world.token({"aud": "replay"})},
)
proxy(
    "tokens/issuer-not-checked",
    lambda _world: no_defect,
    (f"{TOKENS}/issuer",),
    "Tokens of other issuers are good here: the issuer is not looked at.",
    told=lambda world: {"REPLAY_JWT_ISSUER": ISSUER, "ADMIN_JWT": world.token({"iss": ISSUER})},
)
for _name, _breaks, _make, _checks in (
    (
        "alg-none",
        "A token with `alg: none` needs no signature.",
        believes(genuine=lambda _w, sent: str(header_of(sent).get("alg")).lower() == "none"),
        ("alg-none", "alg-none-with-signature"),
    ),
    (
        "empty-signature",
        "A token without its signature is accepted.",
        believes(genuine=lambda _w, sent: token_of(sent).endswith(".")),
        ("empty-signature",),
    ),
    (
        "any-alg",
        "The algorithm is taken from the header: an HS256 MAC is good under any name.",
        believes(genuine=lambda world, sent: signed_with(sent, world.environ["REPLAY_JWT_SECRET"])),
        ("alg-mismatch", "alg-missing"),
    ),
    (
        "decoded-not-verified",
        "The signature of a token is not checked (decode instead of verify).",
        believes(genuine=lambda _w, _s: True),
        ("random-signature", "changed-claims", "common-secrets"),
    ),
    (
        "hmac-secret-signs-tokens",
        "The secret of signed requests signs tokens, too.",
        believes(genuine=lambda world, sent: any(signed_with(sent, secret) for secret in world.secrets)),
        ("hmac-secret-signs-no-token",),
    ),
    (
        "exp-ignored",
        "`exp` is not checked.",
        believes(lambda found: {**found, "exp": int(time.time()) + 60} if "exp" in found else found),
        ("expired", "long-expired"),
    ),
    (
        "exp-optional",
        "A token without `exp` is good for ever.",
        believes(lambda found: {"exp": int(time.time()) + 60, **found}),
        ("without-exp",),
    ),
    (
        "leeway-too-long",
        "The leeway is a minute instead of 30 s.",
        believes(lambda found: later(30, "exp")(later(-30, "nbf", "iat")(found))),
        ("expired", "not-yet-valid", "issued-in-the-future"),
    ),
    (
        "no-leeway",
        "There is no leeway: a clock that is 10 s off is refused.",
        believes(later(-30, "exp")),
        ("expired-within-leeway",),
    ),
    ("nbf-ignored", "`nbf` is not checked.", believes(lambda f: lacking(f, "nbf")), ("not-yet-valid",)),
    (
        "iat-ignored",
        "A token issued in the future is accepted.",
        believes(lambda f: lacking(f, "iat")),
        ("issued-in-the-future",),
    ),
    (
        "role-before-validation",
        "A role that may nothing is refused before the body is looked at.",
        refuses(lambda sent: claims_of(sent).get("role") == "viewer", 403),
        ("validation-before-role",),
    ),
    (
        "iat-unread-beside-nbf",
        "Of the times at which a token begins only one is looked at: `nbf`, where it is there.",
        believes(lambda f: lacking(f, "iat") if "nbf" in f else f),
        ("issued-in-the-future",),
    ),
    (
        "iat-required",
        "A token without `iat` is refused, although it is not required.",
        refuses(lambda sent: bool(claims_of(sent)) and "iat" not in claims_of(sent)),
        ("without-iat",),
    ),
    (
        "sub-optional",
        "A token without `sub` is accepted: the audit does not know who it was.",
        believes(becomes(lambda found: not found.get("sub"), sub="unknown")),
        ("without-sub",),
    ),
    (
        "role-defaults-to-admin",
        "A token without a role is an admin's.",
        believes(becomes(lambda found: not found.get("role"), role="super_admin")),
        ("without-role",),
    ),
    (
        "role-list-accepted",
        "A role that is a list is read as its first entry.",
        believes(first_role),
        ("role-no-string",),
    ),
    (
        "role-spelling-ignored",
        "Roles are compared without case and spaces: ` SUPER_ADMIN` is an admin.",
        believes(plain_role),
        ("role-spelling",),
    ),
    (
        "any-role-may",
        "Any role may replay, `viewer` too.",
        believes(becomes(lambda found: found.get("role") != "company_admin", role="super_admin")),
        ("role-other", "role-service"),
    ),
    (
        "no-company-means-all",
        "A company admin without a company claim may act for every company.",
        believes(becomes(lambda found: not found.get("company_id"), role="super_admin")),
        ("company-claim-missing", "company-claim-null", "company-claim-empty"),
    ),
    (
        "user-metadata-trusted",
        "Company and role are also read from what users write into their own metadata.",
        believes(lambda found: {**found, **(found.get("user_metadata") or {})}),
        ("user-metadata-gives-no-rights",),
    ),
    (
        "company-not-compared",
        "A company admin may act for any company.",
        believes(becomes(lambda found: found.get("role") == "company_admin", role="super_admin")),
        ("foreign-company", "foreign-event-refused", "foreign-run-hidden"),
    ),
    (
        "company-pattern",
        "`*` in the company claim stands for every company.",
        believes(becomes(lambda found: found.get("company_id") in ("*", "%", "all"), role="super_admin")),
        ("company-claim-pattern",),
    ),
    (
        "audience-always-checked",
        "An audience is asked for although none is configured: every token with another is refused.",
        refuses(lambda sent: "aud" in claims_of(sent)),
        ("unset-audience-not-checked",),
    ),
    (
        "scheme-ignored",
        "The scheme is not looked at: `Basic` and a bare token do, too.",
        rereads(
            lambda _w, sent: (
                sent.having("Authorization", f"Bearer {given[0].split(' ')[-1]}")
                if len(given := sent.all("Authorization")) == 1
                else sent
            )
        ),
        ("other-scheme",),
    ),
    (
        "forgeries-lock-out",
        "Five forged tokens lock the good one out for a while.",
        locks_out,
        ("accepted-after-forgeries",),
    ),
):
    proxy(f"tokens/{_name}", _make, tuple(f"{TOKENS}/{check}" for check in _checks), _breaks)
proxy(
    "tokens/the-same-header-twice-is-one",
    excuses(lambda _world, sent: len(both := sent.all("Authorization")) > len(set(both))),
    (f"{TOKENS}/two-tokens-alike",),
)
