"""Logins and the database of a stack, on its own server or on a shared one.

Roles belong to the whole server, so a guest changes no existing role. It marks the roles that it creates. The last
stack on the server drops the marked roles without dependents.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from gates.stack.errors import StackError, StackOptionError
from gates.stack.postgres import connect

ROLES = ("replay_owner", "replay_service", "replay_worker", "replay_gate", "authenticated", "anon")
LOGINS = ("replay_service", "replay_worker", "replay_gate")
DROP_ORDER = ("replay_gate", "replay_worker", "replay_service", "authenticated", "anon", "replay_owner")
MARK = "made by a replaygate stack; dropped when nothing depends on it"
SERVER_VERSIONS = range(15, 19)
ADVISORY_LOCK = int.from_bytes(hashlib.sha256(b"replaygate stack roles").digest()[:8], "big", signed=True)
"""A lock in the server URL's database, held while roles and databases are created or dropped."""


@dataclass(frozen=True, slots=True)
class Login:
    """How a process logs in: usually as the role itself; as a guest beside another deployment, as a member of it."""

    user: str
    password: str

    def url(self, database_url: str) -> str:
        """The database's URL with this login instead of the superuser."""
        parts = urlsplit(database_url)
        place = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{quote(self.user)}:{quote(self.password)}@{place}"))


def database_url(server_url: str, database: str) -> str:
    """The server's URL with another database."""
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{database}"))


@contextmanager
def exclusively(connection: psycopg.Connection[tuple[object, ...]]) -> Iterator[None]:
    """One stack at a time creates or drops roles on a server. Waits at most the connection's lock_timeout."""
    connection.execute("select pg_advisory_lock(%s)", (ADVISORY_LOCK,))
    try:
        yield
    finally:
        connection.execute("select pg_advisory_unlock(%s)", (ADVISORY_LOCK,))


def examine(server_url: str) -> psycopg.Connection[tuple[object, ...]]:
    """Connect to the server that the user named. Raise StackOptionError if it is unsuitable."""
    if urlsplit(server_url).scheme not in {"postgresql", "postgres"}:
        raise StackOptionError(
            "--server does not begin with postgresql://; allowed: a URL of a PostgreSQL server. Correct the option"
        )
    try:
        connection = connect(server_url)
    except psycopg.Error as error:
        raise StackOptionError(
            f"--server cannot be reached: {_without_secrets(str(error), server_url)}; allowed: a PostgreSQL server "
            "that answers within 5 s. Start it or correct the URL"
        ) from None
    superuser = connection.execute("select rolsuper from pg_roles where rolname = current_user").fetchone()
    version = connection.info.server_version // 10_000
    if superuser != (True,) or version not in SERVER_VERSIONS:
        connection.close()
        raise StackOptionError(
            f"--server is PostgreSQL {version} and its login is {'' if superuser == (True,) else 'not '}a superuser; "
            "allowed: 15 to 18 and a superuser. Use another server or login"
        )
    return connection


def existing(connection: psycopg.Connection[tuple[object, ...]], names: Sequence[str] = ROLES) -> set[str]:
    rows = connection.execute("select rolname from pg_roles where rolname = any(%s)", (list(names),))
    return {str(row[0]) for row in rows}


def create_database(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    """An empty database with byte-order collation, like the embedded one's."""
    connection.execute(
        sql.SQL(
            "create database {} template template0 locale_provider libc encoding 'UTF8' lc_collate 'C' lc_ctype 'C'"
        ).format(sql.Identifier(name))
    )


def copy_database(connection: psycopg.Connection[tuple[object, ...]], name: str, template: str) -> None:
    """A copy of a database, with its privileges; disconnects everybody from the template."""
    connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (template,))
    copy = sql.SQL("create database {} template {} strategy file_copy")
    connection.execute(copy.format(sql.Identifier(name), sql.Identifier(template)))
    connection.execute(
        "update pg_database set datacl = (select datacl from pg_database where datname = %s) where datname = %s",
        (template, name),
    )


def drop_database(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    """Drop a database, and disconnect everybody from it."""
    connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@contextmanager
def anew(connection: psycopg.Connection[tuple[object, ...]]) -> Iterator[None]:
    """Recreate the roles of a deployment in the block; they get their old logins back."""
    rows = connection.execute(
        "select rolname, rolpassword from pg_authid where rolname = any(%s) and rolcanlogin", (list(ROLES),)
    ).fetchall()
    for role in DROP_ORDER:
        connection.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(role)))
    try:
        yield
    finally:
        for name, verifier in rows:
            if existing(connection, (str(name),)):
                login = sql.SQL("alter role {} login password {}")
                connection.execute(login.format(sql.Identifier(str(name)), sql.Literal(str(verifier))))


