"""Faults of the surface that a proxy cannot make: it reads a request to its end before it passes it on."""

import dataclasses
import functools
import json
import socket
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import psycopg
from starlette.types import Message, Receive

from faults.altered import around, instead_of
from faults.catalogue import service
from faults.probe import Probe
from replay_service.body import MAX_BODY_BYTES, read_body
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Call, RawHeaders, Reply, header_values
from replay_service.idempotency import Run
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.validation import EventRequest, ReplayRequest, read_event

_VERSION_7 = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@service(
    "A body whose Content-Length is too large is refused before it is read.",
    lambda p: _is_answered_early(p),
    ("drill/http-surface/body-is-read-before-the-refusal",),
    names=("answered", "413"),
)
@instead_of("read_body")
async def large_bodies_are_answered_unread(headers: RawHeaders, receive: Receive, timeout_s: float) -> bytes:
    declared = header_values(headers, b"content-length")
    if declared and int(declared[0]) > MAX_BODY_BYTES:
        raise Refusal("body_too_large", "The body is too large.", closes=True)
    return await read_body(headers, receive, timeout_s)


def _is_answered_early(probe: Probe) -> bool:
    """Whether a request of which half was sent is answered within a second."""
    url = urlsplit(probe.base_url)
    head = f"POST {url.path}/dlq-replay HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((url.hostname or "", url.port or 80), 1.0) as sock:
        sock.sendall(f"{head}Content-Length: 200000\r\n\r\n".encode() + b" " * 100_000)
        try:
            return bool(sock.recv(1))
        except TimeoutError:
            return False


@service(
    "A 403 quotes the credentials of the caller.",
    lambda p: b"debug" in p.send(json.dumps({"company_id": str(uuid.uuid4()), "dry_run": True}).encode()).content,
    ("drill/http-surface/refusals-leak-nothing",),
    names=("secret",),
)
@around("replay")
async def forbidden_shows_credentials(release: Parts, parts: Parts, call: Call) -> Reply:
    try:
        return await release.replay(parts, call)
    except Refusal as refusal:
        if refusal.code == "forbidden":
            refusal.members["debug"] = {name.decode(): value.decode("latin-1") for name, value in call.headers}
        raise


@service(
    "The size of a body is counted in characters, not in bytes: other alphabets may send three times as much.",
    lambda p: _of_wide_letters(p) != 413,
    ("drill/http-surface/body-over-the-limit",),
    names=("413",),
)
@instead_of("read_body")
async def sizes_are_counted_in_characters(headers: RawHeaders, receive: Receive, timeout_s: float) -> bytes:
    read: list[bytes] = []

    async def counting() -> Message:
        message = await receive()
        read.append(message.get("body", b""))
        return message

    try:
        return await read_body(headers, counting, timeout_s)
    except Refusal as refusal:
        text = b"".join(read).decode("utf-8", "replace")
        if refusal.code == "body_too_large" and len(text) <= MAX_BODY_BYTES:
            return text.encode()
        raise


def _of_wide_letters(probe: Probe) -> int:
    return probe.send(json.dumps({"x": "\u20ac" * 30_000}, ensure_ascii=False).encode()).status_code


@service(
    "The answer to an event that the database refuses quotes the database.",
    lambda p: _quotes_the_database(p),
    ("drill/ledger/no-error-shows-insides",),
    names=("it shows",),
    production=False,
)
@around("emit")
async def errors_quote_the_database(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    try:
        return await release.emit(conn, request, event_id)
    except psycopg.Error as error:
        raise Refusal("internal_error", str(error)) from error


def _quotes_the_database(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.rows("REVOKE INSERT ON events FROM replay_service")
        try:
            return "permission denied" in probe.event(company).text
        finally:
            probe.rows("GRANT INSERT ON events TO replay_service")


@service(
    "The answer to a reused key quotes the database.",
    lambda p: _quotes_the_key(p),
    ("drill/ledger/no-answer-shows-insides",),
    names=("violates",),
)
@around("begin_run")
async def reused_keys_quote_the_database(
    release: Parts, conn: Connection, request: ReplayRequest, started: Run
) -> Mapping[str, Any] | None:
    try:
        return await release.begin_run(conn, request, started)
    except Refusal as refusal:
        raise Refusal(refusal.code, 'duplicate key value violates unique constraint "replay_runs_key"') from refusal


def _quotes_the_key(probe: Probe) -> bool:
    with probe.tenant() as company:
        answers = [probe.replay(company, idempotency_key="w", max=n) for n in (1, 2)]
        return "violates" in answers[-1].text


@service(
    "An event whose id is a UUID of a newer version than 5 is refused.",
    lambda p: p.event(str(uuid.uuid4()), event_id=_VERSION_7).status_code == 400,
    ("drill/outbox/same-event-id-once",),
    names=("400",),
)
@instead_of("read_event")
def event_ids_of_new_versions_are_refused(raw: bytes) -> EventRequest:
    found = read_event(raw)
    _refuse_new_versions(found.event_id)
    return found


@service(
    "A company whose id is a UUID of a newer version than 5 is refused as invalid.",
    lambda p: p.event(_VERSION_7).status_code == 400,
    ("drill/outbox/event-of-nobody", "drill/authentication/unknown-company-forbidden"),
    names=("400",),
)
def companies_of_new_versions_are_refused(settings: Settings) -> Parts:
    release = build_parts(settings)

    def known(read: Callable[[bytes], Any], raw: bytes) -> Any:
        found = read(raw)
        _refuse_new_versions(found.company_id)
        return found

    event, replay = (functools.partial(known, read) for read in (release.read_event, release.read_replay))
    return dataclasses.replace(release, read_event=event, read_replay=replay)


def _refuse_new_versions(named: str | None) -> None:
    if named and named[14] > "5":
        raise Refusal("invalid_request", "An id is no UUID.")
