"""Live rows that a drill sets for a moment and restores: the global row of a flag, the pause of everybody.

Both writes are a compare-and-set on the whole row and on the transaction that wrote it. If somebody else wrote the row
meanwhile, even the same values, their row stays. The record of a loan is a row of feature_flags with a key of its own:
it commits with the first write and is deleted with the second. Only a login that may change flags can write there, so a
forged record gains nothing. A killed run leaves its record, and the next run restores the row.
"""

import enum
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from gates.deployment.sql.database import Connection, execute
from gates.deployment.sql.kept import borrowed
from gates.deployment.tenants.leftovers import HELD, TIMED, is_over

PREFIX = "drill.loan."
ACTOR = "replaygate:drill"
SET, GIVEN_BACK, KEPT = "drill_switch_set", "drill_switch_given_back", "drill_switch_kept"
"""Actions of the audit rows. None of them is a step of the flag: they have no `to`."""

Values = Mapping[str, bool | int | str | None]
_LEASE = re.compile(rf"([{HELD}{TIMED}])([0-9]{{1,12}})")
_STATE = "(pg_catalog.to_jsonb(r) || pg_catalog.jsonb_build_object('xmin', r.xmin::text))"
"""Every column of a row, whatever a deployment has, and the transaction that wrote it."""


class Changed(Exception):  # noqa: N818  -- an outcome, not an error
    """Somebody else changed the row, or there is not exactly one such row. It is left alone."""


class Ending(enum.StrEnum):
    """How a loan ended: the row was restored; somebody changed it, so it is left alone; or another run had ended it."""

    GIVEN_BACK = "given back"
    KEPT = "kept"
    BEFORE = "ended before"


@dataclass(frozen=True, slots=True)
class LiveRow:
    """One live row: the global row of a flag, or, without a key, the pause of everybody."""

    key: str = ""

    @property
    def table(self) -> sql.SQL:
        return sql.SQL("public.feature_flags") if self.key else sql.SQL("public.agent_controls")

    @property
    def is_row(self) -> sql.Composed:
        """The condition on `r` that selects it."""
        key = sql.SQL(" and r.key = {}").format(sql.Literal(self.key)) if self.key else sql.SQL("")
        return sql.SQL("r.company_id is null") + key

    @property
    def record(self) -> str:
        """The key of the row that records its loan: one loan at a time for each switch."""
        return PREFIX + (self.key or "everybody")

    @property
    def name(self) -> str:
        return f"the global row of {self.key}" if self.key else "the pause of everybody"


@dataclass(frozen=True, slots=True)
class Loan:
    """A loan of a row. The row as found (empty: there was none) and as the drill wrote it, both as JSON text; what was
    set; the run, and its lease as in the names of its tenants.
    """

    id: str
    key: str
    run: str
    lease: str
    values: Values
    found: str
    written: str

    @property
    def switch(self) -> LiveRow:
        return LiveRow(self.key)

    @property
    def before(self) -> dict[str, Any]:
        """The columns that were set, with their old values."""
        found = json.loads(self.found) if self.found else {}
        return {name: found.get(name) for name in self.values}


def lend(connection: Connection, switch: LiveRow, values: Values, *, run: str, lease: str) -> Loan:
    """Set these columns of the row, and record that. Raise Changed if somebody else changes it at that moment, or if
    another drill has it set.
    """
    with _together(connection):
        if execute(connection, "select key from public.feature_flags where key = %s", switch.record):
            raise Changed(f"another drill has set {switch.name}; it stays as it is. Run again")
        found = state_of(connection, switch)
        try:
            done = _update(connection, switch, found, values) if found else _insert(connection, switch, values)
        except psycopg.errors.UniqueViolation:
            done = 0
        if done != 1:
            raise Changed(f"somebody else changed {switch.name} just now; it stays as it is. Run again")
        written = state_of(connection, switch)
        loan = Loan(uuid.uuid4().hex, switch.key, run, lease, dict(values), found, written)
        execute(
            connection,
            "insert into public.feature_flags (key, enabled, rollout_percentage, description)"
            " values (%s, false, 0, %s)",
            switch.record,
            json.dumps(asdict(loan)),
        )
        _audit(connection, SET, loan)
    return loan


