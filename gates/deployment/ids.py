"""Ids that the gate makes itself, of the types that the deployment has (`names.ids`).

Numbers lie far above what a deployment counts to and below what JSON holds exactly. All have the same number of digits,
so they sort like their texts.
"""

import hashlib
import re
import secrets
import uuid
from typing import Any

from gates.deployment.dialect.current import current
from gates.text.foreign import JsonValue, json_object

_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_OF_THE_CALLER = "idempotency_key"
"""A member that is compared letter by letter, whatever it looks like."""

_RANGES = {"bigint": (2**50, 2**52), "integer": (1_500_000_000, 500_000_000)}
"""Type -> the first number, and how many there are."""


def new_id(kind: str, version: int = 4) -> str:
    """A new id of a kind (company, event, run, item); `version` is that of a UUID."""
    return _of_bytes(kind, secrets.token_bytes(16), version)


def alike_ids(kind: str) -> tuple[str, str]:
    """Two new ids of a kind that differ in the last digit (numbers: by one), for code that compares only prefixes."""
    raw = secrets.token_bytes(16)
    return _of_bytes(kind, raw), _of_bytes(kind, bytes([*raw[:-1], raw[-1] ^ 1]))


def id_of(name: str) -> str:
    """The id of a company, derived from its name: nobody has such a pair by chance."""
    return _of_bytes("company", hashlib.sha256(f"replaygate {name}".encode()).digest()[:16])


def ids_have_spellings() -> bool:
    """Whether one id of a company has several spellings, as a UUID has. With texts, another spelling is another id."""
    return current().id_type("company") != "text"


def answered(body: bytes) -> dict[str, Any]:
    """The JSON object in an answer, else empty. Its UUIDs are in lower case, since case does not matter."""
    found = json_object(body)
    return found if "text" in current().ids.values() else {k: _spelled(k, v) for k, v in found.items()}


def _spelled(name: str, value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return value.lower() if name != _OF_THE_CALLER and _UUID.fullmatch(value) else value
    if isinstance(value, list):
        return [_spelled(name, one) for one in value]
    return {k: _spelled(k, v) for k, v in value.items()} if isinstance(value, dict) else value


def _of_bytes(kind: str, raw: bytes, version: int = 4) -> str:
    base, count = _RANGES.get(current().id_type(kind), (0, 0))
    if count:
        return str(base + int.from_bytes(raw) % count)
    marked = bytes([*raw[:6], raw[6] & 15 | version << 4, raw[7], raw[8] & 63 | 128, *raw[9:]])
    return current().formed(kind, uuid.UUID(bytes=marked))
