"""A small real HTTP server that behaves well or badly on purpose: delays, errors, stalls, effects that never come."""

import datetime as dt
import json
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from gates.proof.workbench.servers import Asked, Reply, serve
from tests.waiting import pause


@dataclass
class Behaviour:
    """`delay_s` by the number of the request; `status` likewise; `lag_s` None: no event ever has its effect.

    `replay_delay_s` and `replay_status` are those of the replay calls alone; `lag_growth` adds so many seconds to the
    lag with each second of the run. Reads find no event that is younger than `behind_s`. A stall begins `stall_at_s`
    after the first request and delays every request until it is over.
    """

    delay_s: Callable[[int], float] = lambda _number: 0.0
    status: Callable[[int], int] = lambda _number: 200
    lag_s: float | None = 0.02
    replay_delay_s: Callable[[int], float] = lambda _number: 0.0
    replay_status: Callable[[int], int] = lambda _number: 200
    lag_growth: float = 0.0
    behind_s: float = 0.0
    path: str = "outbox"
    release: str = "r1"
    stall_at_s: float | None = None
    stall_s: float = 0.0
    first_at: float = 0.0
    count: int = 0
    replays: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    events: dict[str, dt.datetime] = field(default_factory=dict)

    def next(self) -> int:
        with self.lock:
            self.first_at = self.first_at or time.monotonic()
            self.count += 1
            return self.count

    def next_replay(self) -> int:
        with self.lock:
            self.replays += 1
            return self.replays

    def lag_at(self, committed: dt.datetime) -> dt.timedelta | None:
        """How long an event from this time waits for its effect."""
        if self.lag_s is None:
            return None
        begun = min(self.events.values())
        return dt.timedelta(seconds=self.lag_s + self.lag_growth * (committed - begun).total_seconds())

    def wait_of_stall(self) -> float:
        """How long a request at this time waits for the stall to end."""
        if self.stall_at_s is None:
            return 0.0
        at = time.monotonic() - self.first_at - self.stall_at_s
        return self.stall_s - at if 0 <= at < self.stall_s else 0.0


def target(behaviour: Behaviour) -> AbstractContextManager[str]:
    """The base URL of a running server of this behaviour."""

    def answer(asked: Asked) -> Reply:
        number = behaviour.next()
        wait_s = max(behaviour.delay_s(number), behaviour.wait_of_stall())
        status = behaviour.status(number)
        if asked.path.endswith("/dlq-replay"):
            replay = behaviour.next_replay()
            wait_s, status = max(wait_s, behaviour.replay_delay_s(replay)), behaviour.replay_status(replay)
        pause(wait_s)  # the fault itself
        document = _document(behaviour, asked)
        if status == 200 and asked.path.endswith("/events"):
            status = 202
        status = 404 if document is None else status
        return Reply(status, (), json.dumps(document or {}).encode())

    return serve(answer)


def _document(behaviour: Behaviour, asked: Asked) -> dict[str, object] | None:
    now = dt.datetime.now(dt.UTC)
    if asked.method == "POST" and asked.path.endswith("/events"):
        event_id = json.loads(asked.body)["event_id"]
        behaviour.events[event_id] = now
        return {"event_id": event_id, "path": behaviour.path, "duplicate": False}
    if asked.method == "POST" and asked.path.endswith("/dlq-replay"):
        wanted = json.loads(asked.body)
        status, key = "dry_run" if wanted.get("dry_run") else "started", wanted.get("idempotency_key", "made-up")
        return {"status": status, "company_id": wanted["company_id"], "idempotency_key": key, "items": []}
    if asked.path.endswith("/version"):
        return {"release": behaviour.release}
    committed = behaviour.events.get(asked.path.rpartition("/")[2])
    if committed is None:
        return {}
    if (now - committed).total_seconds() < behaviour.behind_s:
        return None
    lag = behaviour.lag_at(committed)
    effect = committed + lag if lag is not None else None
    done = effect is not None and now >= effect
    return {
        "status": "processed" if done else "pending",
        "committed_at": committed.isoformat(),
        "effect_at": effect.isoformat() if effect is not None and done else None,
    }
