"""Carries out a change that must happen: tries, reads back on a new connection, and retries for a given time.

It locks only the rows that it changes. A change is done only once it was read back. It happens even if its audit row
cannot be written.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psycopg

from gates.act.acting import connect
from gates.act.flag import Order, Tell, audit, count, rows
from gates.act.lookout import Lookout
from gates.deployment.identity import must_be_same
from gates.deployment.sql.database import Connection
from gates.deployment.sql.failures import in_words
from gates.evidence import JsonValue
from gates.text.quantity import with_unit

POLL_S = 0.25
MOST_UNDONE = 3
"""How often to repeat a change that is undone at once; more would fill the audit trail."""
IDLE_IN_TRANSACTION_MS = 10_000
"""Our statements follow each other at once, so the server may soon end a session that was cut off."""
MOST_LOST_IN_AUDIT = 2
"""After so many sessions lost while writing the audit row, the change goes first, and its audit row afterwards."""
SILENT_S = 15.0
"""How long an answer may take. A longer try got no answer, or the gate itself was stopped meanwhile."""
AS_MADE = "the change was made in"
TRANSIENT = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)
"""A lock, a lost connection, a restart, or a server that is read-only during a failover: it may pass."""


def went_away(error: Exception) -> bool:
    """Whether the server did not answer, is stopping or is not up yet: another server may answer next."""
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith("57P")


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What a new connection saw: done, not done, or None if unknown. final: retrying is useless."""

    done: bool | None
    why: str = ""
    final: bool = False


@dataclass(frozen=True, slots=True)
class Forced:
    """A change that must happen.

    words: what it does, as in "to ...". carry: makes the change in the given transaction and returns the details of the
    audit row, with `rows`. read_back: whether the change is done, given the id of its transaction. audit_nothing:
    whether a change of no row is audited, too. statement_timeout_ms: the limit of each statement.
    """

    words: str
    audited: str
    carry: Callable[[Connection], Mapping[str, JsonValue]]
    read_back: Callable[[Connection, str], ReadBack]
    audit_nothing: bool = False
    statement_timeout_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class Carried:
    """The result of a change: `done` as read back, changed rows, seconds, and remarks. blocker: the session that
    prevented it at the end, 0 for none. server: the database that it was made in. error: of the last try.
    """

    done: bool | None
    rows: int
    seconds: float
    why: str = ""
    notes: tuple[str, ...] = ()
    blocker: int = 0
    server: str = ""
    error: Exception | None = None


@dataclass(slots=True)
class _Try:
    """One try. committed: None if the connection was lost at the commit. server: where it was made, or has to be."""

    xid: str = ""
    server: str = ""
    details: Mapping[str, JsonValue] = field(default_factory=dict)
    committed: bool | None = False
    unaudited: Exception | None = None
    error: Exception | None = None
    why: str = ""
    blocker: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def lost(self) -> bool:
        """Whether the connection broke or timed out: the server reported no error."""
        return isinstance(self.error, psycopg.Error) and self.error.sqlstate is None

    @property
    def rows(self) -> int:
        return int(str(self.details.get("rows", 0))) if self.committed else 0


def insist(url: str, change: Forced, order: Order, clock: Callable[[], float], tell: Tell) -> Carried:
    """Make the change. Never raises: what went wrong is in the result. The longest wait without an answer does not
    count against the patience: time is left for another try.
    """
    started, patience_s = clock(), order.plan.rollback_patience_s
    silent_s = 0.0
    owed: _Try | None = None
    notes: list[str] = []
    changed = undone = lost_in_audit = 0
    told = ""
    server = order.seen.server if order.seen else ""
    while True:
        began = clock()
        tried = _try(url, change, order, server, audit_later=lost_in_audit >= MOST_LOST_IN_AUDIT)
        seen = _read_back(url, change, tried)
        server = tried.server or server
        changed += tried.rows
        if tried.committed and (tried.rows or change.audit_nothing):
            owed = tried if tried.unaudited is not None else None
        notes += [n for n in tried.notes if n not in notes]
        if seen.done:
            held = isinstance(tried.error, psycopg.errors.LockNotAvailable)
            notes += [f"{tried.why}, and what that commits may undo it: look again"] if held else []
            notes += _audited_late(url, change, order, owed) if owed else []
            tell(f"done and read back: {change.words} ({with_unit(changed, 'rows')}, {clock() - started:.1f} s)")
            return Carried(True, changed, clock() - started, notes=tuple(notes), server=tried.server)
        undone += tried.error is None and seen.done is False
        lost_in_audit += tried.error is not None and tried.unaudited is tried.error
        why = "; ".join(w for w in (tried.why, seen.why) if w)
        passing = isinstance(tried.error, TRANSIENT)
        final = undone >= MOST_UNDONE or (not passing and (seen.final or tried.error is not None))
        lasted_s = clock() - began
        if tried.lost or seen.done is None or lasted_s > SILENT_S:
            silent_s = max(silent_s, lasted_s)
        if final or clock() - started > patience_s + silent_s:
            undoer = ": a trigger or rule of its table, or somebody else, undoes it" if undone >= MOST_UNDONE else ""
            tries = undoer if final else f" (tried for {patience_s} s)"
            notes += [_without_row(change, owed.unaudited)] if owed and owed.unaudited else []
            took_s = clock() - started
            why = f"{why}{tries}"
            return Carried(seen.done, changed, took_s, why, tuple(notes), tried.blocker, error=tried.error)
        if why != told:
            tell(f"not yet possible to {change.words}: {why}; trying again until {patience_s} s are over")
            told = why
        time.sleep(POLL_S)


