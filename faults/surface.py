"""Faults of the HTTP surface: identity, readiness, metrics, request ids, error bodies, methods and media types."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from faults.catalogue import service
from faults.probe import Probe
from faults.requests import App, wrapped
from replay_service.body import read_body
from replay_service.composition import build_parts
from replay_service.parts import Parts
from replay_service.settings import Settings

HTTP, SEEN, IDENTITY = "drill/http-surface", "drill/observability", "drill/identity"
FIRST_SECONDS = 12.0
Headers = list[tuple[bytes, bytes]]
Answering = Callable[[dict[str, Any], int, Headers, bytes], tuple[int, Headers, bytes]]


def answering(settings: Settings, change: Answering) -> Parts:
    """The service with other answers: `change` is given scope, status, headers and body."""

    def wrap(app: App) -> App:
        async def twin(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            start: dict[str, Any] = {}
            chunks: list[bytes] = []

            async def collect(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    start.update(message)
                else:
                    chunks.append(message.get("body", b""))

            await app(scope, receive, collect)
            if not start:
                return
            status, headers, body = change(scope, start["status"], list(start["headers"]), b"".join(chunks))
            kept = [(n, v) for n, v in headers if n.lower() != b"content-length"]
            length = (b"content-length", str(len(body)).encode())
            await send({"type": "http.response.start", "status": status, "headers": [*kept, length]})
            await send({"type": "http.response.body", "body": body})

        return twin

    return wrapped(settings, wrap)


def rescoping(settings: Settings, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Parts:
    """The service that reads another request than it was sent."""

    def wrap(app: App) -> App:
        async def twin(scope: Any, receive: Any, send: Any) -> None:
            await app(change(dict(scope)) if scope["type"] == "http" else scope, receive, send)

        return twin

    return wrapped(settings, wrap)


def waiting(settings: Settings, before: Callable[[dict[str, Any]], Awaitable[None]]) -> Parts:
    """The service that does something before it looks at a request."""

    def wrap(app: App) -> App:
        async def twin(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await before(scope)
            await app(scope, receive, send)

        return twin

    return wrapped(settings, wrap)


def _json(body: bytes, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    return json.dumps(change(json.loads(body))).encode()


@service(
    "Answers have no X-Request-Id.",
    lambda p: "x-request-id" not in p.get("/healthz").headers,
    (f"{HTTP}/request-ids", f"{SEEN}/request-id-in-the-trail"),
    names=("X-Request-Id", "request id"),
    decision="hold",
)
def no_request_id(settings: Settings) -> Parts:
    return answering(settings, lambda _s, st, hs, b: (st, [h for h in hs if h[0] != b"x-request-id"], b))


@service(
    "Every answer has the same X-Request-Id.",
    lambda p: p.get("/healthz").headers["x-request-id"] == p.get("/healthz").headers["x-request-id"],
    (f"{HTTP}/request-ids",),
    names=("X-Request-Id", "request id"),  # of the audit rows, too, which then lead to no request: a rollback
)
def same_request_id(settings: Settings) -> Parts:
    constant = (b"x-request-id", b"00000000-0000-4000-8000-00000000cafe")
    return answering(settings, lambda _s, st, hs, b: (st, [*(h for h in hs if h[0] != b"x-request-id"), constant], b))


@service(
    "Problems are sent as plain application/json.",
    lambda p: p.get("/none").headers["content-type"] == "application/json",
    (f"{HTTP}/problem-documents",),
    names=("problem+json", "content-type", "Content-Type"),
    decision="hold",
)
def problems_are_json(settings: Settings) -> Parts:
    def plain(_scope: Any, status: int, headers: Any, body: bytes) -> Any:
        kept = [(n, v.replace(b"problem+json", b"json")) for n, v in headers]
        return status, kept, body

    return answering(settings, plain)


@service(
    "Problems have no `code`.",
    lambda p: "code" not in p.get("/none").json(),
    (f"{HTTP}/problem-documents", "drill/proof/*"),
    names=("code",),
)
def problems_without_code(settings: Settings) -> Parts:
    def bare(_scope: Any, status: int, headers: Any, body: bytes) -> Any:
        has_code = status >= 400 and body.startswith(b"{")
        return status, headers, _json(body, lambda f: {n: v for n, v in f.items() if n != "code"}) if has_code else body

    return answering(settings, bare)


@service(
    "Errors carry a stack trace.",
    lambda p: "Traceback" in p.send(b"{}").text,
    (f"{HTTP}/refusals-leak-nothing", f"{HTTP}/problem-documents"),
    names=("Traceback", "trace", "leak"),
)
def stack_traces(settings: Settings) -> Parts:
    trace = 'Traceback (most recent call last):\n  File "/app/replay_service/replay.py", line 71, in replay'

    def leaking(_scope: Any, status: int, headers: Any, body: bytes) -> Any:
        is_ours = status >= 400 and body.startswith(b"{")
        return status, headers, _json(body, lambda f: f | {"detail": trace}) if is_ours else body

    return answering(settings, leaking)


@service(
    "Errors quote the database: host, user and statement.",
    lambda p: "postgresql://" in p.send(b"{}").text,
    (f"{HTTP}/refusals-leak-nothing",),
    names=("leak", "secret", "postgresql"),
)
def database_url_in_errors(settings: Settings) -> Parts:
    def leaking(_scope: Any, status: int, headers: Any, body: bytes) -> Any:
        is_ours = status >= 400 and body.startswith(b"{")
        return status, headers, _json(body, lambda f: f | {"debug": settings.database_url}) if is_ours else body

    return answering(settings, leaking)


@service(
    "/readyz says ready although the database is gone.",
    lambda p: _ready_without_migration(p),
    (f"{IDENTITY}/not-ready-without-database",),
    names=("ready", "503"),
    production=False,
)
def always_ready(settings: Settings) -> Parts:
    async def ready(_parts: Parts) -> Mapping[str, bool]:
        return {"database": True, "migrations": True, "worker": True}

    return dataclasses.replace(build_parts(settings), readiness=ready)


def _ready_without_migration(probe: Probe) -> bool:
    """Whether it says ready while the last migration has another version than it should."""
    last = "version = (SELECT max(version) FROM schema_migrations)"
    probe.rows(f"UPDATE schema_migrations SET version = '9' || version WHERE {last}")
    try:
        return probe.get("/readyz").status_code == 200
    finally:
        probe.rows(f"UPDATE schema_migrations SET version = substr(version, 2) WHERE {last}")


@service(
    "/readyz says 503 although all is well.",
    lambda p: p.within(16, lambda: p.get("/readyz").status_code == 503),
    (f"{HTTP}/ready", f"{IDENTITY}/alive-and-ready", "preflight/ready"),
    names=("ready", "503"),
    decision="hold",
)
def never_ready(settings: Settings) -> Parts:
    started = time.monotonic()
    release = build_parts(settings)

    async def ready(parts: Parts) -> Mapping[str, bool]:
        # well for its first seconds: nobody would have sent requests to it otherwise
        is_young = time.monotonic() < started + FIRST_SECONDS
        return await release.readiness(parts) if is_young else {"database": True, "migrations": False, "worker": True}

    return dataclasses.replace(release, readiness=ready)


@service(
    "/version says another release than was deployed.",
    lambda p: p.get("/version").json()["release"] == "0.0.0-forgotten",
    ("preflight/release", f"{IDENTITY}/one-release-on-every-instance"),
    names=("release",),
)
def other_release(settings: Settings) -> Parts:
    return _versioning(settings, lambda said: {**said, "release": "0.0.0-forgotten"})


@service(
    "Of the instances one in three still runs the release before.",
    lambda p: len({p.get("/version").json()["release"] for _ in range(40)}) == 2,
    ("preflight/release", f"{IDENTITY}/one-release-on-every-instance"),
    names=("release",),
)
def mixed_releases(settings: Settings) -> Parts:
    def some(said: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**said, "release": "0.0.0-before", "instance": "old"} if random.random() < 0.34 else said

    return _versioning(settings, some)


@service(
    "/version tells no schema version.",
    lambda p: "schema_version" not in p.get("/version").json(),
    (f"{IDENTITY}/version-says-what-it-is",),
    names=("schema_version",),
    decision="hold",
)
def version_without_schema(settings: Settings) -> Parts:
    return _versioning(settings, lambda said: {n: v for n, v in said.items() if n != "schema_version"})


def _versioning(settings: Settings, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Parts:
    release = build_parts(settings)

    async def version(parts: Parts) -> Mapping[str, Any]:
        return change(await release.version(parts))

    return dataclasses.replace(release, version=version)


@service(
    "The media type is not looked at.",
    lambda p: _as_text(p) != 415,
    (f"{HTTP}/media-type-text", f"{HTTP}/media-type-form", f"{HTTP}/media-type-missing"),
    names=("415",),
    decision="hold",
)
def any_media_type(settings: Settings) -> Parts:
    def as_json(scope: dict[str, Any]) -> dict[str, Any]:
        kept = [(n, v) for n, v in scope["headers"] if n != b"content-type"]
        return scope | {"headers": [*kept, (b"content-type", b"application/json")]}

    return rescoping(settings, as_json)


def _as_text(probe: Probe) -> int:
    body = b"{}"
    headers = {"X-Transbot-Signature": probe.sign(body), "Content-Type": "text/plain"}
    return probe.http.post(f"{probe.base_url}/dlq-replay", content=body, headers=headers).status_code


@service(
    "X-HTTP-Method-Override is obeyed.",
    lambda p: p.http.get(f"{p.base_url}/dlq-replay", headers={"X-HTTP-Method-Override": "POST"}).status_code != 405,
    (f"{HTTP}/method-override",),
    names=("405", "override"),
    decision="hold",
)
def method_override(settings: Settings) -> Parts:
    def obeyed(scope: dict[str, Any]) -> dict[str, Any]:
        wanted = dict(scope["headers"]).get(b"x-http-method-override")
        return scope | {"method": wanted.decode("latin-1").upper()} if wanted else scope

    return rescoping(settings, obeyed)


@service(
    "A 405 does not say which method is allowed.",
    lambda p: "allow" not in p.get("/dlq-replay").headers,
    (f"{HTTP}/other-methods",),
    names=("Allow",),
    decision="hold",
)
def no_allow(settings: Settings) -> Parts:
    return answering(settings, lambda _s, st, hs, b: (st, [h for h in hs if h[0].lower() != b"allow"], b))


@service(
    "Bodies of up to 1 MiB are accepted.",
    lambda p: p.send(b'{"x": "%s"}' % (b"y" * 100_000)).status_code == 400,
    (f"{HTTP}/body-over-the-limit", f"{HTTP}/body-of-1-mebibyte"),
    names=("413",),
    decision="hold",
)
def large_bodies(settings: Settings) -> Parts:
    async def read(headers: Any, receive: Any, timeout_s: float) -> bytes:
        chunks: list[bytes] = []

        async def hear() -> Any:
            message = await receive()
            chunks.append(message.get("body", b""))
            return {**message, "body": b""}

        await read_body([(n, v) for n, v in headers if n != b"content-length"], hear, timeout_s)
        return b"".join(chunks)

    return dataclasses.replace(build_parts(settings), read_body=read)


@service(
    "A debug route shows the configuration.",
    lambda p: p.get("/debug").status_code == 200,
    (f"{IDENTITY}/no-debug-routes",),
    names=("debug",),
    decision="hold",
)
def debug_route(settings: Settings) -> Parts:
    def shown(scope: Any, status: int, headers: Any, body: bytes) -> Any:
        is_debug = scope["path"].endswith(("/debug", "/debug/vars", "/env", "/config", "/actuator/env", "/_debug"))
        return (200, headers, b'{"release": "x", "pool": 12}') if is_debug else (status, headers, body)

    return answering(settings, shown)
