"""Faults of the token check: tokens that are forged, stale, or say something else than they should."""

from __future__ import annotations

import base64
import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from faults.catalogue import service
from faults.probe import Probe
from faults.requests import Json, calling, hearing, trusting, without
from replay_service.composition import build_parts
from replay_service.exchange import Caller
from replay_service.parts import Parts
from replay_service.settings import Settings, TokenRules
from replay_service.tokens import Claims, check_token

SCOPE = "drill/tokens"
LOCKED_S = 10.0
OTHER = "00000000-0000-4000-8000-0000000000ff"
Witness = Callable[[Probe], bool]


def _status(probe: Probe, token: str) -> int:
    """The status of an invalid request with this token: 400 where the token is accepted."""
    body = json.dumps({"company_id": OTHER, "dry_run": True, "max": 0}).encode()
    return probe.send(body, probe.as_token(token)).status_code


def _accepts(make: Callable[[Probe], str]) -> Witness:
    return lambda probe: _status(probe, make(probe)) == 400


def _accepts_claims(make: Callable[[int], Mapping[str, Any]]) -> Witness:
    return lambda probe: _status(probe, probe.token(make(int(time.time())))) == 400


def _refuses_claims(make: Callable[[int], Mapping[str, Any]]) -> Witness:
    return lambda probe: _status(probe, probe.token(make(int(time.time())))) == 401


def _unsigned(probe: Probe, alg: str = "none") -> str:
    signed = probe.token({}, {"alg": alg, "typ": "JWT"})
    return signed.rpartition(".")[0] + "."


def _may(claims: Mapping[str, Any]) -> Witness:
    """Whether a token with these claims may act for a tenant that is not its own."""

    def witness(probe: Probe) -> bool:
        with probe.tenant() as company:
            body = json.dumps({"company_id": company, "dry_run": True}).encode()
            return probe.send(body, probe.as_token(probe.token(claims))).status_code == 200

    return witness


@service(
    "A token with `alg: none` needs no signature.",
    _accepts(_unsigned),
    (f"{SCOPE}/alg-none", f"{SCOPE}/alg-none-with-signature"),
    names=("none", "401"),
)
def alg_none(settings: Settings) -> Parts:
    def check(token: bytes, rules: TokenRules, now_s: float) -> Claims | None:
        parts = token.split(b".")
        header = _json(parts[0]) if len(parts) == 3 else {}
        if str(header.get("alg")).lower() != "none":
            return check_token(token, rules, now_s)
        found = _json(parts[1])
        return Claims(str(found.get("sub")), str(found.get("role")), found.get("company_id"))

    return dataclasses.replace(build_parts(settings), token_check=check)


def _json(part: bytes) -> dict[str, Any]:
    try:
        value = json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


@service(
    "A token without its signature is accepted.",
    _accepts(lambda p: p.token({}).rpartition(".")[0] + "."),
    (f"{SCOPE}/empty-signature",),
    names=("signature", "401"),
)
def empty_signature(settings: Settings) -> Parts:
    return trusting(settings, genuine=lambda mac, _header, _text: mac == b"")


@service(
    "The algorithm is taken from the header: an HS256 MAC is good under any name.",
    _accepts(lambda p: p.token({}, {"alg": "HS384", "typ": "JWT"})),
    (f"{SCOPE}/alg-mismatch", f"{SCOPE}/alg-unknown", f"{SCOPE}/alg-missing"),
    names=("alg", "401"),
)
def any_alg(settings: Settings) -> Parts:
    return trusting(settings, any_alg=True)


@service(
    "The signature of a token is not checked (decode instead of verify).",
    _accepts(lambda p: p.token({}, secret="x" * 32)),
    (f"{SCOPE}/random-signature", f"{SCOPE}/changed-claims", f"{SCOPE}/common-secrets"),
    names=("401",),
)
def decoded_not_verified(settings: Settings) -> Parts:
    return trusting(settings, genuine=lambda _mac, _header, _text: True)


@service(
    "The secret of signed requests signs tokens, too.",
    _accepts(lambda p: p.token({}, secret=p.secrets[0])),
    (f"{SCOPE}/hmac-secret-signs-no-token",),
    names=("secret", "401"),
)
def hmac_secret_signs_tokens(settings: Settings) -> Parts:
    def check(token: bytes, rules: TokenRules, now_s: float) -> Claims | None:
        others = [dataclasses.replace(rules, secret=secret) for secret in settings.hmac_secrets]
        found = [check_token(token, each, now_s) for each in (rules, *others)]
        return next((claims for claims in found if claims), None)

    return dataclasses.replace(build_parts(settings), token_check=check)


