"""A PostgreSQL for one rehearsal, with its own folder and roles; nothing of it is left at the end.

The rehearsed code is foreign. It runs as `postgres`, who owns the database, may create roles and is no superuser, as on
a hosted platform: so the server itself refuses programs, files, untrusted languages and changes to its settings.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from gates.errors import CannotWork, UsageError
from gates.rehearsal.postgres import installation
from gates.stack import rundir
from gates.stack.account import Account, postgres_account
from gates.stack.errors import StackError
from gates.stack.janitor import Janitor
from gates.stack.postgres import Postgres, Server, binaries, connect
from gates.stack.rundir import RunFolder
from gates.stack.spawner import Spawner

OWNER, ADMIN, DATABASE = "postgres", "rehearsal_admin", "rehearsal"
STATEMENT_LIMIT_S = 30
ENDINGS = {"idle_in_transaction_session_timeout": 10, "idle_session_timeout": 14, "transaction_timeout": 17}
"""Settings that may end a healthy session, and the major version that introduced each."""
OF_FILES = ("pg_execute_server_program", "pg_read_server_files", "pg_write_server_files")
"""Before PostgreSQL 16, whoever may create roles may grant himself these. They are removed from the server."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A running server: its major version and its folder."""

    server: Server
    version: int
    password: str
    folder: Path

    def owner(self, database: str = DATABASE) -> str:
        """The URL of the role that runs the migrations."""
        return self.server.url(database, OWNER, self.password)

    def session(self, database: str = DATABASE, *, path: str = "") -> psycopg.Connection[Any]:
        """A session of the role that runs the migrations, protected from settings that would end it or return bytes for
        text. `path`: the search path to use.
        """
        given = {name: "0" for name, since in ENDINGS.items() if self.version >= since}
        given |= {"statement_timeout": f"{2 * STATEMENT_LIMIT_S}s"} | ({"search_path": path} if path else {})
        return psycopg.connect(
            self.owner(database),
            autocommit=True,
            connect_timeout=5,
            client_encoding="UTF8",
            options=" ".join(f"-c {name}={value}" for name, value in given.items()),
        )

    def furnish(self, statements: str) -> None:
        """Run a superuser's set-up of the database, before anything foreign is in it. Raise psycopg.Error."""
        with psycopg.connect(self.server.url(DATABASE, ADMIN, self.password), autocommit=True) as connection:
            connection.execute(statements.encode())

    def _run_as_admin(self, statement: str) -> None:
        """Run it in the server's own database. In the migrations' database a superuser would run what they planted,
        such as an operator found before the server's.
        """
        with connect(self.server.url("postgres", ADMIN, self.password)) as connection:
            connection.execute(statement.encode())

    def let_in(self) -> None:
        """Restore login and database access of the migrations' role, in case they locked themselves out."""
        limits = "connection limit -1 valid until 'infinity'"
        for statement in (
            f"alter role {OWNER} with login password '{self.password}' {limits}",
            f"alter database {DATABASE} with allow_connections true connection limit -1",
        ):
            self._run_as_admin(statement)

    def copy_database(self, name: str) -> None:
        """Copy the database as it is now; nobody may be connected to it."""
        self._run_as_admin(f"create database {name} owner {OWNER} template {DATABASE}")


@contextmanager
def throw_away(environ: Mapping[str, str], version: int | None, roles: Sequence[str] = ()) -> Iterator[Rehearsed]:
    """The server for a `with` block; `roles` are created in it. Raise UsageError for a version that is not installed,
    CannotWork if it does not start.
    """
    with ExitStack() as undo:
        try:
            found = _start(undo, environ, version, roles)
        except (StackError, OSError, psycopg.Error) as error:
            raise CannotWork(f"the server of the rehearsal did not come up: {error}") from error
        yield found


def _start(undo: ExitStack, environ: Mapping[str, str], version: int | None, roles: Sequence[str]) -> Rehearsed:
    account = postgres_account()
    places = rundir.places(environ, account)
    rundir.sweep(places)
    run = rundir.create(places, account)
    janitor = Janitor(run)
    undo.callback(janitor.dismiss)
    undo.callback(run.remove)
    spawner = Spawner()
    undo.callback(spawner.close)
    password = secrets.token_hex(32)
    programs = installation.furnish(_programs(version, account, run), run.path / "installation")
    postgres = Postgres(run, account, spawner, password, programs)
    undo.callback(postgres.stop)
    postgres.create()
    server = postgres.start()
    if postgres.pid:
        run.record([(postgres.name, postgres.pid)])
    return Rehearsed(server, _make_roles(server, password, roles), password, run.path)


def _programs(version: int | None, account: Account, run: RunFolder) -> Path:
    embedded = binaries(account, run)
    have = {**installation.versions(), installation.major(embedded): embedded}
    if version is None:
        return embedded
    if version not in have:
        names = ", ".join(map(str, sorted(have)))
        raise UsageError(
            f"--server-version {version}: it is not installed; allowed: {names}. Install PostgreSQL {version}, or "
            "leave the option out"
        )
    return have[version]


def _make_roles(server: Server, password: str, roles: Sequence[str]) -> int:
    """Create roles and database; returns the major version. A plain role gets the name of the initial superuser."""
    with connect(server.url("postgres")) as root:
        root.execute(f"create role {ADMIN} superuser login password '{password}'")
    with connect(server.url("postgres", ADMIN)) as admin:
        admin.execute(f"alter role {OWNER} rename to rehearsal_root")
        admin.execute(f"create role {OWNER} login createrole createdb bypassrls replication password '{password}'")
        version = admin.info.server_version // 10_000
        if version < 16:
            admin.execute("set allow_system_table_mods = on")
            admin.execute("delete from pg_catalog.pg_authid where rolname = any(%s)", (list(OF_FILES),))
        for name in roles:
            admin.execute(sql.SQL("create role {}").format(sql.Identifier(name)))
            admin.execute(sql.SQL("grant {} to postgres with admin option").format(sql.Identifier(name)))
        admin.execute(f"create database {DATABASE} owner {OWNER} template template0")
        for name in roles:  # objects may be given to them
            admin.execute(sql.SQL("grant create on database rehearsal to {}").format(sql.Identifier(name)))
        settings = {"temp_file_limit": "1GB"}
        if version >= 16:  # whoever creates a role may act as it, like a superuser
            settings["createrole_self_grant"] = "set, inherit"
        for name, value in settings.items():
            admin.execute(sql.SQL("alter role postgres set {} = {}").format(sql.Identifier(name), sql.Literal(value)))
    with connect(server.url(DATABASE, ADMIN)) as admin:
        for name in roles:
            admin.execute(sql.SQL("grant create, usage on schema public to {}").format(sql.Identifier(name)))
    return version
