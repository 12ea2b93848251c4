"""Step 2: who is calling, decided on raw bytes before anything is parsed."""

from replay_service.exchange import Caller, RawHeaders, header_values
from replay_service.parts import Parts
from replay_service.problems import Refusal, unauthenticated
from replay_service.tokens import Claims

SIGNATURE_HEADER = b"x-transbot-signature"
TOKEN_HEADER = b"authorization"


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


def forbidden() -> Refusal:
    """The one 403 of step 4: an unknown company is refused exactly like a foreign one."""
    return Refusal("forbidden", "These credentials do not allow this for this company.")
