"""Faults of the surface that a proxy cannot make: it reads a request to its end before it passes it on."""

import dataclasses
import functools
import itertools
import json
import socket
import uuid
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import psycopg
from starlette.types import Message, Receive

from faults.altered import around, instead_of
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import App, wrapped
from replay_service.body import MAX_BODY_BYTES, read_body
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Call, RawHeaders, Reply, header_values
from replay_service.idempotency import Run
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.settings import Settings
from replay_service.validation import EventRequest, ReplayRequest, read_event

METHODS = "drill/http-surface/other-methods"
RUN, EVENT = "drill/lifecycle/unknown-run-is-not-found", "drill/outbox/status-of-an-event"
_VERSION_7 = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@service(lambda p: _is_answered_early(p), "drill/http-surface/body-is-read-before-the-refusal", ("answered", "413"))
@instead_of("read_body")
async def large_bodies_are_answered_unread(headers: RawHeaders, receive: Receive, timeout_s: float) -> bytes:
    """A body of more than 256 KB is refused before it is read, as some libraries do."""
    declared = header_values(headers, b"content-length")
    if declared and int(declared[0]) > 4 * MAX_BODY_BYTES:
        raise Refusal("body_too_large", "The body is too large.", closes=True)
    return await read_body(headers, receive, timeout_s)


def _is_answered_early(probe: Probe) -> bool:
    """Whether a request of which half was sent is answered within a second."""
    url = urlsplit(probe.base_url)
    head = f"POST {url.path}/dlq-replay HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((url.hostname or "", url.port or 80), 1.0) as sock:
        sock.sendall(f"{head}Content-Length: 900000\r\n\r\n".encode() + b" " * 100_000)
        try:
            return bool(sock.recv(1))
        except TimeoutError:
            return False


@service(
    lambda p: b"debug" in p.send(json.dumps({"company_id": str(uuid.uuid4()), "dry_run": True}).encode()).content,
    "drill/http-surface/refusals-leak-nothing",
    "secret",
)
@around("replay")
async def forbidden_shows_credentials(release: Parts, parts: Parts, call: Call) -> Reply:
    """A 403 quotes the credentials of the caller."""
    try:
        return await release.replay(parts, call)
    except Refusal as refusal:
        if refusal.code == "forbidden":
            refusal.members["debug"] = {name.decode(): value.decode("latin-1") for name, value in call.headers}
        raise


@service(lambda p: _of_wide_letters(p) != 413, "drill/http-surface/body-over-the-limit", "413")
@instead_of("read_body")
async def sizes_are_counted_in_characters(headers: RawHeaders, receive: Receive, timeout_s: float) -> bytes:
    """The size of a body is counted in characters, not in bytes: other alphabets may send three times as much."""
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


@service(lambda p: _quotes_the_database(p), "drill/ledger/no-error-shows-insides", "500 shows", production=False)
@around("emit")
async def errors_quote_the_database(
    release: Parts, conn: Connection, request: EventRequest, event_id: str
) -> tuple[str, bool]:
    """The answer to an event that the database refuses quotes the database."""
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


@service(lambda p: _quotes_the_key(p), "drill/ledger/no-answer-shows-insides", "violates")
@around("begin_run")
async def reused_keys_quote_the_database(
    release: Parts, conn: Connection, request: ReplayRequest, started: Run
) -> Mapping[str, Any] | None:
    """The answer to a reused key quotes the database."""
    try:
        return await release.begin_run(conn, request, started)
    except Refusal as refusal:
        raise Refusal(refusal.code, 'duplicate key value violates unique constraint "replay_runs_key"') from refusal


def _quotes_the_key(probe: Probe) -> bool:
    with probe.tenant() as company:
        answers = [probe.replay(company, idempotency_key="w", max=n) for n in (1, 2)]
        return "violates" in answers[-1].text


@service(
    lambda p: p.event(str(uuid.uuid4()), event_id=_VERSION_7).status_code == 400,
    "drill/outbox/same-event-id-once",
    "400",
)
@instead_of("read_event")
def event_ids_of_new_versions_are_refused(raw: bytes) -> EventRequest:
    """An event whose id is a UUID of a newer version than 5 is refused."""
    found = read_event(raw)
    _refuse_new_versions(found.event_id)
    return found


@service(
    lambda p: p.event(_VERSION_7).status_code == 400,
    ("drill/outbox/event-of-nobody", "drill/authentication/unknown-company-forbidden"),
    "400",
)
def companies_of_new_versions_are_refused(settings: Settings) -> Parts:
    """A company whose id is a UUID of a newer version than 5 is refused as invalid."""
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


def _as_posts(settings: Settings, path: str, *methods: str) -> Parts:
    """The service that takes these methods for a POST."""

    def wrap(app: App) -> App:
        async def twin(scope: Any, receive: Any, send: Any) -> None:
            is_one = scope["type"] == "http" and scope["method"] in methods and scope["path"].endswith(path)
            await app({**scope, "method": "POST"} if is_one else scope, receive, send)

        return twin

    return wrapped(settings, wrap)


