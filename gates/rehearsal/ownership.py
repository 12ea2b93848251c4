"""What a restore does as a superuser: it gives objects to roles that may make none in the schema."""

import re

import psycopg
from psycopg import sql

from gates.rehearsal.failures import Failure
from gates.rehearsal.splitting import SqlStatement


def may_own(connection: psycopg.Connection[object], statement: SqlStatement, failure: Failure) -> sql.Composed | None:
    """Let the new owner make objects in the schema; the statement that takes this back. None where that is not it."""
    schema = re.fullmatch(r"permission denied for schema (.+)", failure.message)
    if failure.code != "42501" or schema is None or statement.plain[-3:-1] != ("owner", "to"):
        return None
    names = sql.Identifier(schema[1]), sql.Identifier(statement.plain[-1])
    try:
        connection.execute(sql.SQL("grant create on schema {} to {}").format(*names))
    except psycopg.Error:
        return None
    return sql.SQL("revoke create on schema {} from {}").format(*names)
