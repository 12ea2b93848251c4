"""The HTTP surface: routes, one place where refusals become answers, request ids, access logs and request metrics."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import psycopg
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from replay_service.body import ClientGone
from replay_service.database import is_outage
from replay_service.exchange import Call, Reply, header_values
from replay_service.gauges import memory_lines
from replay_service.openapi import document
from replay_service.parts import Parts
from replay_service.problems import Refusal, problem_response, unavailable

_LOG = logging.getLogger("replay_service.http")
REQUEST_TIMEOUT_S = 20.0
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Endpoint = Callable[[Request], Awaitable[Response]]


def build_surface(parts: Parts) -> ASGIApp:
    """The ASGI application of these parts."""
    base = parts.settings.base_path
    table: tuple[tuple[str, str, Endpoint], ...] = (
        ("POST", "/dlq-replay", _posts(parts, _replay)),
        ("GET", "/dlq-replay/{replay_run_id}", _reads(parts, "/dlq-replay/", "replay_run_id", parts.read_run)),
        ("POST", "/events", _posts(parts, _event)),
        ("GET", "/events/{event_id}", _reads(parts, "/events/", "event_id", parts.read_event_state)),
        ("GET", "/healthz", _healthz),
        ("GET", "/readyz", _readyz(parts)),
        ("GET", "/version", _version(parts)),
        ("GET", "/metrics", _metrics(parts)),
        ("GET", "/openapi.json", _openapi(parts)),
    )
    routes = [Route(base + path, endpoint, methods=[method], name=path) for method, path, endpoint in table]
    return parts.wrap(Surface(parts, Router(routes, redirect_slashes=False, default=_unknown_path)))


def _json(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, "application/json")


async def _unknown_path(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise Refusal("not_found", "There is no such path.")


def _call(parts: Parts, request: Request, body: bytes = b"") -> Call:
    headers = request.scope["headers"]
    peer = request.client.host if request.client else None
    forwarded = header_values(headers, b"x-forwarded-for")
    client = parts.client_ip(peer, forwarded, parts.settings.trusted_proxies)
    return Call(headers, body, client, request.scope["state"]["request_id"])


def _posts(parts: Parts, story: Callable[[Parts, Call], Awaitable[Reply]]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        body = await parts.read_body(request.scope["headers"], request.receive, parts.settings.body_timeout_s)
        reply = await story(parts, _call(parts, request, body))
        return _json(reply.body, reply.status, reply.headers)

    return endpoint


async def _replay(parts: Parts, call: Call) -> Reply:
    try:
        reply = await parts.replay(parts, call)
    except Refusal as refusal:
        parts.metrics.replays.add(refusal.code)
        raise
    except psycopg.Error:
        parts.metrics.replays.add("unavailable")
        raise
    parts.metrics.replays.add(reply.outcome)
    parts.metrics.items.add(amount=reply.items)
    return reply


async def _event(parts: Parts, call: Call) -> Reply:
    reply = await parts.accept_event(parts, call)
    parts.metrics.events.add(reply.outcome)
    return reply


def _reads(
    parts: Parts, prefix: str, name: str, story: Callable[[Parts, Call, bytes, str], Awaitable[Reply]]
) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        raw_path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
        at = raw_path.rfind(prefix.encode())
        # If the path is spelt differently, for example with escapes, all of it is signed.
        signed_path = raw_path[max(at, 0) :]
        reply = await story(parts, _call(parts, request), signed_path, request.path_params[name])
        return _json(reply.body, reply.status, reply.headers)

    return endpoint


async def _healthz(_request: Request) -> Response:
    return _json({"status": "alive"})


def _readyz(parts: Parts) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        checks = await parts.readiness(parts)
        is_ready = all(checks.values())
        body = {"status": "ready" if is_ready else "not_ready", "checks": checks}
        if is_ready:
            return _json(body)
        missing = ", ".join(name for name, there in checks.items() if not there)
        raise Refusal("unavailable", f"Not ready: {missing}.", members={"checks": checks})

    return endpoint


def _version(parts: Parts) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        return _json(await parts.version(parts))

    return endpoint


def _metrics(parts: Parts) -> Endpoint:
    async def endpoint(_request: Request) -> Response:
        lines = [*parts.metrics.lines(), *memory_lines(), *await parts.gauges.lines(parts.database)]
        return Response("\n".join(lines) + "\n", media_type=METRICS_TYPE)

    return endpoint


def _openapi(parts: Parts) -> Endpoint:
    encoded = msgspec.json.encode(document(parts.settings.base_path))

    async def endpoint(_request: Request) -> Response:
        return Response(encoded, media_type="application/json")

    return endpoint


class Surface:
    """The outermost application: gives every answer its X-Request-Id, keeps it out of every cache, and turns everything
    raised into a problem.
    """

    def __init__(self, parts: Parts, router: Router) -> None:
        self._parts = parts
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        started = time.perf_counter()
        request_id = self._parts.new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        scope["app"] = self  # Starlette then raises for a wrong method instead of answering in plain text
        status = 0

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", request_id.encode()), (b"cache-control", b"no-store")]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        code = ""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await self._router(scope, receive, tagged)
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001 - the last line: whatever it is, the client gets a problem
            refusal = self._refusal(error, request_id)
            code = refusal.code
            self._parts.metrics.errors.add(code)
            if status == 0:
                await problem_response(refusal)(scope, receive, tagged)
        self._account(scope, status, code, request_id, time.perf_counter() - started)

    @staticmethod
    def _refusal(error: Exception, request_id: str) -> Refusal:
        """The refusal for an exception; an unexpected one is logged with its place."""
        if isinstance(error, Refusal):
            return error
        if isinstance(error, HTTPException) and error.status_code == 405:
            return Refusal("method_not_allowed", "See Allow.", headers=error.headers)
        fields = {"request_id": request_id, "error": type(error).__name__}
        if isinstance(error, TimeoutError) or (isinstance(error, psycopg.Error) and is_outage(error)):
            _LOG.warning(
                "database unavailable", extra={"fields": fields | {"sqlstate": getattr(error, "sqlstate", None)}}
            )
            return unavailable()
        _LOG.error("unhandled", extra={"fields": fields}, exc_info=error)
        return Refusal("internal_error", "The service failed. The request id says where to look.")

    def _account(self, scope: Scope, status: int, code: str, request_id: str, seconds: float) -> None:
        route = getattr(scope.get("route"), "name", None) or "unmatched"
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._parts.metrics.requests.add(route, method, str(status))
        self._parts.metrics.latency.observe(seconds, route)
        if _LOG.isEnabledFor(logging.INFO):
            fields = {
                "request_id": request_id,
                "route": route,
                "method": method,
                "status": status,
                "code": code,
                "ms": round(seconds * 1000, 3),
            }
            _LOG.info("answered", extra={"fields": fields})

    async def _live(self, receive: Receive, send: Send) -> None:
        """Open the pool and start the refusal log; stop both at shutdown."""
        await receive()
        await self._parts.database.open()
        flusher = asyncio.create_task(self._parts.refusals.run())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        flusher.cancel()
        await asyncio.gather(flusher, return_exceptions=True)
        await self._parts.database.close()
        await send({"type": "lifespan.shutdown.complete"})
