"""The composition: which function does each part of the service.

A release runs what `build_parts` returns. `serve --parts module:function` runs another composition, for example one
with a single faulty twin (`dataclasses.replace(build_parts(settings), admit=...)`), without an `if` in the service.
"""

import secrets
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import psycopg
from starlette.types import ASGIApp

from replay_service import audit, budget, claim, condition, events, idempotency, rate_limit, reads, tenants
from replay_service.authentication import authenticate
from replay_service.body import read_body
from replay_service.client_ip import client_ip
from replay_service.condition import expected_migrations
from replay_service.database import Connection, Database
from replay_service.gauges import Gauges
from replay_service.metrics import Metrics
from replay_service.parts import Parts
from replay_service.replay import replay
from replay_service.settings import Settings
from replay_service.signatures import check_signature
from replay_service.tokens import check_token
from replay_service.validation import read_event, read_replay


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
