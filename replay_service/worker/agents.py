"""Agents do the work of an event. `deliver` returns None when it is done, else why it failed.

The database records effects, once per event; an agent outside of it (http) sees an event at least once and refuses a
second one by the event's stable id.
"""

import asyncio
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

MAX_DELAY_MS = 5000


@dataclass(frozen=True, slots=True)
class Event:
    outbox_id: int
    event_id: str
    company_id: str
    event_type: str
    aggregate_key: str | None
    payload_text: str  # JSON as the database writes it: numbers keep their digits
    is_scripted: bool  # a drill event of a drill company, with a script in payload.drill
    failures: int  # attempts at it that have failed so far
    replay_run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed: a stable kind and a text for people, both without secrets."""

    error_type: str
    message: str


class Agent(Protocol):
    """Something that does the work of an event."""

    name: str

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def deliver(self, event: Event) -> Failure | None:
        """Do the work; None on success. Ends within the lease."""
        ...


class SqlAgent:
    """Its only work is the effect row, which the settling statement writes; so `deliver` cannot fail."""

    name = "sql"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def deliver(self, event: Event) -> Failure | None:  # noqa: ARG002  -- the protocol's
        return None


class ScriptedAgent:
    """The drill agent of the contract, section 4: a scripted event is delayed and fails as its payload says.

    fail_times counts failures of the event over all its outbox rows; -1 fails always. Other events go to `behind`.
    """

    def __init__(self, behind: Agent) -> None:
        self._behind = behind
        self.name = behind.name

    async def __aenter__(self) -> Self:
        await self._behind.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._behind.__aexit__(kind, error, trace)

    async def deliver(self, event: Event) -> Failure | None:
        if not event.is_scripted:
            return await self._behind.deliver(event)
        fail_times, delay_ms = read_script(json.loads(event.payload_text))
        if delay_ms:
            await asyncio.sleep(delay_ms / 1000)
        if fail_times == -1 or event.failures < fail_times:
            return Failure(
                "drill_failure", f"scripted: fail_times is {fail_times}, failed {event.failures} times before"
            )
        return await self._behind.deliver(event)


def read_script(payload: Any) -> tuple[int, int]:
    """(fail_times, delay_ms) of payload.drill; missing or malformed counts as 0, a delay is cut to 0..5000 ms."""
    script = payload.get("drill") if isinstance(payload, dict) else None
    if not isinstance(script, dict):
        return 0, 0
    fail_times, delay_ms = script.get("fail_times"), script.get("delay_ms")
    fails = fail_times if isinstance(fail_times, int) and not isinstance(fail_times, bool) and fail_times >= -1 else 0
    if isinstance(delay_ms, bool) or not isinstance(delay_ms, int | float):
        return fails, 0
    return fails, int(min(max(delay_ms, 0), MAX_DELAY_MS))


def write_body(event: Event) -> bytes:
    """The event as an http agent gets it; the payload's text goes in as it is."""
    head = json.dumps(
        {
            "event_id": event.event_id,
            "company_id": event.company_id,
            "event_type": event.event_type,
            "aggregate_key": event.aggregate_key,
            "attempt": event.failures + 1,
        }
    )
    return f'{head[:-1]}, "payload": {event.payload_text}}}'.encode()
