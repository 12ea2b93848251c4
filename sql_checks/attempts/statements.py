"""Runs many statements as tenants in one round trip, each with its result: a probe has hundreds of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from gates.deployment.dialect.current import current, named, tenant_session, written
from gates.deployment.sql.catalogue import with_fragments
from gates.deployment.sql.cells import with_values
from gates.deployment.sql.database import Connection, sql
from gates.deployment.sql.failures import LATE, LOCKED, RIGHTS, in_words, told_in_words

RUN = Path(__file__).with_name("statements.sql")
REFUSED = "42501"
"""insufficient_privilege, which row security and missing rights give."""
UNFIT = "42P10"
"""invalid_column_reference: no unique key has the form that ON CONFLICT names."""
OURS = ("08", "25", "40", "53", "55", "57", "58", "XX")
"""Classes of SQLSTATE about connections, limits and locks, which say nothing about a policy."""
UNRESOLVED = ("3F000", "42703", "42704", "42883", "42P01")
"""SQLSTATEs of a name that was not found. The tenants' own search_path may find it."""
TENANTS_PATH = '"$user", public, extensions'
"""The search_path of a function of the target that sets none, when a tenant calls it."""


Look = tuple[str, Sequence[object]]
"""A query and its values."""


@dataclass(frozen=True, slots=True)
class TenantStatement:
    """A statement, the values for its placeholders, and who runs it: a tenant's role with these claims (None: unset),
    or the login itself. exempt: with row security off, as an owner has it. keep: it is not undone.
    read_only: it may change nothing even while it runs. look: a query of the login afterwards, before it is undone,
    and its values; the rows that it finds count, too. see: so, but a query of the tenant.
    """

    statement: str
    values: Sequence[object] | dict[str, object] = ()
    role: str | None = None
    claims: str | None = None
    exempt: bool = False
    keep: bool = False
    every_row: bool = False
    read_only: bool = False
    look: Look | None = None
    see: Look | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of one statement of a tenant: rows it saw or touched, or the error with its SQLSTATE.

    entered: whether the login may be that role.
    """

    rows: int = 0
    state: str = ""
    error: str = ""
    entered: bool = True

    @property
    def refused(self) -> bool:
        return self.state == REFUSED

    @property
    def raised(self) -> bool:
        """Whether the target's own policy, view or function raised it, since the login runs the same statement."""
        ours = not self.state or self.state.startswith(OURS) or self.state in UNRESOLVED
        return bool(self.error) and not self.refused and not ours

    @property
    def is_cut_short(self) -> bool:
        """Whether a lock of another session, or a limit on time, ended it: it may succeed at another time."""
        return self.state in {LATE, LOCKED}

    @property
    def unclear(self) -> bool:
        """Neither rows nor a refusal nor the target's own error: it proves nothing."""
        return bool(self.error) and not self.refused and not self.raised


def attempt(connection: Connection, asked: Sequence[TenantStatement], *, whole: bool = False) -> list[Attempt]:
    """Run each statement within the open transaction; the results in the same order.

    If an error ends the batch (a limit of ours, a name that the deployment does not have), the halves are run again,
    until only the statement that caused it has the error. whole: they are not run again, and all have the error.
    """
    if not asked:
        return []
    try:
        return _together(connection, asked)
    except psycopg.Error as error:
        if connection.closed:
            raise
        connection.execute("rollback to savepoint attempts")
        if whole or len(asked) == 1:
            return [Attempt(state=error.sqlstate or "", error=in_words(error))] * len(asked)
    half = len(asked) // 2
    return attempt(connection, asked[:half]) + attempt(connection, asked[half:])


def _together(connection: Connection, asked: Sequence[TenantStatement]) -> list[Attempt]:
    with connection.pipeline():
        connection.execute("savepoint attempts")
        told = [_told(connection, one) for one in asked]  # may find a table absent: after the savepoint
        text = json.dumps(told, ensure_ascii=False)  # a database in SQL_ASCII reads no escaped letter
        connection.execute("select pg_catalog.set_config('replaygate.attempts', %s, true)", (text,))
        connection.execute(with_fragments(sql(RUN)).encode())
        done = connection.execute("select pg_catalog.current_setting('replaygate.attempted') as done")
        connection.execute("release savepoint attempts")
    (row,) = done.fetchall()
    found: list[tuple[bool, int, str, str, str]] = json.loads(str(row["done"]))
    return [
        Attempt(touched, state, _said(one, said, state, place) if state else "", entered or one.role is None)
        for one, (entered, touched, state, said, place) in zip(asked, found, strict=True)
    ]


def _said(one: TenantStatement, said: str, state: str, place: str) -> str:
    """The server's error in words; where rights are missing, names the role that lacks them."""
    if one.role and state == RIGHTS:
        return f"the role {current().roles.get(one.role) or one.role} may not: {said}"
    return told_in_words(said, state, place)


def _told(connection: Connection, one: TenantStatement) -> dict[str, object]:
    return {
        "statement": _filled(connection, one.statement, one.values, every_row=one.every_row),
        "look": _filled(connection, *one.look, every_row=True) if one.look else None,
        "see": _filled(connection, *one.see, every_row=True) if one.see else None,
        "enter": named(f"set local role {one.role}") if one.role else None,
        "claims": one.claims,
        "setting": tenant_session({})[0],
        "path": TENANTS_PATH,
        "exempt": one.exempt,
        "keep": one.keep,
        "read_only": one.read_only,
    }


def _filled(connection: Connection, query: str, given: Sequence[object] | dict[str, object], *, every_row: bool) -> str:
    statement, values = written(query, given, every_row=every_row)
    return with_values(connection, statement, values)
