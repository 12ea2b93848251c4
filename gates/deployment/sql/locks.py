"""Who holds the lock that a statement waited for in vain, in the same words wherever one did."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from gates.deployment.sql.catalogue import with_fragments
from gates.deployment.sql.database import Connection, execute
from gates.deployment.sql.failures import in_words

HOLDERS = "select {{lock_holders}} as holders"


def holders_of(connection: Connection) -> str:
    """Who holds locks now. Raise psycopg.Error."""
    return str(execute(connection, with_fragments(HOLDERS))[0]["holders"] or "whoever held it is gone")


def with_holders(error: psycopg.errors.LockNotAvailable, holders: str) -> psycopg.errors.LockNotAvailable:
    """The error with the holders in its message; one that names them already as it is."""
    if not holders or not error.diag.message_primary:
        return error
    return psycopg.errors.LockNotAvailable(f"{in_words(error)}: {holders}")


@contextmanager
def naming_holders(connection: Connection) -> Iterator[None]:
    """Raise a LockNotAvailable of a transaction of this connection, which is over then, with the holders' names."""
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        holders = ""
        with suppress(psycopg.Error):
            connection.rollback()
            holders = holders_of(connection)
        raise with_holders(error, holders) from error