def give_back(connection: Connection, loan: Loan) -> Ending:
    """Restore the row, unless somebody changed it meanwhile. Happens once per loan, whoever asks."""
    switch = loan.switch
    with _together(connection):
        ended = (
            "delete from public.feature_flags where key = %s and pg_catalog.strpos(description, %s) > 0 returning key"
        )
        if not execute(connection, ended, switch.record, loan.id):
            return Ending.BEFORE
        done = _update(connection, switch, loan.written, loan.before) if loan.found else _delete(connection, loan)
        if done > 1:
            raise Changed(f"{done} rows are {switch.name}; allowed: one. Remove the other by hand")
        _audit(connection, GIVEN_BACK if done else KEPT, loan)
    return Ending.GIVEN_BACK if done else Ending.KEPT


def give_back_for_the_dead(url: str) -> list[tuple[Loan, Ending]]:
    """End the loans of dead runs; leave those of living runs alone. Raise psycopg.Error if the database refuses."""
    ended = []
    with borrowed(url) as connection:
        now = None
        for loan in _open(connection):
            parts = _LEASE.fullmatch(loan.lease)
            if parts is None or not is_over(connection, loan.run):
                continue
            now = now or int(str(execute(connection, "select extract(epoch from now())::bigint as now")[0]["now"]))
            if parts[1] == HELD or int(parts[2]) < now:
                ended.append((loan, give_back(connection, loan)))
    return [one for one in ended if one[1] is not Ending.BEFORE]


def state_of(connection: Connection, switch: LiveRow) -> str:
    """The row as JSON text; empty if there is none. Raise Changed if there are several."""
    query = sql.SQL("select {state}::text as state from {table} r where {is_row}")
    rows = connection.execute(_composed(query, switch)).fetchall()
    if len(rows) > 1:
        raise Changed(f"{len(rows)} rows are {switch.name}; allowed: one. Remove the others by hand")
    return str(rows[0]["state"]) if rows else ""


def _open(connection: Connection) -> list[Loan]:
    """The recorded loans. A record that is not ours is left alone."""
    rows = execute(
        connection,
        "select description from public.feature_flags where pg_catalog.starts_with(key, %s) and company_id is null",
        PREFIX,
    )
    found = []
    for row in rows:
        try:
            found.append(Loan(**json.loads(str(row["description"]))))
        except (ValueError, TypeError, RecursionError):
            continue
    return found


# --- compare and set ---------------------------------------------------------------------------------------------


@contextmanager
def _together(connection: Connection) -> Iterator[None]:
    """One transaction, in UTC: all sessions write times alike."""
    with connection.transaction():
        execute(connection, "set local timezone to 'UTC'")
        yield


def _composed(query: sql.SQL, switch: LiveRow, **parts: sql.Composable) -> sql.Composed:
    return query.format(state=sql.SQL(_STATE), table=switch.table, is_row=switch.is_row, **parts)


def _update(connection: Connection, switch: LiveRow, expected: str, values: Values) -> int:
    columns = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in values.items()]
    query = sql.SQL("update {table} r set {columns} where {is_row} and {state} = %s::jsonb")
    return connection.execute(_composed(query, switch, columns=sql.SQL(", ").join(columns)), (expected,)).rowcount


def _insert(connection: Connection, switch: LiveRow, values: Values) -> int:
    if not switch.key:
        raise Changed("agent_controls has no row for everybody; allowed: one. Insert it")
    columns = {"key": switch.key, **values}
    query = sql.SQL("insert into {table} ({columns}) values ({literals})")
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    literals = sql.SQL(", ").join(map(sql.Literal, columns.values()))
    return connection.execute(_composed(query, switch, columns=names, literals=literals)).rowcount


def _delete(connection: Connection, loan: Loan) -> int:
    query = sql.SQL("delete from {table} r where {is_row} and {state} = %s::jsonb")
    return connection.execute(_composed(query, loan.switch), (loan.written,)).rowcount


def _audit(connection: Connection, action: str, loan: Loan) -> None:
    """Audit what was found, what was written and what is there now."""
    now = state_of(connection, loan.switch) if action == KEPT else ""
    told = {**asdict(loan), "loan": loan.id, "now": now, "reason": "a disruptive drill"}
    execute(
        connection,
        "insert into public.audit_logs (action, actor, scope, target_count, success_count, failure_count, metadata)"
        " values (%s, %s, 'all', 1, 1, 0, %s)",
        action,
        ACTOR,
        Jsonb(told),
    )
