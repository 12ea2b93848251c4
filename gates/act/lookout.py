"""Finds the sessions that block ours. Ends them if they are dead sessions of ours; names all others."""

import threading
from dataclasses import dataclass
from typing import Self

import psycopg

from gates.act.acting import session
from gates.act.flag import UNREADABLE, rows
from gates.deployment.sql.database import Connection
from gates.deployment.sql.failures import in_words

BEGIN_AFTER_S = 0.3
"""A change that is not blocked is done by then, and nothing is looked at."""
POLL_S = 0.25
JOIN_S = 2.0
DEAD_AFTER_S = 1.0
"""Our sessions never pause. One that is idle in a transaction for so long was stopped, killed or cut off."""
OURS = "replaygate"
WAITING = ("idle in transaction", "waiting for its client")
"""States in which the server waits for the client; in the second one, for the rest of a message."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session that blocks ours, as far as this login may see it. pid 0: a prepared transaction."""

    pid: int
    login: str
    application: str
    state: str
    state_s: float | None
    transaction_s: float | None

    @property
    def dead(self) -> bool:
        """Whether it is a session of a gate that was stopped, killed or cut off."""
        lasts = self.state_s is not None and self.state_s >= DEAD_AFTER_S
        return bool(self.pid) and lasts and self.application.startswith(OURS) and self.state.startswith(WAITING)

    def __str__(self) -> str:
        if not self.pid:
            return "a prepared transaction (see pg_prepared_xacts)"
        state = self.state or "in a state that this login may not see"
        since = f" for {self.state_s:.0f} s" if self.state_s is not None else ""
        begun = f", transaction begun {self.transaction_s:.0f} s ago" if self.transaction_s is not None else ""
        # repr: both are foreign text
        return f"pid {self.pid} (login {self.login!r}, application {self.application!r}, {state}{since}{begun})"


class Lookout:
    """Looks for blockers over a second connection while a `with` block lasts. `blockers`: the last ones seen."""

    def __init__(self, url: str, pid: object) -> None:
        self._url, self._pid = url, pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="lookout", daemon=True)
        self.blockers: tuple[Blocker, ...] = ()
        self.notes: list[str] = []

    @property
    def blamed(self) -> str:
        """Who blocks the session, in words. Only sessions that were seen are named."""
        named = ", ".join(str(one) for one in self.blockers[:3])
        return f"a lock that it needs is held by {named}" if named else ""

    def __enter__(self) -> Self:
        try:
            self._thread.start()
        except RuntimeError as error:  # a failed start of the thread must not stop a rollback
            self.notes.append(f"who holds a lock cannot be seen: {error}")
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(JOIN_S)

    def _look(self) -> None:
        if self._stop.wait(BEGIN_AFTER_S):
            return
        try:
            with session(self._url) as connection:
                while True:
                    found = tuple(blocker_of(r) for r in rows(connection, "blockers", {"pid": self._pid}))
                    self.blockers = found or self.blockers
                    for one in found:
                        self._end(connection, one)
                    if self._stop.wait(POLL_S):
                        return
        except UNREADABLE as error:
            self.notes.append(f"who holds the lock could not be seen: {in_words(error)}")

    def _end(self, connection: Connection, one: Blocker) -> None:
        if not one.dead:
            return
        try:
            rows(connection, "end_session", {"pid": one.pid})
        except psycopg.errors.InsufficientPrivilege:
            note = f"{one} is a gate that does not go on, and this login may not end its session"
        else:
            note = f"the session of a gate that does not go on was ended: {one}"
        if not any(str(one.pid) in said for said in self.notes):
            self.notes.append(note)


def blocker_of(row: dict[str, object]) -> Blocker:
    """A row of blockers.sql or flag_lock_holder.sql."""

    def seconds(name: str) -> float | None:
        return None if row[name] is None else float(str(row[name]))

    def text(name: str) -> str:
        return str(row[name] or "")[:60]

    pid = int(str(row["pid"]))
    return Blocker(pid, text("login"), text("application"), text("state"), seconds("state_s"), seconds("transaction_s"))
