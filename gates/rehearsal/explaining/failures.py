"""What the server said of a statement that it refused."""

from dataclasses import dataclass

import psycopg

from gates.rehearsal.reading.splitting import SqlStatement

UNREAD, LEFT_OPEN = "plpgsql", "open"
"""In the place of the server's code: a body that could not be looked at; a transaction that nothing ends."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A statement that the server refused. `offset`: where in its text, from 0, if the server says. `limit`: why the
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
    """What the server said."""
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