def _try(url: str, change: Forced, order: Order, server: str, *, audit_later: bool) -> _Try:
    tried = _Try(server=server)
    connection = None
    try:
        connection = connect(
            url, statement_timeout_ms=change.statement_timeout_ms, idle_in_transaction_ms=IDLE_IN_TRANSACTION_MS
        )
        with connection.transaction():
            own = rows(connection, "transaction", {})[0]
            tried.server, tried.xid = must_be_same(connection, server, "was judged, or tried before"), str(own["xid"])
            lookout = Lookout(url, own["pid"])
            try:
                with lookout:
                    _carry(connection, change, order, tried, audit_later=audit_later)
            finally:  # after its end: the last session that it ended is told, too
                tried.notes += lookout.notes
                tried.why, tried.blocker = lookout.blamed, next((b.pid for b in lookout.blockers), 0)
            tried.committed = None
        tried.committed, tried.why, tried.blocker = True, "", 0
    except Exception as error:  # noqa: BLE001  -- whatever went wrong, the flag is read back
        tried.error = error
        if connection is not None and not connection.closed:  # the server itself refused the commit
            tried.committed = False
        tried.why = tried.why if isinstance(error, psycopg.errors.LockNotAvailable) and tried.why else in_words(error)
    finally:
        if connection is not None:
            connection.close()
    return tried


def _carry(connection: Connection, change: Forced, order: Order, tried: _Try, *, audit_later: bool) -> None:
    tried.details = change.carry(connection)
    if not tried.details["rows"] and not change.audit_nothing:
        return
    if audit_later:
        tried.unaudited = psycopg.OperationalError("the session was lost whenever the row was written")
        return
    try:
        with connection.transaction():
            _audit(connection, change, order, tried)
    except Exception as error:  # no failure of an audit row may stop the change
        tried.unaudited = error
        if connection.closed:  # the change was rolled back with it
            raise


def _audit(connection: Connection, change: Forced, order: Order, tried: _Try) -> None:
    audit(connection, change.audited, order, int(str(tried.details["rows"])), tried.details)


def _read_back(url: str, change: Forced, tried: _Try) -> ReadBack:
    """Look on a new connection. If the old one was lost at the commit, also ask whether it was committed."""
    try:
        connection = connect(url, read_only=True)
    except psycopg.Error as error:
        return ReadBack(None, f"it cannot be read back: {in_words(error)}")
    try:
        must_be_same(connection, tried.server, AS_MADE)
        if tried.committed is None:
            status = str(rows(connection, "transaction_status", {"xid": tried.xid})[0]["status"])
            tried.committed = status == "committed"
            tried.notes.append(f"a connection was lost at the commit, which is {status}")
        return change.read_back(connection, tried.xid)
    except Exception as error:  # noqa: BLE001  -- what could not be read is not done
        return ReadBack(None, f"it cannot be read back: {in_words(error)}")
    finally:
        connection.close()


def _audited_late(url: str, change: Forced, order: Order, tried: _Try) -> list[str]:
    """Write the missing audit row of a committed change in a transaction of its own, unless that is useless."""
    if tried.unaudited is None:
        return []
    error = tried.unaudited
    if isinstance(error, TRANSIENT):
        try:
            with connect(url) as connection, connection.transaction():
                must_be_same(connection, tried.server, AS_MADE)
                _audit(connection, change, order, tried)
        except Exception as again:  # noqa: BLE001  -- as above
            error = again
        else:
            return []
    return [_without_row(change, error)]


def _without_row(change: Forced, error: Exception) -> str:
    return f"no audit row ({change.audited}) could be written: {in_words(error)}"


def wait_for_others(connection: Connection, name: str, values: Mapping[str, object]) -> None:
    """Lock the rows before they are changed: what an open transaction makes of them is not seen, and must be undone,
    too. A table whose rows cannot be locked is changed all the same.
    """
    try:
        with connection.transaction():
            rows(connection, name, values)
    except TRANSIENT:
        raise
    except psycopg.Error:
        return


def first_that_works(connection: Connection, names: tuple[str, ...], values: Mapping[str, object]) -> int:
    """Rows changed by the first statement that the server accepts. Raise the error of the last one. A table may have
    fewer columns than the contract says, or a login fewer rights.
    """
    for name in names[:-1]:
        try:
            with connection.transaction():
                return count(connection, name, values)
        except TRANSIENT:
            raise
        except psycopg.Error:
            continue
    return count(connection, names[-1], values)