def password_key(connection: psycopg.Connection[tuple[object, ...]], server_url: str) -> bytes:
    """A secret that only superusers of the server know and that every stack on it derives alike. The password in the
    URL, else the server's verifier of the login's password, else (a server without passwords) a random one.
    """
    given = unquote(urlsplit(server_url).password or "")
    if given:
        return given.encode()
    row = connection.execute("select rolpassword from pg_authid where rolname = current_user").fetchone()
    return str(row[0]).encode() if row and row[0] else secrets.token_bytes(32)


def derive(key: bytes, role: str) -> str:
    """The password of a role: hex HMAC-SHA256 of its name."""
    return hmac.new(key, f"replaygate login {role}".encode(), hashlib.sha256).hexdigest()


def set_password(connection: psycopg.Connection[tuple[object, ...]], role: str, password: str) -> None:
    """Let a role log in. Only the scram verifier is sent, so no log can contain the password."""
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    connection.execute(sql.SQL("alter role {} login password {}").format(sql.Identifier(role), sql.Literal(verifier)))


def logins(
    connection: psycopg.Connection[tuple[object, ...]], url: str, created: Iterable[str], key: bytes, run: str
) -> dict[str, Login]:
    """A login for each role that needs one, by role.

    A role that this stack created gets its derived password. An existing role is not changed: if the derived password
    works (another stack made it), it is used; if not, this run creates a login of its own as a member of it.
    """
    made = set(created)
    found = {}
    for role in LOGINS:
        login = Login(role, derive(key, role))
        if role in made:
            set_password(connection, role, login.password)
        elif not _opens(login.url(url)):
            login = _guest(connection, role, run)
        found[role] = login
    return found


def _guest(connection: psycopg.Connection[tuple[object, ...]], role: str, run: str) -> Login:
    """A login of this run that always acts as an existing role."""
    login = Login(f"{role}_{run}", secrets.token_hex(32))
    connection.execute(
        sql.SQL("create role {} noinherit in role {}").format(sql.Identifier(login.user), sql.Identifier(role))
    )
    connection.execute(sql.SQL("alter role {} set role to {}").format(sql.Identifier(login.user), sql.Identifier(role)))
    set_password(connection, login.user, login.password)
    return login


def _opens(url: str) -> bool:
    try:
        connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Guest:
    """What a stack creates on a shared server: one database, missing roles, its own logins."""

    server_url: str
    database: str
    run: str
    missing: tuple[str, ...]

    def drop(self) -> None:
        """Drop the database, then the roles that stacks created and that have no dependents. Raise StackError if the
        database cannot be dropped.
        """
        with connect(self.server_url) as connection, exclusively(connection):
            try:
                drop_database(connection, self.database)
            except psycopg.Error as error:
                raise StackError(
                    f"The database {self.database} could not be dropped: "
                    f"{_without_secrets(str(error), self.server_url)}; allowed: nothing of a stack is left; on the "
                    f"server given by --server. Run: drop database {self.database} with (force)"
                ) from None
            made = {*self.missing, *_marked(connection)}
            for role in (*(f"{r}_{self.run}" for r in LOGINS), *(r for r in DROP_ORDER if r in made)):
                with suppress(psycopg.errors.DependentObjectsStillExist):  # another database uses it by now
                    connection.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(role)))


def mark(connection: psycopg.Connection[tuple[object, ...]], roles: Iterable[str]) -> None:
    """Mark each role as made by a stack."""
    for role in roles:
        connection.execute(sql.SQL("comment on role {} is {}").format(sql.Identifier(role), sql.Literal(MARK)))


def _marked(connection: psycopg.Connection[tuple[object, ...]]) -> set[str]:
    rows = connection.execute(
        "select rolname from pg_roles where rolname = any(%s) and shobj_description(oid, 'pg_authid') = %s",
        (list(ROLES), MARK),
    )
    return {str(row[0]) for row in rows}


def _without_secrets(text: str, server_url: str) -> str:
    password = urlsplit(server_url).password
    return " ".join((text.replace(password, "***") if password else text).split())
