"""The replaceable parts of the service, each with its signature."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.types import ASGIApp, Receive

from replay_service.audit import AuditRow, RefusalLog
from replay_service.claim import Selection
from replay_service.client_ip import Network
from replay_service.database import Connection, Database
from replay_service.exchange import Call, Caller, RawHeaders, Reply
from replay_service.gauges import Gauges
from replay_service.idempotency import Outcome, Run
from replay_service.metrics import Metrics
from replay_service.settings import Settings, TokenRules
from replay_service.signatures import Signature
from replay_service.tenants import ReplayFlags
from replay_service.tokens import Claims
from replay_service.validation import EventRequest, ReplayRequest


class Authenticate(Protocol):
    """(parts, headers, signed bytes) -> caller; Refusal `unauthenticated`."""

    async def __call__(
        self, parts: Parts, headers: RawHeaders, message: bytes, *, accepts_v1: bool = True
    ) -> Caller: ...


class Transaction(Protocol):
    """A transaction on the connection; with `keep=False` it is rolled back at its end."""

    def __call__(self, conn: Connection, *, keep: bool = True) -> AbstractAsyncContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """The replaceable parts. A function that takes a connection runs in that connection's transaction."""

    settings: Settings
    database: Database
    metrics: Metrics
    gauges: Gauges
    instance: str
    expected_migrations: tuple[str, int]
    clock: Callable[[], float]
    new_id: Callable[[], str]

    # the two endpoints that change something
    replay: Callable[[Parts, Call], Awaitable[Reply]]
    accept_event: Callable[[Parts, Call], Awaitable[Reply]]
    # the two that only read: signed is the path as it was sent, from /dlq-replay/ or /events/ on
    read_run: Callable[[Parts, Call, bytes, str], Awaitable[Reply]]
    read_event_state: Callable[[Parts, Call, bytes, str], Awaitable[Reply]]
    # what the deployment says about itself
    readiness: Callable[[Parts], Awaitable[Mapping[str, bool]]]
    version: Callable[[Parts], Awaitable[Mapping[str, Any]]]
    # step 1
    read_body: Callable[[RawHeaders, Receive, float], Awaitable[bytes]]
    # around everything: the application -> the application that is served
    wrap: Callable[[ASGIApp], ASGIApp]

    # step 2
    authenticate: Authenticate
    signature_check: Callable[[bytes, bytes, tuple[bytes, ...], float], Signature | None]
    token_check: Callable[[bytes, TokenRules, float], Claims | None]
    signing_v2_required: Callable[[Connection], Awaitable[bool]]
    # step 3
    read_replay: Callable[[bytes], ReplayRequest]
    read_event: Callable[[bytes], EventRequest]
    # step 4
    is_authorised: Callable[[Connection, Caller, str], Awaitable[bool]]
    # step 5
    client_ip: Callable[[str | None, Sequence[bytes], Sequence[Network]], str]
    admit: Callable[[Connection, str, str], Awaitable[None]]
    # step 6
    read_flags: Callable[[Connection, str], Awaitable[ReplayFlags]]
    # step 7
    begin_run: Callable[[Connection, ReplayRequest, Run], Awaitable[Mapping[str, Any] | None]]
    finish_run: Callable[[Connection, Run, Outcome], Awaitable[None]]
    # step 8
    is_paused: Callable[[Connection, str], Awaitable[bool]]
    # step 9
    reserve_budget: Callable[[Connection, str], Awaitable[int]]
    preview_budget: Callable[[Connection, str], Awaitable[int]]
    charge: Callable[[Connection, str, int], Awaitable[None]]
    # the effect
    transaction: Transaction
    pick: Callable[[Connection, ReplayRequest, int], Awaitable[tuple[str, ...]]]
    describe: Callable[[Connection, ReplayRequest, Sequence[str], int], Awaitable[Selection]]
    move: Callable[[Connection, str, Sequence[str]], Awaitable[None]]
    append_audit: Callable[[Connection, AuditRow], Awaitable[None]]
    refusals: RefusalLog
    # events
    emit: Callable[[Connection, EventRequest, str], Awaitable[tuple[str, bool]]]
    obey_drill: Callable[[Connection, EventRequest], Awaitable[int]]
