"""Twins of the readers of a request: what a lenient service makes of a body, a header or a token."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

from replay_service.authentication import authenticate
from replay_service.composition import build_parts
from replay_service.exchange import Caller, RawHeaders
from replay_service.parts import Parts
from replay_service.settings import Settings, TokenRules
from replay_service.strict_json import parse
from replay_service.tokens import Claims, check_token
from replay_service.validation import ReplayRequest, read_replay

Json = dict[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]

REQUEST: ContextVar[ReplayRequest | None] = ContextVar("REQUEST", default=None)
"""The replay request of this task, for twins of parts that are not given it."""


def reading(settings: Settings, change: Callable[[Json], Json], parser: Callable[[bytes], Any] = parse) -> Parts:
    """The service that changes a replay body before it is validated; `parser` reads it."""

    def read(raw: bytes) -> ReplayRequest:
        try:
            body = parser(raw)
        except (ValueError, RecursionError):
            return read_replay(raw)
        return read_replay(json.dumps(change(dict(body))).encode()) if isinstance(body, dict) else read_replay(raw)

    return dataclasses.replace(build_parts(settings), read_replay=read)


def requesting(settings: Settings, change: Callable[[ReplayRequest], ReplayRequest]) -> Parts:
    """The service that changes a replay request after its validation."""
    return dataclasses.replace(build_parts(settings), read_replay=lambda raw: change(read_replay(raw)))


def remembering(settings: Settings) -> Parts:
    """The release's service, whose parts can ask REQUEST."""

    def read(raw: bytes) -> ReplayRequest:
        request = read_replay(raw)
        REQUEST.set(request)
        return request

    return dataclasses.replace(build_parts(settings), read_replay=read)


def is_forced() -> bool:
    """Whether the request of this task has `force`."""
    request = REQUEST.get()
    return request is not None and request.force


def is_dry() -> bool:
    """Whether the request of this task is a dry run."""
    request = REQUEST.get()
    return request is not None and request.dry_run


def calling(settings: Settings, change: Callable[[Caller], Caller]) -> Parts:
    """The service that changes a caller after its authentication."""

    async def twin(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
        return change(await authenticate(parts, headers, message, accepts_v1=accepts_v1))

    return dataclasses.replace(build_parts(settings), authenticate=twin)


def hearing(settings: Settings, change: Callable[[RawHeaders], RawHeaders]) -> Parts:
    """The service that changes the headers before its authentication."""

    async def twin(parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True) -> Caller:
        return await authenticate(parts, change(headers), message, accepts_v1=accepts_v1)

    return dataclasses.replace(build_parts(settings), authenticate=twin)


def trusting(
    settings: Settings,
    claims: Callable[[Json, float], Json] = lambda found, _now: found,
    genuine: Callable[[bytes, Json, bytes], bool] | None = None,
    *,
    any_alg: bool = False,
) -> Parts:
    """The service with a lenient token check.

    A token that is `genuine` (text before the signature, header, key; by default a proper HS256 MAC) is signed anew
    with what `claims` makes of its claims, and then judged by the strict check.
    """

    def check(token: bytes, rules: TokenRules, now_s: float) -> Claims | None:
        try:
            head, body, mac = token.split(b".")
            header, found = json.loads(_decode(head)), json.loads(_decode(body))
        except (ValueError, RecursionError):
            return check_token(token, rules, now_s)
        is_hs256 = any_alg or (isinstance(header, dict) and header.get("alg") == "HS256")
        is_signed = is_hs256 and hmac.compare_digest(_decode(mac), _mac(head + b"." + body, rules.secret))
        is_forged = not is_signed and genuine is not None and genuine(mac, header, head + b"." + body)
        if not isinstance(found, dict) or not (is_signed or is_forged):
            return check_token(token, rules, now_s)
        first = _encode({"alg": "HS256", "typ": "JWT"}) if is_forged or any_alg else head
        text = first + b"." + _encode(claims(found, now_s))
        signed = text + b"." + base64.urlsafe_b64encode(_mac(text, rules.secret)).rstrip(b"=")
        return check_token(signed, rules, now_s)

    return dataclasses.replace(build_parts(settings), token_check=check)


def wrapped(settings: Settings, wrap: Callable[[App], App]) -> Parts:
    """The service with something around the whole application."""
    return dataclasses.replace(build_parts(settings), wrap=wrap)


def without(found: Mapping[str, Any], *names: str) -> Json:
    """The mapping without some members."""
    return {name: value for name, value in found.items() if name not in names}


def _decode(part: bytes) -> bytes:
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def _encode(value: Json) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def _mac(text: bytes, secret: bytes) -> bytes:
    return hmac.new(secret, text, hashlib.sha256).digest()
