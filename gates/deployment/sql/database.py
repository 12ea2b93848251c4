"""SQL access: connections with limits, and SQL read from .sql files beside the module that uses it.

Every wait has a limit on both sides. The server ends a session of ours that is left in a transaction, and notices a
client that the network cut off; the client closes a connection whose server no longer answers.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from gates.deployment.dialect.current import named
from gates.deployment.sql.cells import TOLERANCE
from gates.deployment.sql.connection import Answering, AnswerRows, Connection, PinningCursor, by_name
from gates.errors import first_line

__all__ = ["Connection", "connect", "execute", "lending", "script", "session", "sql", "value"]

STATEMENT_TIMEOUT_MS = 10_000
LOCK_TIMEOUT_MS = 2_000
IDLE_IN_TRANSACTION_MS = 60_000
"""Longer than the longest step of a drill that keeps a transaction open, and than the time between two renewals."""
CONNECT_TIMEOUT_S = 5
"""For the first address; all others together have as long again."""
ANSWER_GRACE_S = 5.0
"""How long the client waits after the server's own limit: no later answer ever comes."""
KEEPALIVE: Mapping[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""For the client; the server is asked for the same."""
PINNED = {"search_path": "pg_catalog,pg_temp"}
"""A name without a schema is PostgreSQL's own, whatever an owner of the target created in `public`."""
RELIED_ON: Mapping[str, str] = {
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    "row_security": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "exit_on_error": "off",
    "client_min_messages": "error",
}
"""Settings that a database may have changed the defaults of.

How values are written in both directions, that policies bind tenants, that an error ends a statement and not its
session, and that no notices are sent, since functions may send any number.
"""
READ_AS = {"EUC_TW": "UTF8", "MULE_INTERNAL": "SQL_ASCII"}
"""Database encodings that Python does not know -> the client encoding to use instead."""
STANDBY = "DATABASE_URL names a standby, which only reads. Name the primary"
REFUSED_AT_START = re.compile("parameter|option", re.IGNORECASE)
"""What a pooler says if it lets no client choose the settings of a session at its start."""
SHOWN = ("search_path", "intervalstyle", "bytea_output", "extra_float_digits")
"""Settings that a server shows as they were given."""
SWITCHES = ("timezone", "row_security", "standard_conforming_strings", "quote_all_identifiers")
"""More settings for a session of our own: a pooler keeps those above, or none."""
TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
FIRING, FIRES = "session_replication_role", "origin"
"""A login may be set to session_replication_role = replica: then no trigger fires and no reference is checked."""
WHOLE_LIMIT, SINCE = "transaction_timeout", 170_000
"""PostgreSQL 17 added a limit of whole transactions. Ours are unlimited: their statements have limits, and a
transaction that a drill holds open must not be cut.
"""
UNITS = {"d": 86_400_000, "h": 3_600_000, "min": 60_000, "s": 1_000, "ms": 1}
"""Units in which a server shows a limit: the largest one without a remainder."""

LENDING = "GATE_POOLER"
"""The variable that tells the process of a suite how a pooler lends its sessions."""
SESSION, TRANSACTION = "session", "transaction"
MEETINGS = 3
"""How often two clients try to meet in one session."""

_POOLED: dict[str, str] = {}
"""URL of a pooler that keeps our settings for a transaction -> how long it lends a session."""
_LOOK = (
    "select pg_catalog.pg_backend_pid() as pid, pg_catalog.current_setting('{}') as fires,"
    " pg_catalog.current_setting('{}', true) as whole_limit, array[{}] as found".format(
        FIRING,
        WHOLE_LIMIT,
        ", ".join(f"pg_catalog.current_setting('{name}')" for name in (*SHOWN, *SWITCHES, *TIMEOUTS)),
    )
)
_OWN_FIRING = f"""select setting, session_user::text as login from pg_catalog.pg_settings
 where name = '{FIRING}' and setting <> '{FIRES}' and source in ('user', 'database user', 'client')"""


def connect(
    url: str,
    *,
    read_only: bool = False,
    autocommit: bool = True,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    idle_in_transaction_ms: int = IDLE_IN_TRANSACTION_MS,
    primary: bool = False,
) -> Answering:
    """A connection whose every wait has a limit. Raise psycopg.OperationalError if there is no database.

    primary: connect to the primary only. Where the URL names several hosts and does not say which kind is wanted, that
    is so anyway: what a standby shows may be late. A standby named alone may be read, and is never written to.

    A server of our own keeps the settings for the session. A pooler may lend another session for the next transaction,
    so each transaction begins with the settings. A pooler that does not keep them even that long is refused.
    """
    settings = {
        "statement_timeout": str(statement_timeout_ms),
        "lock_timeout": str(LOCK_TIMEOUT_MS),
        "idle_in_transaction_session_timeout": str(idle_in_transaction_ms),
        **PINNED,
        **RELIED_ON,
    }
    ours = (
        None if url in _POOLED else _direct(url, settings, read_only=read_only, autocommit=autocommit, primary=primary)
    )
    connection = ours or _open(url, autocommit=autocommit, primary=primary)
    if not (read_only or primary) and connection.pgconn.parameter_status(b"in_hot_standby") == b"on":
        connection.close()
        raise psycopg.errors.FeatureNotSupported(STANDBY)
    connection.answer_limit_s = statement_timeout_ms / 1000 + ANSWER_GRACE_S
    connection.read_only = read_only
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    if ours is None:
        connection.pins = settings | ({WHOLE_LIMIT: "0"} if connection.info.server_version >= SINCE else {})
        if url not in _POOLED:
            _prove(connection, acts=primary)
            _POOLED[url] = SESSION
    return connection


def lending(url: str) -> str:
    """How long a pooler at this URL lends a session; empty if none was seen. SESSION until one did better."""
    return _POOLED.get(url, "")


def told(environ: Mapping[str, str]) -> None:
    """Take over what the environment of a suite says of the pooler."""
    if environ.get(LENDING):
        _POOLED[environ["DATABASE_URL"]] = environ[LENDING]


def see_lending(url: str) -> None:
    """Find out whether the pooler lends by transaction: two idle clients then get the same session at times. Raise
    psycopg.Error if it cannot be asked.
    """
    with session(url, read_only=True) as one:
        if not one.is_pooled:
            return
        with session(url, read_only=True) as other:
            if any(_look(one)["pid"] == _look(other)["pid"] for _ in range(MEETINGS)):
                _POOLED[url] = TRANSACTION


def _direct(
    url: str, settings: Mapping[str, str], *, read_only: bool, autocommit: bool, primary: bool
) -> Answering | None:
    """A connection to a session that is ours until we close it; None if a pooler is in between."""
    of_session = {
        **settings,
        "default_transaction_read_only": "on" if read_only else "off",
        "default_transaction_isolation": r"read\ committed",
        "idle_session_timeout": 0,
        **{name if name.startswith("tcp_") else f"tcp_{name}": limit for name, limit in KEEPALIVE.items()},
    }
    try:
        connection = _open(url, autocommit=autocommit, settings=of_session, primary=primary)
    except psycopg.OperationalError as error:
        if REFUSED_AT_START.search(str(error)):
            return None
        raise
    try:
        seen = _look(connection)
        connection.rollback()
        if _is_ours(connection, seen, settings):
            if seen["whole_limit"] not in {None, "0"}:
                connection.give({WHOLE_LIMIT: "0"})
                connection.commit()
            if seen["fires"] != FIRES:
                with suppress(psycopg.errors.InsufficientPrivilege):
                    connection.give({FIRING: FIRES})
                connection.commit()
                _must_fire(connection, acts=primary)
                connection.commit()
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None


def _must_fire(connection: Answering, *, acts: bool) -> None:
    """Raise psycopg.OperationalError if triggers are off for this login only: others see different behaviour. If they
    are off for the whole database, that is how it is. A rollback is made all the same.
    """
    found = execute(connection, _OWN_FIRING)
    if found and not acts:
        raise psycopg.OperationalError(
            f"no trigger fires for the gate's login: it has {FIRING} = {found[0]['setting']} of its own."
            f" ALTER ROLE {found[0]['login']} RESET {FIRING}, or use another login"
        )


def _open(
    url: str, *, autocommit: bool, settings: Mapping[str, object] | None = None, primary: bool = False
) -> Answering:
    """A connection in the database's encoding, or in another that Python knows: a setting may say anything."""
    connection = _begun(url, autocommit=autocommit, settings=settings, primary=primary, client_encoding="")
    told = connection.pgconn.parameter_status  # that of `info` needs the encoding
    given, own = ((told(name) or b"").decode("utf-8", "replace") for name in (b"client_encoding", b"server_encoding"))
    wanted = READ_AS.get(own, own)
    if given == wanted:
        return connection
    connection.close()
    return _begun(url, autocommit=autocommit, settings=settings, primary=primary, client_encoding=wanted)


def _begun(
    url: str, *, autocommit: bool, settings: Mapping[str, object] | None, primary: bool, client_encoding: str
) -> Answering:
    asked = " ".join(f"-c {name}={setting}" for name, setting in (settings or {}).items())
    theirs = conninfo_to_dict(url)
    # with `read-write`, libpq would refuse every server for our read-only sessions
    any_host = "," in f"{theirs.get('host')}{theirs.get('hostaddr')}" and "target_session_attrs" not in theirs
    writable = primary or any_host or theirs.get("target_session_attrs") == "read-write"
    return Answering.within(
        2 * CONNECT_TIMEOUT_S,
        url,
        autocommit=autocommit,
        connect_timeout=CONNECT_TIMEOUT_S,
        options=f"{theirs.get('options') or ''} {asked}".strip(),
        application_name="replaygate",
        row_factory=by_name,
        cursor_factory=PinningCursor,
        context=TOLERANCE,
        prepare_threshold=None,  # a prepared statement lives in one session, and the next one may differ
        **KEEPALIVE,
        **({"target_session_attrs": "primary"} if writable else {}),
        **({"client_encoding": client_encoding} if client_encoding else {}),
    )


def _is_ours(connection: Answering, seen: Mapping[str, object], settings: Mapping[str, str]) -> bool:
    """Whether the session took the settings, and is the one that the connection was told of at its start. A pooler
    gives each client a number of its own for cancel requests. A login trigger may have changed the settings.
    """
    wanted = [settings[name] for name in (*SHOWN, *SWITCHES)] + [in_units(settings[name]) for name in TIMEOUTS]
    return seen["pid"] == connection.info.backend_pid and seen["found"] == wanted


def _prove(connection: Answering, *, acts: bool) -> None:
    """Close the connection and raise psycopg.OperationalError if the pooler keeps no settings for a transaction, or if
    no trigger fires for this login.
    """
    try:
        with connection.transaction():
            found = _look(connection)["found"]
    except psycopg.Error as error:
        found = first_line(error)
    found = found[: len(SHOWN)] if isinstance(found, list) else found
    if found != _shown(connection.pins):
        connection.close()
        raise psycopg.OperationalError(
            f"a pooler is between the gate and this database, and settings of a transaction do not last through it:"
            f" {_shown(connection.pins)} asked for, {found} observed."
            " Have it lend by transaction or by session, not by statement"
        )
    try:
        _must_fire(connection, acts=acts)
    except psycopg.Error:
        connection.close()
        raise


def _look(connection: Answering) -> dict[str, object]:
    return execute(connection, _LOOK)[0]


def in_units(limit_ms: str) -> str:
    """Milliseconds as a server shows them."""
    number = int(limit_ms)
    unit = next(unit for unit, each in UNITS.items() if number % each == 0)
    return f"{number // UNITS[unit]}{unit}" if number else "0"


def _shown(settings: Mapping[str, str]) -> list[str]:
    return [settings[name] for name in SHOWN]


@contextmanager
def session(
    url: str,
    *,
    read_only: bool = False,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    idle_in_transaction_ms: int = IDLE_IN_TRANSACTION_MS,
) -> Iterator[Answering]:
    """A connection that is closed at the end."""
    connection = connect(
        url,
        read_only=read_only,
        statement_timeout_ms=statement_timeout_ms,
        idle_in_transaction_ms=idle_in_transaction_ms,
    )
    try:
        yield connection
    finally:
        connection.close()


@cache
def sql(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def execute(connection: Connection, statement: str, *params: object) -> list[dict[str, object]]:
    """Run one statement; returns its rows, none for a statement without rows."""
    cursor = connection.execute(statement.encode(), params or None)
    return cursor.fetchall() if cursor.description else AnswerRows()


def script(connection: Connection, statements: str) -> None:
    """Run several statements of our own as one text; it contains no name and no value of the target."""
    psycopg.Cursor(connection).execute(named(statements).encode())


def value(connection: Connection, statement: str, *params: object) -> object:
    """The first column of the first row, or None."""
    rows = execute(connection, statement, *params)
    return next(iter(rows[0].values())) if rows else None


def backend_of(connection: Connection) -> int:
    """The server's process that runs a connection's transaction. A pooler gives another id at connect."""
    return int(str(value(connection, "select pg_catalog.pg_backend_pid()")))
