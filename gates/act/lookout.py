"""Who keeps a session of ours waiting. A dead session of ours that does is ended; anybody else is named."""

import threading
from dataclasses import dataclass
from typing import Self

import psycopg

from gates.act.acting import session
from gates.act.flag import UNREADABLE, rows
from gates.deployment.sql.database import Connection
from gates.deployment.sql.failures import in_words

BEGIN_AFTER_S = 0.3
"""A change that nobody keeps waiting is done by then, and nothing is looked at."""
POLL_S = 0.25
JOIN_S = 2.0
DEAD_AFTER_S = 1.0
"""A session of ours does its statements one right after the other: idle in a transaction for so long, it is stopped,
killed or cut off from the server."""
OURS = "replaygate"
WAITING = ("idle in transaction", "waiting for its client")
"""States in which it is the client's turn; the second is that of a message that was cut off in its middle."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session that keeps ours waiting, as far as this login may see it. pid 0: a prepared transaction."""

    pid: int
    login: str
    application: str
    state: str
    state_s: float | None
    transaction_s: float | None

    @property
    def dead(self) -> bool:
        """Whether it is a session of ours whose gate does not go on."""
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
    """Looks, over a connection of its own, for as long as a `with` block lasts. `blockers`: those seen last."""

    def __init__(self, url: str, pid: object) -> None:
        self._url, self._pid = url, pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="lookout", daemon=True)
        self.blockers: tuple[Blocker, ...] = ()
        self.notes: list[str] = []

    @property
    def blamed(self) -> str:
        """Who keeps the session waiting, in words. Nobody is blamed who was not seen."""
        named = ", ".join(str(one) for one in self.blockers[:3])
        return f"a lock that it needs is held by {named}" if named else ""

    def __enter__(self) -> Self:
        try:
            self._thread.start()
        except RuntimeError as error:  # no thread to be had: what it would look for is not worth a rollback
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
