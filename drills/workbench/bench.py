"""What the HTTP checks work with: the target's clock, tokens good and bad, other source addresses, and the bench.

The bench tells authentication from everything after it without a tenant and without a limited call: a replay request
for a company that does not exist is refused by authorisation (403 `forbidden`) once its credentials are accepted,
and by authentication (401) where they are not. Neither counts against anyone's rate limit; neither can have an effect.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Self

import psycopg

from gates.checks.recorder import Observer, Unmet
from gates.deployment.client import HttpDoor, NoAnswer
from gates.deployment.credentials import good_claims
from gates.deployment.database import Connection, connect
from gates.deployment.requests import (
    SIGNATURE,
    Answer,
    Request,
    encode_body,
    is_of_another_company,
    mint_token,
    post,
    replay_fields,
    sign_v1,
    sign_v2,
    signed_post,
    signed_post_v2,
    token_post,
)
from gates.deployment.target import Target

REPLAY = "/dlq-replay"
BUSY = (429, 502, 503, 504)
"""Answers that, where another one was due, prove nothing about the target."""

ASKED_AT_MOST = 3
OLDEST_SIGNATURE_S = 200
SKEW_LIMIT_S = 2.0
"""A difference between the clocks under this is taken for the rounding of the Date header and the way of the answer."""


class Missing:
    """Stands for a claim that is left out."""


MISSING = Missing()


@dataclass(frozen=True)
class Clock:
    """The target's clock: ours plus an offset in seconds."""

    ours: Callable[[], float]
    offset_s: float = 0.0

    @classmethod
    def measure(cls, http: HttpDoor, ours: Callable[[], float]) -> Clock:
        """Compare the Date header of one answer with our clock; no header, or a small difference, is no offset."""
        try:
            shown = parsedate_to_datetime(http.send(Request("GET", "/healthz")).header("date") or "")
        except (NoAnswer, ValueError, TypeError):
            return cls(ours)
        offset = shown.timestamp() + 0.5 - ours()
        return cls(ours, offset if abs(offset) > SKEW_LIMIT_S else 0.0)

    def now(self) -> int:
        """Unix seconds."""
        return int(self.ours() + self.offset_s)


@dataclass(frozen=True)
class Signer:
    """Signs as the target wants it: v1, or v2 where the flag `security.signing_v2_required` refuses v1.

    By v2 the same body is never signed twice at the same second: without a key it would be called a duplicate.
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
        for _ in range(ASKED_AT_MOST):
            statuses = [self._asked(form) for form in (self.v1, self.v2)]
            if not set(statuses) & {0, *BUSY}:
                return statuses == [401, 403]
        return False

    def _asked(self, form: Callable[[str, bytes], Request]) -> int:
        """The status of a replay for a company that does not exist; 0 for no answer."""
        try:
            return self.http.send(form(REPLAY, encode_body(replay_fields(str(uuid.uuid4()))))).status
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
        at = earliest - 1 if now - earliest < OLDEST_SIGNATURE_S else now
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


@dataclass
class Sources:
    """HTTP doors by local address, opened on demand."""

    base_url: str
    doors: dict[str, HttpDoor] = field(default_factory=dict)

    def door(self, address: str) -> HttpDoor:
        """The door from a loopback address. Raise Unmet where requests from there do not reach the target."""
        if address not in self.doors:
            door = HttpDoor(self.base_url, source=address)
            try:
                door.send(Request("GET", "/healthz"))
            except NoAnswer as none:
                door.close()
                raise Unmet(f"requests from {address} do not reach the target: {none}") from none
            self.doors[address] = door
        return self.doors[address]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for door in self.doors.values():
            door.close()


class SqlDoor:
    """The session's SQL connection, opened again if a check lost it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection | None = None

    def connection(self) -> Connection:
        if self._connection is None or self._connection.closed or self._connection.broken:
            try:
                self._connection = connect(self._url)
            except psycopg.OperationalError as error:
                raise Unmet(f"the database does not answer: {error}") from error
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


