"""The signature check: HMAC-SHA256 over raw bytes, v1 and v2 (contract, section 2). Pure."""

import hashlib
import hmac
import re
from dataclasses import dataclass

TOLERANCE_S = 300
_V1 = re.compile(rb"[0-9a-f]{64}")
_V2 = re.compile(rb"t=(0|[1-9][0-9]{0,11}),v2=([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Signature:
    """A valid signature: its version, and the hex MAC that a v2 re-send is recognised by."""

    version: int
    mac: str


def check_signature(header: bytes, message: bytes, secrets: tuple[bytes, ...], now_s: float) -> Signature | None:
    """The signature if it is valid for `message` under any of the secrets, else None. Comparison is constant-time."""
    if _V1.fullmatch(header):
        return Signature(1, header.decode()) if _matches(header, message, secrets) else None
    v2 = _V2.fullmatch(header)
    if v2 is None:
        return None
    sent_at, mac = v2.groups()
    genuine = _matches(mac, sent_at + b"." + message, secrets)
    if not genuine or abs(now_s - int(sent_at)) > TOLERANCE_S:
        return None
    return Signature(2, mac.decode())


def _matches(mac: bytes, message: bytes, secrets: tuple[bytes, ...]) -> bool:
    """Whether any secret gives this MAC; all are tried, so that the time does not reveal which."""
    found = False
    for secret in secrets:
        wanted = hmac.new(secret, message, hashlib.sha256).hexdigest().encode()
        found |= hmac.compare_digest(wanted, mac)
    return found
