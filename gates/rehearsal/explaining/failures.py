"""Failures of statements, as the server reported them."""

from dataclasses import dataclass

import psycopg

from gates.rehearsal.reading.splitting import SqlStatement

UNREAD, LEFT_OPEN = "plpgsql", "open"
"""Codes of our own: a body that could not be checked; a transaction that nothing ends."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A statement that failed. `offset`: the place in its text, from 0, if the server gives one. `limit`: why the
    rehearsal ended it or cannot judge it, if so.
    """

    statement: SqlStatement
    number: int
    code: str
    message: str
    detail: str = ""
    hint: str = ""
    context: str = ""
    offset: int | None = None
    inner_query: str = ""
    inner_offset: int | None = None
    limit: str = ""


def failure_of(error: psycopg.Error, statement: SqlStatement, number: int, limit: str = "") -> Failure:
    """The failure that the server reported."""
    diag = error.diag
    place, inner = diag.statement_position, diag.internal_position
    return Failure(
        statement,
        number,
        error.sqlstate or "08006",
        (diag.message_primary or str(error)).strip(),
        diag.message_detail or "",
        diag.message_hint or "",
        diag.context or "",
        int(place) - 1 if place else None,
        diag.internal_query or "",
        int(inner) - 1 if inner else None,
        limit,
    )
