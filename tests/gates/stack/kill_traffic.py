"""Replays and events, each sent under the same key until it is answered."""

import itertools
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Event, Lock, Thread
from typing import Self

import psycopg

from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.requests import Answer, Request, replay_fields, signed_post
from gates.deployment.sql.database import execute, session
from gates.stack.plan import StackInfo

PACE_S = 0.005
RETRY_S = 0.03
SENDERS = 4
REQUEST_TIMEOUT_S = 5.0
MOST_ATTEMPTS = 1000
"""Attempts at one request, at RETRY_S each: longer than any crash takes to mend."""

FAULTY_DEPLOYMENT = {0, 409, 429, 503}
"""What may be answered while something is dead: nothing, `in_progress`, `rate_limited` (retries count, too),
`unavailable`."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A replay that was answered 200; `lost`: an earlier request with its key was not answered, or `unavailable`."""

    company: str
    key: str
    run: str
    items: tuple[str, ...]
    lost: bool
    duplicate: bool


@dataclass
class Traffic:
    """A steady stream from several threads for the length of the block; `replayed` and `accepted` were answered."""

    info: StackInfo
    companies: Sequence[str]
    direct: str
    """A tenant that the outbox is off for."""
    replayed: list[Replayed] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: list[str] = field(default_factory=list)
    """Requests that were never answered as they should be; empty at the end, or something is stuck."""

    def __post_init__(self) -> None:
        self._ending, self._lock = Event(), Lock()
        self._door = HttpDoor(self.info.base_url, timeout_s=REQUEST_TIMEOUT_S)
        loops: list[Callable[[], None]] = [partial(self._replays, self.companies[n::SENDERS]) for n in range(SENDERS)]
        loops.append(partial(self._events, [*self.companies[:4], self.direct]))
        self._threads = [Thread(target=loop, daemon=True) for loop in loops]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(timeout=60)
        self._door.close()

    def _replays(self, companies: Sequence[str]) -> None:
        for company in itertools.cycle(companies):
            if self._ending.wait(PACE_S):
                return
            key = f"kill-{uuid.uuid4()}"
            answer, lost = self._insist(replay_request(self.info, company, key), 200, company)
            if answer:
                told = answer.json()
                items = tuple(map(str, told["items"]))
                run = Replayed(company, key, str(told["replay_run_id"]), items, lost, bool(told["duplicate"]))
                self.replayed.append(run)

    def _events(self, companies: Sequence[str]) -> None:
        for number, company in enumerate(itertools.cycle(companies)):
            if self._ending.wait(PACE_S):
                return
            event = str(uuid.uuid4())
            fields: dict[str, object] = {
                "company_id": company,
                "event_type": "drill.kill",
                "aggregate_key": f"k{number % 7}",
                "payload": {"drill": {"delay_ms": 20}} if number % 3 == 0 else {"n": number},
                "event_id": event,
            }
            answer, _ = self._insist(signed_post("/events", fields, self.info.hmac_secret, f"event {event}"), 202)
            if answer:
                self.accepted.append(event)

    def _insist(self, request: Request, wanted: int, limited: str = "") -> tuple[Answer | None, bool]:
        """Send until the expected answer; returns whether a crash interfered. An unexpected answer that no crash
        explains ends it; the end of the stream does not, since each key must be answered after the repair.
        """
        statuses: list[int] = []
        while len(statuses) < MOST_ATTEMPTS:
            answer = self._send(request)
            statuses.append(answer.status if answer else 0)
            if answer and answer.status == wanted:
                return answer, not {0, 503}.isdisjoint(statuses)
            if statuses[-1] not in FAULTY_DEPLOYMENT:
                break
            if statuses[-1] == 429:
                forget_limit(self.info.database_url, limited)
            else:
                Event().wait(RETRY_S)
        self.unanswered.append(f"{request.label}: {statuses[-3:]}")
        return None, True

    def _send(self, request: Request) -> Answer | None:
        answer: Answer | None = None
        with suppress(NoAnswer):
            answer = self._door.send(request)
        with self._lock:
            self.statuses[answer.status if answer else 0] += 1
        return answer


def replay_request(info: StackInfo, company: str, key: str) -> Request:
    """A replay of up to ten items under a key."""
    fields = replay_fields(company, max=10, idempotency_key=key)
    return signed_post("/dlq-replay", fields, info.hmac_secret, f"replay {key}")


def forget_limit(url: str, company: str) -> None:
    """Reset a tenant's rate limit, if the database answers."""
    with suppress(psycopg.Error), session(url) as connection:
        execute(connection, "delete from public.edge_rate_limits where starts_with(key, %s)", f"replay:{company}:")
