"""Canary events: their way from commit to effect, measured end to end, and whether the agent did its work."""

import datetime as dt
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gevent

from gates.deployment.ids import answered
from loadtests.engine.drive import PLAIN, Call, Drive, Terms
from loadtests.engine.wire import Connection
from loadtests.engine.workload import Workload
from loadtests.engine.written import MOST

POLLS_S = (0.03, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Waits between two polls; the last one repeats. Between two polls the server's own times count."""

ASK_PER_S = 40.0
"""Most polls a second of one process: when many events wait, polling must not become the load."""

REPLICA_S = 6.0
"""How long a read may fail to find an event that was taken: a replica may answer. The drills tell of it."""

SAME_S = 0.025
"""A service may take an event's commit from one row of it or another, which were written one after the other."""

DEAD = frozenset({"dead", "failed", "dead_letter", "dead_lettered"})


@dataclass(slots=True)
class Canaries:
    """Follows every accepted event until its effect or until `patience_s` after the end of the run."""

    drive: Drive
    workload: Workload
    patience_s: float
    ask: Callable[[Call, Connection, Terms], int]
    give_up_at: float = math.inf
    accepted: int = 0
    direct: int = 0
    watching: dict[str, float] = field(default_factory=dict)
    committed: dict[tuple[str, str], str] = field(default_factory=dict)
    """By event and company: the commit time of its first answer. The second look asks for these again."""
    told: dict[str, set[str]] = field(default_factory=dict)
    """By commit time: the events for which an answer gave it."""

    def send(self, connection: Connection, terms: Terms) -> None:
        """Post one event and follow it in the background."""
        made = self.workload.event()
        if made is None:
            return
        call, company = made
        status = self.ask(call, connection, terms)
        if not 200 <= status < 300:
            return
        self.accepted += 1
        answer = answered(connection.body)
        event_id = str(answer.get("event_id"))
        if answer.get("path") == "direct":
            self.direct += 1
            return
        if not self.workload.has_event_status:
            return
        sent, done = connection.started, connection.ended
        self.watching[event_id] = done
        self.drive.spawn(lambda: self._follow(event_id, company, sent, done))

    def _follow(self, event_id: str, company: str, sent: float, done: float) -> None:
        """Ask until there is an effect. An event without one counts with its age, a lower bound of its lag."""
        unseen, turn, is_found = done, 0, False
        while True:
            gevent.sleep(self._pause_s(turn))
            turn += 1
            connection = self.drive.borrow()
            asked = time.perf_counter()
            is_new = not is_found and asked < done + REPLICA_S
            status = self.ask(self.workload.event_status(event_id, company, is_new=is_new), connection, PLAIN)
            seen, answer = connection.ended, answered(connection.body) if status == 200 else {}
            self.drive.give_back(connection)
            self.compare(event_id, company, answer)
            if answer.get("effect_at"):
                lag = lag_ms(answer.get("committed_at"), answer["effect_at"], unseen - done, seen - sent)
                self._note("outbox_lag_ms", lag, sent)
                self._note("agent_success", 1, sent)
                break
            if str(answer.get("status", "")).lower() in DEAD:
                self._note("agent_success", 0, sent)
                break
            if status == 200:
                unseen, is_found = asked, True
            if time.perf_counter() > self.give_up_at:
                if status == 200:
                    self._note("outbox_lag_ms", (unseen - done) * 1000.0, sent, source="undelivered")
                break
        self.watching.pop(event_id, None)

    def compare(self, event_id: str, company: str, answer: Mapping[str, object]) -> None:
        """Compare the commit time of two answers about one event. If they differ and one of them was also given for
        another event, the service mixes events up. Two spellings of one time do not count.
        """
        told, known = str(answer.get("committed_at") or ""), self.committed.get((event_id, company))
        if not told or (known is None and len(self.committed) >= MOST):
            return
        self.told.setdefault(told, set()).add(event_id)
        if known is None:
            self.committed[event_id, company] = told
        elif (apart := differ(known, told)) is not None:
            of_another = (self.told[told] | self.told[known]) != {event_id}
            self.drive.samples.add("answers_mixed", apart and of_another)

    def _note(self, metric: str, value: float, sent: float, source: str = "canary") -> None:
        self.drive.samples.add_at(metric, value, sent - self.drive.started, {"source": source})

    def _pause_s(self, turn: int) -> float:
        wait = max(POLLS_S[min(turn, len(POLLS_S) - 1)], len(self.watching) / ASK_PER_S if turn else 0.0)
        return max(0.01, min(wait, self.give_up_at - time.perf_counter() + 0.01))

    def drain(self) -> None:
        """Stop following `patience_s` from now at the latest."""
        self.give_up_at = time.perf_counter() + self.patience_s


def lag_ms(committed_at: Any, effect_at: Any, least_s: float, most_s: float) -> float:
    """The lag in milliseconds: what the server says, held within what we saw ourselves.

    least_s: from the answer to the POST until the last question that found no effect; most_s: from the sending of the
    POST until the answer that showed the effect. A server whose times do not fit gets the nearer end.
    """
    claimed = _seconds_between(committed_at, effect_at)
    least_s = max(0.0, least_s)
    most_s = max(least_s, most_s)
    return (most_s if math.isnan(claimed) else min(max(claimed, least_s), most_s)) * 1000.0


def differ(first: str, second: str) -> bool | None:
    """Whether two times are not the same, as far as the coarser of them tells; None where one is no time."""
    apart_s = abs(_seconds_between(first, second))
    is_whole = any("." not in one for one in (first, second))
    return None if math.isnan(apart_s) else apart_s > (1.0 if is_whole else SAME_S)


def _seconds_between(first: Any, second: Any) -> float:
    try:
        return (dt.datetime.fromisoformat(str(second)) - dt.datetime.fromisoformat(str(first))).total_seconds()
    except (ValueError, TypeError):
        return math.nan
