"""Planted defects of tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from dataclasses import replace
from typing import Any

from gates.deployment import requests
from gates.deployment.requests import mint_token
from tests.drills.defects import (
    World,
    company_of,
    excuses,
    refuses,
    whenever,
    with_json,
)
from tests.drills.planted import Planted
from tests.drills.proxy import Defect, Forward, Reply, Sent

MANUAL_TOKEN = mint_token("changeme", {"sub": "x", "role": "super_admin", "exp": 4_000_000_000})


def claims_of(sent: Sent) -> dict[str, Any]:
    """The claims of a request's bearer token, unverified; empty where there is none."""
    return requests.claims_of((sent.header("Authorization") or "").partition(" ")[2])


def obeys_any_token(world: World) -> Defect:
    """A request that authorisation refused, or hid, is carried out as the administrator."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        if reply.status not in {401, 403, 404} or not sent.header("Authorization"):
            return reply
        return forward(world.as_admin(sent))

    return defect


def tells_that_it_expired(_world: World) -> Defect:
    """A token of the past is told so."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply, until = forward(sent), claims_of(sent).get("exp")
        late = reply.status == 401 and isinstance(until, int) and until < time.time()
        return with_json(reply, detail="the token has expired") if late else reply

    return defect


def accepts_admin_of_manual(world: World) -> Defect:
    """The token's secret is one out of manuals: the planted admin token is the right one."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        planted = sent.header("Authorization") == f"Bearer {MANUAL_TOKEN}"
        return forward(world.as_admin(sent) if planted else sent)

    return defect


def tells_unknown_companies(world: World) -> Defect:
    """The refusal of an unknown company differs from that of a foreign one."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        company = company_of(sent)
        if reply.status != 403 or not company:
            return reply
        known = world.sql("select 1 from public.companies where id = %s", company)
        return reply if known else with_json(reply, detail="no such company")

    return defect


def _later(sent: Sent, name: str) -> bool:
    value = claims_of(sent).get(name)
    return isinstance(value, int | float) and value > time.time()


def runs_the_key_id(_world: World) -> Defect:
    """What stands in the key id of a token is run by the database."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        head = (sent.header("Authorization") or "").removeprefix("Bearer ").partition(".")[0]
        if b"pg_sleep(5)" in base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)):
            threading.Event().wait(5)
        return forward(sent)

    return defect


def _signed_with(sent: Sent, secret: str) -> bool:
    """Whether the token of the request is signed with this secret."""
    unsigned, _, signature = (sent.header("Authorization") or "").partition(" ")[2].rpartition(".")
    mac = hmac.new(secret.encode(), unsigned.encode(), hashlib.sha256).digest()
    return bool(unsigned) and signature == requests.encode_segment(mac)


FORGED_TOKENS = tuple(
    f"drill/tokens/{name}"
    for name in (
        *("alg-*", "empty-signature", "two-parts", "random-signature", "changed-claims"),
        *("common-secrets", "psychic-signature", "kid-*", "embedded-key", "encrypted-form", "nested-token", "no-token"),
        *("token-of-48-kilobytes", "hmac-secret*", "two-tokens*", "scheme-spelling", "other-scheme"),
        *("accepted-after-forgeries", "unknown-critical-header", "compressed", "claims-*", "expired", "long-expired"),
        *("without-exp", "exp-no-number", "not-yet-valid", "issued-in-the-future", "without-sub", "without-role"),
        *("role-no-string",),
    )
)


TOKENS = [
    Planted(
        "unsigned tokens are accepted",
        excuses(lambda sent: "eyJhbGciOiJub25lI" in (sent.header("Authorization") or "")),
        ("drill/tokens/alg-none", "drill/tokens/alg-none-with-signature"),
        ("drill/tokens/alg-unknown", "drill/tokens/common-secrets", "drill/tokens/psychic-signature"),
    ),
    Planted(
        "a token without exp never expires",
        excuses(lambda sent: bool(claims_of(sent)) and "exp" not in claims_of(sent)),
        ("drill/tokens/without-exp",),
        ("drill/tokens/expired", "drill/tokens/without-role"),
    ),
    Planted(
        "expired tokens are accepted",
        excuses(lambda sent: isinstance(claims_of(sent).get("exp"), int) and claims_of(sent)["exp"] < time.time()),
        ("drill/tokens/expired", "drill/tokens/long-expired"),
        ("drill/tokens/without-exp", "drill/tokens/not-yet-valid"),
    ),
    Planted(
        "expired tokens are told so",
        tells_that_it_expired,
        ("drill/tokens/one-refusal",),
        ("drill/authentication/one-refusal",),
    ),
    Planted("a key id is a query", runs_the_key_id, ("drill/tokens/kid-runs-nothing",), ("drill/tokens/kid-sql",)),
    Planted(
        "bad tokens are server errors",
        whenever(401, lambda reply: replace(reply, status=500)),
        ("drill/tokens/kid-of-8-kilobytes", "drill/tokens/exp-in-odd-forms", "drill/tokens/token-of-48-kilobytes"),
    ),
    Planted(
        "there is no leeway",
        refuses(lambda sent: isinstance(claims_of(sent).get("exp"), int) and claims_of(sent)["exp"] < time.time()),
        ("drill/tokens/expired-within-leeway",),
        ("drill/tokens/issued-within-leeway",),
    ),
    Planted("iat has no leeway", refuses(lambda sent: _later(sent, "iat")), ("drill/tokens/issued-within-leeway",)),
    Planted("nbf is not understood", refuses(lambda sent: "nbf" in claims_of(sent)), ("drill/tokens/already-valid",)),
    Planted(
        "iat is required",
        refuses(lambda sent: bool(claims_of(sent)) and "iat" not in claims_of(sent)),
        ("drill/tokens/without-iat",),
    ),
    Planted(
        "an audience is refused where none is set",
        refuses(lambda sent: "aud" in claims_of(sent)),
        ("drill/tokens/unset-audience-not-checked",),
    ),
    Planted(
        "the default secret of Supabase signs tokens, too",
        excuses(lambda sent: _signed_with(sent, "super-secret-jwt-token-with-at-least-32-characters-long")),
        ("drill/tokens/common-secrets",),
        ("drill/tokens/random-signature",),
    ),
    Planted(
        "the secret is one out of manuals",
        accepts_admin_of_manual,
        ("drill/tokens/secret-not-guessable",),
        environ={"ADMIN_JWT": MANUAL_TOKEN},
    ),
    Planted(
        "rights are not looked at",
        obeys_any_token,
        (
            "drill/tokens/role-service",
            "drill/tokens/role-other",
            "drill/tokens/role-spelling",
            "drill/tokens/company-claim-*",
            "drill/tokens/foreign-*",
            "drill/tokens/tenant-header-ignored",
            "drill/tokens/repeated-claims",
            "drill/dry-run/same-authorisation",
        ),
    ),
    Planted(
        "a super_admin is nobody",
        refuses(lambda sent: claims_of(sent).get("role") == "super_admin", 403),
        ("drill/tokens/super-admin-for-any",),
    ),
    Planted("unknown companies are told apart", tells_unknown_companies, ("drill/tokens/unknown-like-foreign",)),
]