@service(
    "`exp` is not checked.",
    _accepts_claims(lambda now: {"exp": now - 86_400}),
    (f"{SCOPE}/expired", f"{SCOPE}/long-expired"),
    names=("exp", "401"),
)
def exp_ignored(settings: Settings) -> Parts:
    return trusting(settings, lambda found, now: found | {"exp": int(now) + 60} if "exp" in found else found)


@service(
    "A token without `exp` is good for ever.",
    _accepts(lambda p: p.token({"exp": None})),
    (f"{SCOPE}/without-exp",),
    names=("exp", "401"),
)
def exp_optional(settings: Settings) -> Parts:
    def claims(found: Json, now: float) -> Json:
        return found | {"exp": int(now) + 60} if found.get("exp") is None else found

    return trusting(settings, claims)


@service(
    "The leeway is five minutes instead of 30 s.",
    _accepts_claims(lambda now: {"exp": now - 200}),
    (f"{SCOPE}/expired",),
    names=("exp", "401"),
)
def leeway_too_long(settings: Settings) -> Parts:
    return _shifted(settings, 270)


@service(
    "There is no leeway: a clock that is 10 s off is refused.",
    _refuses_claims(lambda now: {"exp": now - 10}),
    (f"{SCOPE}/expired-within-leeway",),
    names=("leeway", "exp"),
    decision="hold",
)
def no_leeway(settings: Settings) -> Parts:
    return _shifted(settings, -30)


def _shifted(settings: Settings, seconds: int) -> Parts:
    """The service for which a token ends so much later, or earlier."""

    def claims(found: Json, _now: float) -> Json:
        exp = found.get("exp")
        return found | {"exp": exp + seconds} if type(exp) is int else found

    return trusting(settings, claims)


@service(
    "`nbf` is not checked.",
    _accepts_claims(lambda now: {"nbf": now + 3600}),
    (f"{SCOPE}/not-yet-valid",),
    names=("nbf", "401"),
)
def nbf_ignored(settings: Settings) -> Parts:
    return trusting(settings, lambda found, _now: without(found, "nbf"))


@service(
    "A token issued in the future is accepted.",
    _accepts_claims(lambda now: {"iat": now + 3600}),
    (f"{SCOPE}/issued-in-the-future",),
    names=("iat", "401", "future"),
    decision="hold",
)
def iat_ignored(settings: Settings) -> Parts:
    return trusting(settings, lambda found, _now: without(found, "iat"))


@service(
    "A token without `iat` is refused, although it is not required.",
    _refuses_claims(lambda _now: {}),
    (f"{SCOPE}/without-iat",),
    names=("iat",),
    decision="hold",
)
def iat_required(settings: Settings) -> Parts:
    return trusting(settings, lambda found, _now: found if "iat" in found else without(found, "sub"))


@service(
    "A token without `sub` is accepted: the audit does not know who it was.",
    _accepts(lambda p: p.token({"sub": None})),
    (f"{SCOPE}/without-sub",),
    names=("sub", "401"),
)
def sub_optional(settings: Settings) -> Parts:
    return trusting(settings, lambda found, _now: found if found.get("sub") else found | {"sub": "unknown"})


@service(
    "A token without a role is an admin's.",
    _accepts(lambda p: p.token({"role": None})),
    (f"{SCOPE}/without-role",),
    names=("role", "401"),
)
def role_defaults_to_admin(settings: Settings) -> Parts:
    return trusting(settings, lambda found, _now: found if found.get("role") else found | {"role": "super_admin"})


@service(
    "A role that is a list is read as its first entry.",
    _accepts(lambda p: p.token({"role": ["super_admin"]})),
    (f"{SCOPE}/role-no-string",),
    names=("role", "401"),
)
def role_list_accepted(settings: Settings) -> Parts:
    def claims(found: Json, _now: float) -> Json:
        role = found.get("role")
        return found | {"role": str(role[0]) if isinstance(role, list) and role else role}

    return trusting(settings, claims)


