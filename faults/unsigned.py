"""Faults of what no signature covers: the query of a replay and its headers count as if they stood in its body."""

import dataclasses
import json
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import parse_qsl

from faults.catalogue import service
from faults.probe import Probe
from faults.requests import App, Json, wrapped
from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.validation import ReplayRequest, read_replay

QUERY, HEADERS = ("query_string", "headers")
ASKED: ContextVar[Mapping[str, Any]] = ContextVar("ASKED")
"""The head of this task's request."""


def _reading(settings: Settings, place: str) -> Parts:
    """The service that takes members of a replay out of a place of its head before it takes those of the body."""

    def wrap(app: App) -> App:
        async def outer(scope: Any, receive: Any, send: Any) -> None:
            ASKED.set(scope)
            await app(scope, receive, send)

        return outer

    def read(raw: bytes) -> ReplayRequest:
        found = read_replay(raw)
        told = _query if place == QUERY else _headers
        other = told(ASKED.get()) if ASKED.get()["method"] == "POST" else {}
        return read_replay(json.dumps({**json.loads(raw), **other}).encode()) if other else found

    return dataclasses.replace(wrapped(settings, wrap), read_replay=read)


def _query(scope: Mapping[str, Any]) -> Json:
    given = dict(parse_qsl(scope[QUERY].decode("latin-1")))
    flags = {name: given[name] == "true" for name in ("dry_run", "force") if name in given}
    return flags | {name: given[name] for name in ("idempotency_key",) if name in given}


def _headers(scope: Mapping[str, Any]) -> Json:
    given = {name.decode("latin-1").removeprefix("x-"): value.decode("latin-1") for name, value in scope[HEADERS]}
    key = {"idempotency_key": given["idempotency-key"]} if "idempotency-key" in given else {}
    return key | ({"dry_run": given["dry-run"] == "true"} if "dry-run" in given else {})


@service(
    lambda p: _moved(p, path="/dlq-replay?dry_run=false"),
    ("drill/dry-run/writes-nothing", "drill/idempotency/v2-resend-is-duplicate"),
    ("items were moved", "sent again"),
)
def the_query_counts(settings: Settings) -> Parts:
    """The query of a replay counts, which no signature covers: with `?dry_run=false` a signed dry run is a real one."""
    return _reading(settings, QUERY)


@service(
    lambda p: _moved(p, **{"X-Dry-Run": "false"}),
    ("drill/dry-run/writes-nothing", "drill/idempotency/v2-resend-is-duplicate"),
    ("items were moved", "sent again"),
)
def headers_count(settings: Settings) -> Parts:
    """Headers of a replay count, which no signature covers: with an Idempotency-Key a captured request runs again."""
    return _reading(settings, HEADERS)


def _moved(probe: Probe, path: str = "/dlq-replay", **headers: str) -> bool:
    """Whether a signed dry run moves an item."""
    with probe.tenant() as company:
        probe.letters(company, 1)
        body = json.dumps({"company_id": company, "dry_run": True}).encode()
        signed = {"X-Transbot-Signature": probe.sign_v2(body, int(time.time()))}
        return bool(probe.send(body, {**signed, **headers}, path).json().get("status") != "dry_run")
