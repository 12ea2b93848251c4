"""Step 2: who is calling, decided on raw bytes before anything is parsed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replay_service.problems import Refusal, unauthenticated
from replay_service.signatures import Signature
from replay_service.tokens import Claims

if TYPE_CHECKING:
    from replay_service.parts import Parts

SIGNATURE_HEADER = b"x-transbot-signature"
TOKEN_HEADER = b"authorization"
ROLES = frozenset({"super_admin", "company_admin"})

RawHeaders = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller: by signature, by token, or by both, when the token's rights apply."""

    signature: Signature | None
    claims: Claims | None

    @property
    def actor(self) -> str:
        """The name in the audit: it comes from what was verified, never from a field of the request."""
        return f"jwt:{self.claims.subject}" if self.claims else "signature"

    @property
    def has_role(self) -> bool:
        return self.claims is None or self.claims.role in ROLES

    def may_act_for(self, company_id: str) -> bool:
        if self.claims is None or self.claims.role == "super_admin":
            return True
        return self.claims.role == "company_admin" and self.claims.company_id == company_id

    @property
    def scope(self) -> str:
        """The audit scope of what is refused to this caller: its own company, else `all`."""
        own = self.claims.company_id if self.claims and self.claims.role != "super_admin" else None
        return own or "all"


def header_values(headers: RawHeaders, name: bytes) -> list[bytes]:
    """Every value of a header, in the order sent; `name` in lower case."""
    return [value for key, value in headers if key == name]


async def authenticate(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
    """The caller, or Refusal `unauthenticated`. If both kinds are sent, both must be valid."""
    signatures = header_values(headers, SIGNATURE_HEADER)
    tokens = header_values(headers, TOKEN_HEADER)
    if len(signatures) > 1 or len(tokens) > 1 or not (signatures or tokens):
        raise unauthenticated()
    now_s = parts.clock()
    claims = _claims(parts, tokens[0], now_s) if tokens else None
    signature = None
    if signatures:
        signature = parts.signature_check(signatures[0], message, parts.settings.hmac_secrets, now_s)
        if signature is None or (signature.version == 1 and not (accepts_v1 and await _v1_is_allowed(parts))):
            raise unauthenticated()
    return Caller(signature, claims)


def _claims(parts: Parts, header: bytes, now_s: float) -> Claims:
    scheme, _, token = header.partition(b" ")
    found = parts.token_check(token, parts.settings.tokens, now_s) if scheme.lower() == b"bearer" else None
    if found is None:
        raise unauthenticated()
    return found


async def _v1_is_allowed(parts: Parts) -> bool:
    async with parts.database.connection() as conn:
        return not await parts.signing_v2_required(conn)


def forbidden(detail: str = "These credentials do not allow this for this company.") -> Refusal:
    """The one 403 of step 4: an unknown company is refused exactly like a foreign one."""
    return Refusal("forbidden", detail)
