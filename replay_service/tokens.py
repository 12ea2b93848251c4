"""The token check: a strict reading of HS256 tokens (contract, section 2; RFC 7519, RFC 8725). Pure.

PyJWT checks the signature under a fixed allow-list; header and claims are read here, because a token with
duplicate keys, a boolean `exp` or a critical extension must be refused, not interpreted.
"""

import base64
import binascii
import math
import re
from dataclasses import dataclass
from typing import Any

import jwt

from replay_service.settings import TokenRules
from replay_service.strict_json import JsonRefused, parse
from replay_service.validation import as_uuid

LEEWAY_S = 30
MAX_TOKEN_BYTES = 8192
MAX_SUBJECT = 255
FURTHEST_EXP_S = 2**53
"""Beyond the exact integers of a double another reader may see another moment."""

_PARTS = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_FORBIDDEN_HEADERS = frozenset({"crit", "zip", "enc", "b64", "cty"})
_JWS = jwt.PyJWS(algorithms=["HS256"])


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a valid token. `company_id` is None where the claim is missing or no UUID."""

    subject: str
    role: str
    company_id: str | None


def check_token(token: bytes, rules: TokenRules, now_s: float) -> Claims | None:
    """The claims if the token is valid, else None. Never raises for a hostile token."""
    if len(token) > MAX_TOKEN_BYTES:
        return None
    parts = _PARTS.fullmatch(token)
    if parts is None or _decode(parts[3]) is None or not _header_is_fine(_segment(parts[1])):
        return None
    try:
        _JWS.decode(token, rules.secret, algorithms=["HS256"])
    except (jwt.PyJWTError, ValueError):
        return None
    claims = _segment(parts[2])
    if claims is None or not _times_are_fine(claims, now_s) or not _is_for_us(claims, rules):
        return None
    subject, role = claims.get("sub"), claims.get("role")
    if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_SUBJECT or not isinstance(role, str):
        return None
    return Claims(subject, role, as_uuid(claims.get("company_id")))


def _segment(encoded: bytes) -> dict[str, Any] | None:
    raw = _decode(encoded)
    try:
        value = None if raw is None else parse(raw)
    except JsonRefused:
        return None
    return value if isinstance(value, dict) else None


def _decode(encoded: bytes) -> bytes | None:
    """The bytes of a base64url segment in its one canonical spelling: two tokens must not mean the same."""
    try:
        raw = base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
    except binascii.Error:
        return None
    return raw if base64.urlsafe_b64encode(raw).rstrip(b"=") == encoded else None


def _header_is_fine(header: dict[str, Any] | None) -> bool:
    if header is None or header.get("alg") != "HS256" or not _FORBIDDEN_HEADERS.isdisjoint(header):
        return False
    kind = header.get("typ", "JWT")
    return isinstance(kind, str) and kind.lower() in _TYPES


def _times_are_fine(claims: dict[str, Any], now_s: float) -> bool:
    exp = claims.get("exp")
    if type(exp) is not int or not 0 < exp <= FURTHEST_EXP_S or exp + LEEWAY_S <= now_s:
        return False
    return all(_not_after(claims[name], now_s + LEEWAY_S) for name in ("nbf", "iat") if name in claims)


def _not_after(value: object, limit_s: float) -> bool:
    """Whether the value is a NumericDate (RFC 7519: fractions are allowed) that is not later than the limit."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value <= limit_s


def _is_for_us(claims: dict[str, Any], rules: TokenRules) -> bool:
    if rules.issuer and claims.get("iss") != rules.issuer:
        return False
    if not rules.audience:
        return True
    audience = claims.get("aud")
    wanted = [audience] if isinstance(audience, str) else audience
    return isinstance(wanted, list) and all(isinstance(a, str) for a in wanted) and rules.audience in wanted