@service(
    "Roles are compared without case and spaces: ` SUPER_ADMIN` is an admin.",
    _may({"role": " Super_Admin"}),
    (f"{SCOPE}/role-spelling",),
    names=("role", "403"),
)
def role_spelling_ignored(settings: Settings) -> Parts:
    def claims(found: Json, _now: float) -> Json:
        role = found.get("role")
        return found | {"role": role.strip().lower() if isinstance(role, str) else role}

    return trusting(settings, claims)


@service(
    "Any role may replay, `viewer` too.",
    _may({"role": "viewer"}),
    (f"{SCOPE}/role-other", f"{SCOPE}/role-service"),
    names=("role", "403"),
)
def any_role_may(settings: Settings) -> Parts:
    def lenient(caller: Caller) -> Caller:
        if caller.claims is None or caller.has_role:
            return caller
        return Caller(caller.signature, dataclasses.replace(caller.claims, role="super_admin"))

    return calling(settings, lenient)


@service(
    "A company admin without a company claim may act for every company.",
    _may({"role": "company_admin"}),
    (f"{SCOPE}/company-claim-missing", f"{SCOPE}/company-claim-null", f"{SCOPE}/company-claim-empty"),
    names=("company", "403"),
)
def no_company_means_all(settings: Settings) -> Parts:
    def claims(found: Json, _now: float) -> Json:
        is_open = found.get("role") == "company_admin" and not found.get("company_id")
        return found | {"role": "super_admin"} if is_open else found

    return trusting(settings, claims)


@service(
    "A company admin may act for any company.",
    _may({"role": "company_admin", "company_id": OTHER}),
    (f"{SCOPE}/foreign-company", f"{SCOPE}/foreign-event-refused", f"{SCOPE}/foreign-run-hidden"),
    names=("403", "company"),
)
def company_not_compared(settings: Settings) -> Parts:
    def claims(found: Json, _now: float) -> Json:
        return found | {"role": "super_admin"} if found.get("role") == "company_admin" else found

    return trusting(settings, claims)


@service(
    "`*` in the company claim stands for every company.",
    _may({"role": "company_admin", "company_id": "*"}),
    (f"{SCOPE}/company-claim-pattern",),
    names=("company", "403"),
)
def company_pattern(settings: Settings) -> Parts:
    def claims(found: Json, _now: float) -> Json:
        return found | {"role": "super_admin"} if found.get("company_id") in {"*", "%", "all"} else found

    return trusting(settings, claims)


@service(
    "An audience is asked for although none is configured: every token with another is refused.",
    _refuses_claims(lambda _now: {"aud": "somebody"}),
    (f"{SCOPE}/unset-audience-not-checked",),
    names=("aud",),
    decision="hold",
)
def audience_always_checked(settings: Settings) -> Parts:
    return trusting(settings, lambda found, _now: without(found, "sub") if "aud" in found else found)


@service(
    "The scheme is not looked at: `Basic` and a bare token do, too.",
    lambda p: p.send(b"{}", {"Authorization": p.token({})}).status_code == 400,
    (f"{SCOPE}/scheme-spelling", f"{SCOPE}/other-scheme"),
    names=("401", "scheme"),
    decision="hold",
)
def scheme_ignored(settings: Settings) -> Parts:
    def bearing(name: bytes, value: bytes) -> bytes:
        return b"Bearer " + value.split(b" ")[-1] if name == b"authorization" else value

    return hearing(settings, lambda found: [(n, bearing(n, v)) for n, v in found])


@service(
    "Five forged tokens lock the good one out for a while.",
    lambda p: _locks_out(p),
    (f"{SCOPE}/accepted-after-forgeries", f"{SCOPE}/*"),
    names=("401",),
)
def forgeries_lock_out(settings: Settings) -> Parts:
    failures: list[float] = []

    def check(token: bytes, rules: TokenRules, now_s: float) -> Claims | None:
        failures[:] = [at for at in failures if at > now_s - LOCKED_S]
        found = check_token(token, rules, now_s)
        if found is None:
            failures.append(now_s)
        return found if len(failures) < 5 else None

    return dataclasses.replace(build_parts(settings), token_check=check)


def _locks_out(probe: Probe) -> bool:
    """It leaves nobody locked out: a gate that finds its good token refused cannot know whose fault that is."""
    statuses = [_status(probe, "forged") for _ in range(6)]
    locked = statuses == [401] * 6 and _status(probe, probe.token({})) == 401
    deadline = time.monotonic() + 2 * LOCKED_S
    while locked and time.monotonic() < deadline and _status(probe, probe.token({})) == 401:
        time.sleep(0.2)
    return locked
