"""The composition: every part of the service by name, put together in one place.

A release runs what `build_parts` returns. `serve --parts module:function` runs another composition, for example one
with a single faulty twin (`dataclasses.replace(build_parts(settings), admit=...)`), without an `if` in the service.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import psycopg
from starlette.types import ASGIApp, Receive

from replay_service import audit, budget, claim, condition, events, idempotency, rate_limit, reads, tenants
from replay_service.authentication import Caller, RawHeaders, authenticate
from replay_service.body import read_body
from replay_service.client_ip import Network, client_ip
from replay_service.condition import Gauges, expected_migrations
from replay_service.database import Connection, Database
from replay_service.metrics import Metrics
from replay_service.replay import Call, Reply, replay
from replay_service.settings import Settings
from replay_service.signatures import Signature, check_signature
from replay_service.tokens import Claims, TokenRules, check_token
from replay_service.validation import EventRequest, ReplayRequest, read_event, read_replay


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
    """What the service is made of. Functions of a connection run in whatever transaction it is in."""

    settings: Settings
    database: Database
    metrics: Metrics
    gauges: Gauges
    instance: str
    expected_migrations: tuple[str, int]
    clock: Callable[[], float]
    new_id: Callable[[], str]

    # the two stories that change something, each a whole
    replay: Callable[[Parts, Call], Awaitable[Reply]]
    accept_event: Callable[[Parts, Call], Awaitable[Reply]]
    # the two that only read: the path is signed as it was sent from /dlq-replay/ or /events/ on
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
    read_flags: Callable[[Connection, str], Awaitable[tenants.ReplayFlags]]
    # step 7
    begin_run: Callable[[Connection, ReplayRequest, idempotency.Run], Awaitable[Mapping[str, Any] | None]]
    finish_run: Callable[[Connection, idempotency.Run, idempotency.Outcome], Awaitable[None]]
    # step 8
    is_paused: Callable[[Connection, str], Awaitable[bool]]
    # step 9
    reserve_budget: Callable[[Connection, str], Awaitable[int]]
    preview_budget: Callable[[Connection, str], Awaitable[int]]
    charge: Callable[[Connection, str, int], Awaitable[None]]
    # the effect
    transaction: Transaction
    pick: Callable[[Connection, ReplayRequest, int], Awaitable[tuple[str, ...]]]
    describe: Callable[[Connection, ReplayRequest, Sequence[str], int], Awaitable[claim.Selection]]
    move: Callable[[Connection, str, Sequence[str]], Awaitable[None]]
    append_audit: Callable[[Connection, audit.AuditRow], Awaitable[None]]
    refusals: audit.RefusalLog
    # events
    emit: Callable[[Connection, EventRequest, str], Awaitable[tuple[str, bool]]]
    obey_drill: Callable[[Connection, EventRequest], Awaitable[int]]


@asynccontextmanager
async def transaction(conn: Connection, *, keep: bool = True) -> AsyncIterator[None]:
    """BEGIN and COMMIT, or ROLLBACK at an exception or with `keep=False`."""
    async with conn.transaction():
        yield
        if not keep:
            raise psycopg.Rollback


def new_uuid() -> str:
    return str(uuid.uuid4())


def unwrapped(app: ASGIApp) -> ASGIApp:
    return app


def build_parts(settings: Settings) -> Parts:
    """The composition of a release."""
    database = Database(settings)
    return Parts(
        settings=settings,
        database=database,
        metrics=Metrics(),
        gauges=Gauges(),
        instance=secrets.token_hex(4),
        expected_migrations=expected_migrations(),
        clock=time.time,
        new_id=new_uuid,
        replay=replay,
        accept_event=events.accept_event,
        read_run=reads.read_run,
        read_event_state=reads.read_event,
        readiness=condition.readiness,
        version=condition.version,
        read_body=read_body,
        wrap=unwrapped,
        authenticate=authenticate,
        signature_check=check_signature,
        token_check=check_token,
        signing_v2_required=tenants.signing_v2_required,
        read_replay=read_replay,
        read_event=read_event,
        is_authorised=tenants.is_authorised,
        client_ip=client_ip,
        admit=rate_limit.admit,
        read_flags=tenants.read_flags,
        begin_run=idempotency.begin,
        finish_run=idempotency.finish,
        is_paused=partial(tenants.is_paused, lock_timeout_ms=settings.lock_timeout_ms),
        reserve_budget=budget.reserve,
        preview_budget=budget.preview,
        charge=budget.charge,
        transaction=transaction,
        pick=claim.pick,
        describe=claim.describe,
        move=claim.move,
        append_audit=audit.append,
        refusals=audit.RefusalLog(database),
        emit=events.emit,
        obey_drill=events.obey_drill,
    )
