"""What is passed from step to step: the call with its headers, the caller, the reply."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from replay_service.signatures import Signature
from replay_service.tokens import Claims

ROLES = frozenset({"super_admin", "company_admin"})

RawHeaders = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller: by signature, by token, or by both, when the token's rights apply."""

    signature: Signature | None
    claims: Claims | None

    @property
    def actor(self) -> str:
        """The actor of audit rows: from the verified credentials, never from a field of the request."""
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


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request as the steps see it: raw headers, raw body, client address, request id."""

    headers: RawHeaders
    body: bytes
    client: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer. `outcome` is for the metrics, `items` the number of dead letters moved."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    outcome: str = "ok"
    items: int = 0
