"""The gate's own credentials: claims of a good token, why one is unfit, which ones the target refuses. No I/O."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from gates.deployment.requests import claims_of, encode_segment
from gates.deployment.target import Target

LEEWAY_S = 30
"""Of the contract: how far two clocks may differ."""
LIFE_S = 600
SUBJECT = "d2111000-0000-4000-8000-000000000001"
"""The subject of a minted token: a UUID, since a database may read `sub` as one (auth.uid() of Supabase)."""
REFUSABLE = ("hmac_secrets", "admin_jwt", "jwt_secret")
REFUSED, NOWHERE = "refused", "nowhere to show it"
UNUSABLE = (REFUSED, NOWHERE)
"""What the preflight observes of a useless credential. No answer is not among them: the target may be slow or
overloaded, which the load must see.
"""


def good_claims(target: Target, now_s: int) -> dict[str, Any]:
    """The claims of a super_admin's token that the target accepts if audience and issuer are right."""
    claims: dict[str, Any] = {"sub": SUBJECT, "role": "super_admin", "iat": now_s - 5, "exp": now_s + LIFE_S}
    if target.jwt_audience:
        claims["aud"] = target.jwt_audience
    if target.jwt_issuer:
        claims["iss"] = target.jwt_issuer
    return claims


def unfit(target: Target, now_s: float) -> str:
    """Why a healthy target refuses ADMIN_JWT, read from the token itself; empty if nothing speaks against it."""
    claims = claims_of(target.admin_jwt)
    if not claims or target.admin_jwt.count(".") != 2:
        return "is no token: it has no claims that can be read"
    return _time_over(claims, now_s) or _of_another_door(target, claims)


def _time_over(claims: Mapping[str, Any], now_s: float) -> str:
    exp, nbf, iat = (claims.get(name) for name in ("exp", "nbf", "iat"))
    if isinstance(exp, int | float) and exp + LEEWAY_S <= now_s:
        return f"has expired ({_moment(exp)})"
    for name, moment in (("nbf", nbf), ("iat", iat)):
        if isinstance(moment, int | float) and moment - LEEWAY_S > now_s:
            return f"is not valid yet ({name} is {_moment(moment)})"
    return ""


def _moment(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return str(seconds)[:40]


def _of_another_door(target: Target, claims: Mapping[str, Any]) -> str:
    for name in ("exp", "sub", "role"):
        if name not in claims:
            return f"has no claim {name}"
    for name, wanted, variable in (
        ("aud", target.jwt_audience, "REPLAY_JWT_AUDIENCE"),
        ("iss", target.jwt_issuer, "REPLAY_JWT_ISSUER"),
    ):
        said = claims.get(name)
        if wanted and wanted not in (said if isinstance(said, list) else [said]):
            return f"has the {name} {str(said)[:80]!r}; allowed: {wanted!r} ({variable})"
    return ""


def of_another_secret(target: Target) -> str:
    """What may be wrong with a refused ADMIN_JWT beyond its claims: it should be HS256 with REPLAY_JWT_SECRET."""
    unsigned, _, signature = target.admin_jwt.rpartition(".")
    try:
        algorithm = json.loads(base64.urlsafe_b64decode(unsigned.partition(".")[0] + "=="))["alg"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "its header cannot be read."
    if algorithm != "HS256":
        return f"it is signed with {str(algorithm)[:20]!r}; allowed: HS256."
    if not target.jwt_secret:
        return ""
    mac = encode_segment(hmac.new(target.jwt_secret.encode(), unsigned.encode(), hashlib.sha256).digest())
    return "" if mac == signature else "it was not signed with REPLAY_JWT_SECRET."


class CheckedTarget(Target):
    """A target without its refused credentials: reading one raises an error that blocks the check."""

    __slots__ = ("_refused", "_told")
    _refused: Mapping[str, Exception]
    _told: Target

    @classmethod
    def of(cls, target: Target, refused: Mapping[str, Exception]) -> CheckedTarget:
        """refused: name of the field (`hmac_secrets`, `admin_jwt`, `jwt_secret`) -> the exception."""
        made = cls(**{f.name: getattr(target, f.name) for f in fields(Target)})
        object.__setattr__(made, "_told", target)
        object.__setattr__(made, "_refused", refused)
        return made

    def __getattribute__(self, name: str) -> Any:
        if name in REFUSABLE and (refused := self._refused.get(name)):
            raise refused.with_traceback(None)
        return object.__getattribute__(self, name)

    @property
    def told(self) -> Target:
        return self._told