@service(lambda p: _status_of(p, "QUERY", "/dlq-replay") != 405, METHODS, "QUERY")
def unknown_methods_replay(settings: Settings) -> Parts:
    """A replay by the method QUERY is carried out."""
    return _as_posts(settings, "/dlq-replay", "QUERY")


@service(lambda p: _status_of(p, "PATCH", "/events") != 405, METHODS, "PATCH")
def events_may_be_patched(settings: Settings) -> Parts:
    """An event by the method PATCH is accepted."""
    return _as_posts(settings, "/events", "PATCH")


def _status_of(probe: Probe, method: str, path: str) -> int:
    headers = {"Content-Type": "application/json", "X-Transbot-Signature": probe.sign(b"{}")}
    return probe.http.request(method, probe.base_url + path, content=b"{}", headers=headers).status_code


def _open_reads(settings: Settings, part: str, table: str) -> Parts:
    """The service that reads what is there for anybody, and refuses a caller without credentials where it is not."""
    sound = build_parts(settings)

    async def read(parts: Parts, call: Call, signed_path: bytes, one: str) -> Reply:
        try:
            return cast("Reply", await getattr(sound, part)(parts, call, signed_path, one))
        except Refusal as refusal:
            if refusal.code == "unauthenticated" and await _is_there(parts, table, one):
                return Reply(200, {"status": "completed"})
            raise

    changed: Any = {part: read}
    return dataclasses.replace(sound, **changed)


async def _is_there(parts: Parts, table: str, one: str) -> bool:
    async with parts.database.connection() as conn:
        found = await conn.execute(f"SELECT FROM public.{table} WHERE id::text = %s".encode(), (one,))
        return found.rowcount > 0


@service(lambda p: _open_to_all(p, "GET", "/dlq-replay") == 200, RUN, "observed 200")
def runs_are_open_to_all(settings: Settings) -> Parts:
    """Whoever knows the id of a run reads it without credentials."""
    return _open_reads(settings, "read_run", "replay_runs")


@service(lambda p: _open_to_all(p, "GET", "/events") == 200, EVENT, "observed 200")
def events_are_open_to_all(settings: Settings) -> Parts:
    """Whoever knows the id of an event reads it without credentials."""
    return _open_reads(settings, "read_event_state", "events")


def _open_heads(settings: Settings, place: str, table: str) -> Parts:
    """The service that answers a HEAD before it looks at credentials."""
    sound = build_parts(settings)

    def wrap(app: App) -> App:
        async def twin(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["method"] == "HEAD" and f"{place}/" in scope["path"]:
                is_there = await _is_there(sound, table, scope["path"].rpartition("/")[2])
                await send({"type": "http.response.start", "status": 200 if is_there else 404, "headers": []})
                await send({"type": "http.response.body", "body": b""})
                return
            await app(scope, receive, send)

        return twin

    return dataclasses.replace(sound, wrap=wrap)


@service(lambda p: _open_to_all(p, "HEAD", "/dlq-replay") == 200, RUN, "HEAD")
def heads_tell_of_runs(settings: Settings) -> Parts:
    """A HEAD without credentials tells which runs exist."""
    return _open_heads(settings, "/dlq-replay", "replay_runs")


@service(lambda p: _open_to_all(p, "HEAD", "/events") == 200, EVENT, "HEAD")
def heads_tell_of_events(settings: Settings) -> Parts:
    """A HEAD without credentials tells which events exist."""
    return _open_heads(settings, "/events", "events")


def _open_to_all(probe: Probe, method: str, place: str) -> int:
    with probe.tenant() as company:
        is_event = place == "/events"
        made = (probe.event(company) if is_event else probe.replay(company)).json()
        path = f"{place}/{made['event_id' if is_event else 'replay_run_id']}"
        return probe.http.request(method, probe.base_url + path).status_code


@service(
    lambda p: len({p.get("/healthz").headers["x-request-id"] for _ in range(130)}) == 64,
    "drill/ledger/answers-add-up",
    "X-Request-Id",
)
def request_ids_begin_anew(settings: Settings) -> Parts:
    """Request ids begin anew after sixty-four: a complaint's id leads to the rows of many requests."""
    numbers = itertools.cycle(range(64))

    def wrap(app: App) -> App:
        async def twin(scope: Any, receive: Any, send: Any) -> None:
            async def numbered(message: Message) -> None:
                if message["type"] == "http.response.start":
                    others = [one for one in message["headers"] if one[0].lower() != b"x-request-id"]
                    message["headers"] = [*others, (b"x-request-id", b"req-%d" % next(numbers))]
                await send(message)

            await app(scope, receive, numbered)

        return twin

    return wrapped(settings, wrap)


@service(
    lambda p: "errors" not in p.event(str(uuid.uuid4()), event_type=None).json(),
    "drill/http-surface/validation-names-the-field",
    "event_type",
)
@around("read_event")
def invalid_events_name_no_field(release: Parts, raw: bytes) -> EventRequest:
    """The refusal of an invalid event does not say which field is wrong."""
    try:
        return release.read_event(raw)
    except Refusal as refusal:
        raise Refusal(refusal.code, refusal.detail) from refusal
