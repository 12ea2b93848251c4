"""Refusals and their RFC 9457 problem bodies with a stable `code`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.responses import Response

PROBLEM_TYPE = "application/problem+json"

TITLES: Mapping[str, tuple[int, str]] = {
    "malformed_request": (400, "The bytes are no HTTP request"),
    "invalid_request": (400, "The request is not valid"),
    "batch_too_large": (400, "The batch is too large"),
    "unauthenticated": (401, "Valid credentials are required"),
    "forbidden": (403, "The credentials do not allow this"),
    "feature_disabled": (403, "The feature is switched off for this company"),
    "not_found": (404, "There is nothing here"),
    "method_not_allowed": (405, "The method is not allowed here"),
    "request_timeout": (408, "The body did not arrive in time"),
    "in_progress": (409, "A request with this idempotency key is still running"),
    "agents_paused": (409, "The agents of this company are paused"),
    "body_too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The body must be plain application/json in UTF-8"),
    "idempotency_key_reused": (422, "The idempotency key was used with another request"),
    "event_id_reused": (409, "The event id was used for another event"),
    "rate_limited": (429, "Too many requests"),
    "budget_exhausted": (429, "The replay budget is used up"),
    "internal_error": (500, "The service failed"),
    "unavailable": (503, "The service cannot answer now"),
}
"""code -> (status, title). Codes are promised to clients; titles are for people."""

RETRY_LATER_S = 1


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field; `field` is empty where the whole body is meant."""

    field: str
    message: str


class Refusal(Exception):  # noqa: N818 - a refusal is an answer of the protocol, not an error of the program
    """The request is refused with `code`; `members` are added to the problem body."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
        closes: bool = False,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = dict(members or {})
        if closes:
            self.headers["connection"] = "close"

    @property
    def status(self) -> int:
        return TITLES[self.code][0]


@dataclass(frozen=True, slots=True)
class Invalid:
    """The findings of strict validation, in the order of the fields."""

    errors: tuple[FieldError, ...] = field(default=())

    def refusal(self) -> Refusal:
        listed = [{"field": e.field, "message": e.message} for e in self.errors]
        return Refusal("invalid_request", "See errors.", members={"errors": listed})


def invalid(field_name: str, message: str) -> Refusal:
    """The 400 `invalid_request` with a single error."""
    return Invalid((FieldError(field_name, message),)).refusal()


def unauthenticated() -> Refusal:
    """The one 401: the same bytes whatever was wrong with the credentials."""
    return Refusal(
        "unauthenticated",
        "Send a valid X-Transbot-Signature or Authorization: Bearer token.",
        headers={"www-authenticate": "Bearer"},
    )


def unavailable() -> Refusal:
    """The 503 where the database cannot be asked: nothing was done."""
    return Refusal(
        "unavailable",
        "The database cannot be reached; nothing was changed. Try again.",
        headers={"retry-after": str(RETRY_LATER_S)},
    )


def problem_body(code: str, detail: str, members: Mapping[str, Any] | None = None) -> bytes:
    status, title = TITLES[code]
    return msgspec.json.encode(
        {"type": f"urn:dlq-replay:problem:{code}", "title": title, "status": status, "detail": detail, "code": code}
        | dict(members or {})
    )


def problem_response(refusal: Refusal) -> Response:
    return Response(
        problem_body(refusal.code, refusal.detail, refusal.members),
        status_code=refusal.status,
        headers=refusal.headers,
        media_type=PROBLEM_TYPE,
    )
