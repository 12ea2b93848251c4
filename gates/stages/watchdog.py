"""A watchdog beside a stage: if an address of the target stays unreachable, it ends the stage and says why.

It looks every few seconds, over HTTP and SQL. Time is not counted while the gate itself stands still, or while a drill
stops the stack's processes on purpose.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import psycopg

from gates.decision.unreachable import ANSWERED_UNTIL
from gates.deployment.control import is_disrupted
from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.http.limits import within
from gates.deployment.redaction import hidden, redact_text
from gates.deployment.requests import Request
from gates.deployment.sql.database import Connection, execute
from gates.deployment.sql.failures import in_words
from gates.deployment.standstill import own_standstill
from gates.deployment.target import Target
from gates.evidence import CheckSpec, Evidence, Outcome, stamp
from gates.evidence_file import read_lines
from gates.stages.preflight.database import DATABASE, connected
from gates.stages.preflight.endpoints import REACHABLE, reachable
from gates.stages.preflight.looks import LookResult

PATIENCE_S = 20.0
"""A shorter outage is a restart of the target."""
EVERY_S = 2.0
LOOK_S = 6.0
"""A target under load may be slow; one without an answer for so long, look after look, is frozen."""
MOST_STANDSTILL_S = 1.0
"""A look during which the gate itself stood still for longer tells nothing."""
POLL_S = 0.1
AGAIN = "; it answered again once that was over: it may be too small for what was sent"


class Watchdog:
    """A context beside a stage. shut: evidence of the addresses that stayed unreachable, the cause first; empty if none
    did. On exit during an outage, it waits until that ends or has lasted long enough.
    """

    def __init__(self, target: Target, stage: str, *, http: bool = True) -> None:
        self._target = target
        self._doors = [_Watched(target, stage, check, look) for check, look in looks_of(target, http=http)]

    def __enter__(self) -> Self:
        for door in self._doors:
            door.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while kind is None and not self.fired and any(door.is_shut for door in self._doors):
            time.sleep(POLL_S)
        for door in self._doors:
            door.end()
            if kind is None and door.fired:
                door.join()

    @property
    def fired(self) -> bool:
        """Whether an address has been unreachable for longer than the patience."""
        return any(door.fired for door in self._doors)

    @property
    def shut(self) -> list[Evidence]:
        if not self.fired:
            return []
        first, *more = [door.evidence() for door in self._doors if door.is_shut]
        return [first, *(dataclasses.replace(e, blocked_by=first.check) for e in more)]


class _Watched(threading.Thread):
    """One address, looked at again and again."""

    def __init__(self, target: Target, stage: str, check: CheckSpec, look: Look) -> None:
        super().__init__(name=f"watchdog-{check.id}", daemon=True)
        self._target, self._stage, self._check, self._look = target, stage, check, look
        self._over = threading.Event()
        self._began = self._open_until = time.monotonic()
        self._clock = dt.datetime.now(dt.UTC)
        self._shut_s = 0.0
        self._shut_at: float | None = None
        self._why = self._again = ""

    def run(self) -> None:
        while not self.fired and not self._over.wait(EVERY_S):
            self._round()
        if self.fired:
            self._over.wait()
            self._again = "" if _looked(self._look).unreachable else AGAIN
        self._look.close()

    def end(self) -> None:
        """Stop looking; a look that hangs ends by itself."""
        self._over.set()

    @property
    def is_shut(self) -> bool:
        return self._shut_at is not None

    @property
    def fired(self) -> bool:
        return self._shut_s >= PATIENCE_S

    def _round(self) -> None:
        before, disrupted = time.monotonic(), is_disrupted(self._target.control)
        seen = _looked(self._look)
        now = time.monotonic()
        stood_still = own_standstill().lost_s(before) > MOST_STANDSTILL_S
        if not seen.unreachable or disrupted or is_disrupted(self._target.control):
            self._open_until, self._shut_at, self._shut_s = before, None, 0.0
        elif self._shut_at is None and not stood_still:
            self._shut_at, self._why, self._shut_s = before, seen.message, now - before
        elif not stood_still:  # the pause before this look counts, except for standstill
            self._shut_s += now - before + EVERY_S

    def evidence(self) -> Evidence:
        """The evidence of an unreachable address."""
        shut_at = self._open_until if self._shut_at is None else self._shut_at
        at, told = self._at(shut_at), self._why
        since = f"the target stopped answering at {at:%H:%M:%S}, {shut_at - self._began:.0f} s into {self._stage}"
        message = f"{since}: {told}{self._again}"
        return Evidence(
            self._check.id,
            Outcome.UNKNOWN,
            redact_text(message, hidden(self._target)),
            samples=1,
            started_at=stamp(at),
            duration_ms=round(self._shut_s * 1000, 1),
            release=self._target.release,
            details={"unreachable": True, ANSWERED_UNTIL: self._at(self._open_until).isoformat()},
        )

    def _at(self, when: float) -> dt.datetime:
        return self._clock + dt.timedelta(seconds=when - self._began)


class Look(Protocol):
    def __call__(self) -> LookResult: ...
    def close(self) -> None: ...


def looks_of(target: Target, *, http: bool = True) -> list[tuple[CheckSpec, Look]]:
    """A look for each given address, and the check of which an outage is evidence."""
    service: list[tuple[CheckSpec, Look]] = [(REACHABLE, _Http(target))] if http and target.base_url else []
    return [*service, (DATABASE, _Database(target))] if target.database_url else service


def known_shut(evidence: Path, *, http: bool = True) -> list[Evidence]:
    """What a run has already seen of unreachable addresses."""
    doors = {DATABASE.id, *([REACHABLE.id] if http else [])}
    return [e for e in read_lines(evidence) if e.check in doors and e.details.get("unreachable")]


def _looked(look: Look) -> LookResult:
    try:
        return within(look, 2 * LOOK_S + 1.0)
    except (RuntimeError, MemoryError) as error:  # this machine has no thread or memory for a look
        return LookResult(Outcome.UNKNOWN, in_words(error))
    except Exception as error:  # noqa: BLE001  -- no answer of a target may end the gate
        return LookResult(Outcome.UNKNOWN, f"{in_words(error)}. Check that it runs", unreachable=True)


class _Http:
    """The health page and the function itself: the page alone is not the target."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def __call__(self) -> LookResult:
        with HttpDoor(self._target.base_url, timeout_s=LOOK_S) as door:
            seen = reachable(self._target, door)
            if seen.unreachable:
                return seen
            try:
                door.send(Request("GET", "/dlq-replay"))
            except NoAnswer as error:
                message = f"/healthz answers, and nothing behind it: {in_words(error)}. Check that it runs"
                return LookResult(Outcome.UNKNOWN, message, unreachable=True)
        return seen

    def close(self) -> None:
        """Each look has a connection of its own."""


class _Database:
    """`select 1` over a connection that stays open, so that a crowd cannot keep us out; over a new one if it broke."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._kept: Connection | None = None

    def __call__(self) -> LookResult:
        kept, self._kept = self._kept, None
        try:
            self._kept = within(lambda: self._asked(kept), LOOK_S)
        except (psycopg.Error, OSError) as error:
            message = f"the database does not answer: {in_words(error)}. Check that it runs"
            return LookResult(Outcome.UNKNOWN, message, unreachable=True)
        return LookResult(Outcome.PASS, samples=1)

    def _asked(self, kept: Connection | None) -> Connection:
        if kept is not None:
            with contextlib.suppress(psycopg.Error):
                execute(kept, "select 1")
                return kept
            kept.close()
        return connected(self._target.database_url)

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