@dataclass
class Guard:
    """Whether the target refuses requests without credentials; asked once a session."""

    answer: bool | None = None

    def closed(self, http: HttpDoor) -> bool:
        """Ask, for a company that does not exist."""
        if self.answer is None:
            bare = post(REPLAY, encode_body(replay_fields(str(uuid.uuid4()))))
            status = http.send(bare).status
            if status in BUSY:
                return False
            self.answer = status == 401
        return self.answer


@dataclass
class Bench:
    """Requests for a company that does not exist, and what their answers say."""

    http: HttpDoor
    target: Target
    seen: Observer
    clock: Clock
    signer: Signer
    guard: Guard
    company: str = field(default_factory=lambda: str(uuid.uuid4()))

    def body(self, **fields: Any) -> bytes:
        """A valid replay body for a company that does not exist."""
        return encode_body(replay_fields(self.company, **{"max": 10, **fields}))

    def signed(self, body: bytes | None = None, label: str = "correctly signed") -> Request:
        """A correct signature over these bytes (v1, unless the target takes v2 only)."""
        return self.signer.post(REPLAY, self.body() if body is None else body, label)

    def signed_v2(self, body: bytes | None = None, *, age_s: int = 0, label: str = "correctly signed (v2)") -> Request:
        """A correct v2 signature over these bytes, of that age."""
        chosen = self.body() if body is None else body
        return signed_post_v2(REPLAY, chosen, self.signer.secret, self.clock.now() - age_s, label)

    def with_signature(self, signature: str, body: bytes | None = None, label: str = "") -> Request:
        """A valid body with this signature header."""
        return post(REPLAY, self.body() if body is None else body, (SIGNATURE, signature), label=label)

    def with_token(self, token: str, body: bytes | None = None, label: str = "") -> Request:
        """A valid body with this bearer token."""
        return token_post(REPLAY, self.body() if body is None else body, token, label)

    def mac(self, body: bytes) -> str:
        """The right v1 signature of these bytes."""
        return sign_v1(self.signer.secret, body)

    def signature(self, secret: str, body: bytes) -> str:
        """The signature of these bytes by this secret, in the form that the target takes."""
        return sign_v2(secret, body, self.clock.now()) if self.signer.v2_only else sign_v1(secret, body)

    def admin(self, company: str = "") -> str:
        """The admin token of the target, good for the company; without one the check is unknown."""
        return admin_token(self.target, self.clock.now, company)

    def opens(self, request: Request) -> Answer:
        """The control: these credentials are accepted, so that authorisation refuses the unknown company."""
        return self.seen.expect(request, self.http.send(request), 403, "forbidden", control=True)

    def guarded(self) -> None:
        """End the check as unknown where requests without credentials are not refused."""
        self.seen.require(self.guard.closed(self.http), "an unsigned request is not refused: acceptance proves nothing")

    def accepted(self, request: Request, answer: Answer | None = None) -> Answer:
        """The claim: these credentials are accepted, so that authorisation refuses the unknown company.

        It proves something only where other credentials are not; elsewhere the check is unknown.
        """
        found = self.seen.expect(request, answer or self.http.send(request), 403, "forbidden")
        self.guarded()
        return found

    def shut(self, request: Request, answer: Answer | None = None) -> Answer:
        """The claim: these credentials are refused."""
        return self.seen.expect(request, answer or self.http.send(request), 401)

    @staticmethod
    def said(answer: Answer) -> bytes:
        """The body of an answer without the id of its request."""
        mark = answer.header("x-request-id")
        return answer.body.replace(mark.encode(), b"<id>") if mark else answer.body

    def one_body(self, bodies: Mapping[str, bytes]) -> None:
        """The claim: these refusals say the same."""
        different = set(bodies.values())
        self.seen.value(len(different), 1, "different bodies")
        if len(different) > 1:
            self.seen.witness = {k: v.decode("utf-8", "replace") for k, v in bodies.items()}
        assert len(different) == 1, f"{len(different)} different bodies of 401; allowed: 1"

    def refused(self, request: Request, status: int | tuple[int, ...], code: str | None = None) -> Answer:
        """The claim: this request is refused with this status."""
        answer = self.seen.expect(request, self.http.send(request), status, code)
        if answer.status == 403:
            self.guarded()
        return answer
