"""Faults of the form of one answer: what every other answer has, and this one lacks."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from starlette.types import Message, Receive

from faults.altered import around
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import App
from replay_service.body import read_body
from replay_service.composition import build_parts
from replay_service.exchange import Call, RawHeaders, Reply
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.validation import read_replay

NOBODY = "00000000-0000-4000-8000-00000000dead"


def _nameless(of: Callable[[str, int], bool]) -> Callable[[Settings], Parts]:
    """The service whose answers have no X-Request-Id where a path and a status are such."""

    def wrap(app: App) -> App:
        async def outer(scope: Any, receive: Any, send: Any) -> None:
            async def sent(message: Any) -> None:
                if message["type"] == "http.response.start" and of(scope["path"], message["status"]):
                    message["headers"] = [one for one in message["headers"] if one[0] != b"x-request-id"]
                await send(message)

            await app(scope, receive, sent)

        return outer

    return lambda settings: dataclasses.replace(build_parts(settings), wrap=wrap)


@service(lambda p: "x-request-id" not in _limited(p), "drill/ledger/answers-add-up", "X-Request-Id")
def limited_calls_have_no_request_id(settings: Settings) -> Parts:
    """A refusal by the rate limit has no X-Request-Id."""
    return _nameless(lambda _path, status: status == 429)(settings)


def _limited(probe: Probe) -> Mapping[str, str]:
    with probe.tenant() as company:
        return [probe.replay(company, dry_run=True) for _ in range(4)][-1].headers


@service(lambda p: "x-request-id" not in p.get("/metrics").headers, "drill/http-surface/request-ids", "X-Request-Id")
def pages_have_no_request_id(settings: Settings) -> Parts:
    """The pages that anyone may read have no X-Request-Id."""
    return _nameless(lambda path, _status: path.endswith(("/metrics", "/openapi.json")))(settings)


@service(lambda p: _is_accepted_without_an_id(p), "drill/tokens/foreign-event-hidden", "X-Request-Id", decision="hold")
def accepted_events_have_no_request_id(settings: Settings) -> Parts:
    """The answer to an accepted event has no X-Request-Id."""
    return _nameless(lambda _path, status: status == 202)(settings)


def _is_accepted_without_an_id(probe: Probe) -> bool:
    with probe.tenant() as company:
        return "x-request-id" not in probe.event(company).headers


@service(lambda p: _is_read_without_an_id(p), "drill/tokens/foreign-run-hidden", "X-Request-Id", decision="hold")
def runs_are_shown_without_a_request_id(settings: Settings) -> Parts:
    """The answer to a read of a run has no X-Request-Id."""
    return _nameless(lambda path, status: status == 200 and "/dlq-replay/" in path)(settings)


def _is_read_without_an_id(probe: Probe) -> bool:
    with probe.tenant() as company:
        run = probe.replay(company).json()["replay_run_id"]
        return "x-request-id" not in probe.read(f"/dlq-replay/{run}").headers


@service(None, "drill/ledger/answers-add-up", "status member")
@around("replay")
async def pauses_of_tokens_name_another_status(release: Parts, parts: Parts, call: Call) -> Reply:
    """The problem document of a refusal by a pause names another status than its answer, where a token is sent."""
    try:
        return await release.replay(parts, call)
    except Refusal as refusal:
        if refusal.code == "agents_paused" and any(name == b"authorization" for name, _ in call.headers):
            refusal.members["status"] = 423
        raise


@service(
    lambda p: p.event(NOBODY, payload={"text": "x" * 2_000_000}).status_code != 413,
    "drill/http-surface/body-of-1-mebibyte",
    "413",
)
def bodies_of_events_have_no_limit(settings: Settings) -> Parts:
    """The body of an event has no limit: only a replay's is measured."""

    async def read(headers: RawHeaders, receive: Receive, _timeout_s: float) -> bytes:
        whole = b""
        while (message := await receive())["type"] == "http.request":
            whole += message.get("body", b"")
            if not message.get("more_body"):
                break

        async def once() -> Message:
            return {"type": "http.request", "body": whole, "more_body": False}

        return whole if b'"event_type"' in whole else await read_body(headers, once, _timeout_s)

    return dataclasses.replace(build_parts(settings), read_body=read)


@service(
    lambda p: "code" not in p.read("/dlq-replay/00000000-0000-4000-8000-00000000dead").json(),
    "drill/tokens/foreign-run-hidden",
    "no problem document",
    decision="hold",
)
@around("read_run")
async def runs_that_are_not_found_have_no_code(
    release: Parts, parts: Parts, call: Call, signed_path: bytes, run_id: str
) -> Reply:
    """A 404 of a run has no code."""
    try:
        return await release.read_run(parts, call, signed_path, run_id)
    except Refusal as refusal:
        if refusal.code != "not_found":
            raise
        return Reply(404, {"title": "Not found", "status": 404, "detail": refusal.detail})


@service(
    lambda p: "code" not in p.read(f"/events/{NOBODY}").json(),
    "drill/tokens/foreign-event-hidden",
    "no problem document",
    decision="hold",
)
@around("read_event_state")
async def events_that_are_not_found_have_no_code(
    release: Parts, parts: Parts, call: Call, signed_path: bytes, event_id: str
) -> Reply:
    """A 404 of an event is the framework's own, without a code."""
    try:
        return await release.read_event_state(parts, call, signed_path, event_id)
    except Refusal as refusal:
        if refusal.code != "not_found":
            raise
        return Reply(404, {"detail": "Not Found"})


@service(lambda p: "retry-after" not in _limited(p), "drill/rate-limit/retry-after", "Retry-After")
@around("replay")
async def limited_dry_runs_have_no_retry_after(release: Parts, parts: Parts, call: Call) -> Reply:
    """A dry run that the rate limit refuses has no Retry-After."""
    try:
        return await release.replay(parts, call)
    except Refusal as refusal:
        if refusal.code == "rate_limited" and read_replay(call.body).dry_run:
            del refusal.headers["retry-after"]
        raise


@service(None, "drill/ledger/no-error-shows-insides", "shows", production=False)
@around("read_run")
async def reads_quote_the_database(release: Parts, parts: Parts, call: Call, signed_path: bytes, run_id: str) -> Reply:
    """A read that the database refuses quotes the database."""
    try:
        return await release.read_run(parts, call, signed_path, run_id)
    except psycopg.Error as error:
        raise Refusal("internal_error", f"The run could not be read: {error}") from error
