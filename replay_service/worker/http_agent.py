"""The agent outside of the database. Only a worker that has it imports its HTTP client."""

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx

from replay_service.worker.agents import Event, Failure, write_body

MAX_ERROR_TEXT = 500


class HttpAgent:
    """POST the event to a URL, signed like the contract's requests (v2), its stable id as the idempotency key."""

    name = "http"

    def __init__(self, url: str, secret: bytes, timeout_s: float, clock: Callable[[], float]) -> None:
        self._url, self._secret, self._clock, self._timeout_s = url, secret, clock, timeout_s
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        # the pool's wait has no limit of its own: deliver limits the whole
        timeout = httpx.Timeout(self._timeout_s, pool=None)
        self._client = httpx.AsyncClient(limits=limits, timeout=timeout, follow_redirects=False, trust_env=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def deliver(self, event: Event) -> Failure | None:
        if self._client is None:
            raise RuntimeError("HttpAgent.deliver outside of its `async with`; enter it first")
        body = write_body(event)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": event.event_id,
            "X-Transbot-Signature": self._sign(body),
        }
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.post(self._url, content=body, headers=headers)
        except (TimeoutError, httpx.TimeoutException):
            return Failure("agent_timeout", f"the agent did not answer within {self._timeout_s:g} s")
        except httpx.HTTPError as error:
            return Failure("agent_unreachable", f"{type(error).__name__}: {error}"[:MAX_ERROR_TEXT])
        if response.is_success:
            return None
        return Failure(f"agent_http_{response.status_code}", f"the agent answered {response.status_code}")

    def _sign(self, body: bytes) -> str:
        stamp = str(int(self._clock()))
        mac = hmac.new(self._secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        return f"t={stamp},v2={mac}"
