"""Twins of the readers of a request: what a lenient service makes of a body, a header or a token."""

import dataclasses
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from replay_service.authentication import authenticate
from replay_service.composition import build_parts
from replay_service.exchange import Caller, RawHeaders
from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.validation import ReplayRequest, read_replay

Json = dict[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]

REQUEST: ContextVar[ReplayRequest | None] = ContextVar("REQUEST", default=None)
"""The replay request of this task, for twins of parts that are not given it."""


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


def wrapped(settings: Settings, wrap: Callable[[App], App]) -> Parts:
    """The service with something around the whole application."""
    return dataclasses.replace(build_parts(settings), wrap=wrap)
