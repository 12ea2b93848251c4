"""Good and bad credentials: v1 and v2 signatures, tokens with any claims."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gates.checks.recorder import Unmet
from gates.deployment.credentials import good_claims
from gates.deployment.dialect.current import current
from gates.deployment.dialect.exchange import real_path
from gates.deployment.http import probes
from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.http.clock import Clock
from gates.deployment.requests import BUSY, Request, is_of_another_company, mint_token, signed_post, signed_post_v2
from gates.deployment.target import Target

REPLAY = "/dlq-replay"

ASKED_AT_MOST = 3


def spellings(path: str) -> list[str]:
    """Other spellings of the real path of an endpoint."""
    real, health = real_path(path), real_path("/healthz")
    spelled = [
        *(f"{before}{real}" for before in ("/", "/.", "/x/..", "/%2e", f"{health}/..", f"{health};")),
        *(f"{real}{after}" for after in ("/", "//", ";x=1", "%00", "/.", "?x=1")),
        real.title(),
        real.replace("-", "%2d"),
    ]
    return [one for one in spelled if one != real]


class Missing:
    """Stands for a claim that is left out."""

    def __repr__(self) -> str:
        return "left out"


MISSING = Missing()


@dataclass(frozen=True)
class Signer:
    """Signs as the target wants it: v1, or v2 where the flag `security.signing_v2_required` refuses v1.

    With v2 a body is never signed twice in one second: without a key the second request would be a duplicate.
    """

    target: Target
    http: HttpDoor
    clock: Clock
    signed_at: dict[tuple[str, bytes], int] = field(default_factory=dict, compare=False)
    """The earliest second at which each body was signed by v2; the next one is signed a second before."""

    @property
    def secret(self) -> str:
        """The secret that signs. Raise Unmet where there is none, or where the target refuses it."""
        if not self.target.hmac_secret:
            raise Unmet("TRANSBOT_HMAC_SECRET is not set: nothing can be signed. Set it to the secret of the service")
        return self.target.hmac_secret

    @cached_property
    def v2_only(self) -> bool:
        """Ask for a company that does not exist: v1 is refused and v2 accepted, or v1 is taken to be the form.

        A target that is too busy to say is asked again: the wrong form would look like a target that locks us out.
        """
        if "signature without a time" in current().lacking:
            return True
        for _ in range(ASKED_AT_MOST):
            statuses = [self._asked(form) for form in (self.v1, self.v2)]
            if not set(statuses) & {0, *BUSY}:
                return statuses[0] == 401 and statuses[1] != 401 and statuses[1] < 500
        return False

    def _asked(self, form: Callable[[str, bytes], Request]) -> int:
        """The status of a replay for a company that does not exist; 0 for no answer."""
        try:
            return self.http.send(form(REPLAY, probes.for_nobody())).status
        except NoAnswer:
            return 0

    def post(self, path: str, body: bytes, label: str = "") -> Request:
        """A correctly signed POST of these bytes."""
        return self.v2(path, body, label) if self.v2_only else self.v1(path, body, label)

    def v1(self, path: str, body: bytes, label: str = "") -> Request:
        return signed_post(path, body, self.secret, label)

    def v2(self, path: str, body: bytes, label: str = "") -> Request:
        now = self.clock.now()
        earliest = self.signed_at.get((path, body), now + 1)
        at = earliest - 1 if now - earliest < current().limit("signature_age_s") * 2 // 3 else now
        self.signed_at[path, body] = at
        return signed_post_v2(path, body, self.secret, at, label)


@dataclass(frozen=True)
class Minter:
    """Builds tokens; call it for a good one, or with claims replaced (MISSING leaves one out)."""

    target: Target
    now: Callable[[], int]

    def claims(self, **claims: Any) -> dict[str, Any]:
        """The claims of a good super_admin token, with some replaced or left out."""
        good = {**good_claims(self.target, self.now()), "jti": uuid.uuid4().hex}
        return {k: v for k, v in {**good, **claims}.items() if v is not MISSING}

    def __call__(
        self,
        *,
        secret: str | None = None,
        header: Mapping[str, Any] | None = None,
        digest: str = "sha256",
        **claims: Any,
    ) -> str:
        """A token of these claims, signed by the service's secret (or another) with HS256 (or another digest)."""
        return mint_token(self.target.jwt_secret if secret is None else secret, self.claims(**claims), header, digest)

    def for_company(self, company: object, **claims: Any) -> str:
        """A company_admin token with this company claim."""
        return self(role="company_admin", company_id=company, **claims)


def admin_token(target: Target, now: Callable[[], int], company: str = "") -> str:
    """ADMIN_JWT; for a company which it may not act for, since it is of an administrator of another one, a token of
    that company's administrator. Raise Unmet where there is neither.
    """
    if not target.admin_jwt:
        raise Unmet("ADMIN_JWT is not set. Set it to a valid admin token")
    if not company or not is_of_another_company(target.admin_jwt, company):
        return target.admin_jwt
    if not target.jwt_secret:
        raise Unmet("ADMIN_JWT may act for its own company only. Set it to a super_admin's, or set REPLAY_JWT_SECRET")
    return Minter(target, now).for_company(company)
