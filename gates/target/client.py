"""The HTTP door: sends the very bytes of a Request and keeps what came back. No retries, no redirects, no cookies."""

from __future__ import annotations

import datetime as dt
import ssl
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import Self

import httpx

from gates.target.requests import Answer, Exchange, Request

REQUEST_TIMEOUT_S = 10.0

KEEPALIVE_S = 2.0
"""Idle connections are dropped well before servers do (5 s is usual): a request must not meet a closing one."""


class NoAnswer(Exception):  # noqa: N818  -- it is an observation about the target, not an error of ours
    """The target gave no HTTP answer within our own limit: proves nothing, so the check is unknown."""


@cache
def _trust() -> ssl.SSLContext:
    """The authorities that are trusted, read once: reading them takes longer than a request."""
    return httpx.create_ssl_context(trust_env=False)


class HttpDoor:
    """Requests to one target. `source` is the local address to bind (loopback targets only)."""

    def __init__(self, base_url: str, *, timeout_s: float = REQUEST_TIMEOUT_S, source: str | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self.exchanges: list[Exchange] = []
        transport = httpx.HTTPTransport(
            verify=_trust(),
            local_address=source,
            limits=httpx.Limits(max_connections=128, max_keepalive_connections=32, keepalive_expiry=KEEPALIVE_S),
        )
        self._client = httpx.Client(
            transport=transport, timeout=timeout_s, follow_redirects=False, trust_env=False, headers={}
        )

    def send(self, request: Request, *, timeout_s: float | None = None) -> Answer:
        """Send one request. Raise NoAnswer where there was none; milliseconds are from send to the last byte."""
        try:
            built = self._built(request, timeout_s)
        except (httpx.InvalidURL, ValueError) as error:
            raise NoAnswer(f"{request.method} {request.path}: {type(error).__name__}: {error}") from error
        started = time.perf_counter()
        at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        try:
            response = self._client.send(built)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoAnswer(f"{request.method} {request.path}: {type(error).__name__}: {error}") from error
        answer = Answer(
            response.status_code,
            tuple((k.lower(), v) for k, v in response.headers.multi_items()),
            response.content,
            (time.perf_counter() - started) * 1000,
        )
        self.exchanges.append(Exchange(request, answer, at))
        return answer

    def _built(self, request: Request, timeout_s: float | None) -> httpx.Request:
        built = httpx.Request(
            request.method,
            self.base_url + request.path,
            headers=[(k.encode("latin-1"), v.encode("utf-8", "surrogateescape")) for k, v in request.headers],
            content=request.body or None,
            extensions={} if timeout_s is None else {"timeout": httpx.Timeout(timeout_s).as_dict()},
        )
        if request.method in {"POST", "PUT", "PATCH"} and not request.body:
            built.headers["Content-Length"] = "0"
        return built

    def burst(self, requests: Sequence[Request]) -> list[Answer | NoAnswer]:
        """Send all at once, each from its own thread behind one barrier; answers in the order of the requests."""
        barrier = Barrier(len(requests))
        return self._together([lambda r=r: self._behind(barrier, r) for r in requests])  # type: ignore[misc]

    def _behind(self, barrier: Barrier, request: Request) -> Answer | NoAnswer:
        barrier.wait(timeout=10)
        try:
            return self.send(request)
        except NoAnswer as none:
            return none

    @staticmethod
    def _together(calls: Sequence[Callable[[], Answer | NoAnswer]]) -> list[Answer | NoAnswer]:
        with ThreadPoolExecutor(max_workers=len(calls)) as pool:
            return [f.result(timeout=60) for f in [pool.submit(call) for call in calls]]

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
