"""Runs the statements one after another and goes on after errors, so that one rehearsal shows every cause.

Each file has a session of its own, as with psql or a migration tool. Inside a transaction each statement has a
savepoint. A statement has limits of time, rows and disk space.
"""

import re
import shutil
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from gates.rehearsal.bodies import BodyCheck, function_made
from gates.rehearsal.explaining.failures import LEFT_OPEN, Failure, failure_of
from gates.rehearsal.explaining.history import SchemaHistory
from gates.rehearsal.postgres.server import STATEMENT_LIMIT_S, Rehearsed
from gates.rehearsal.reading.rewriting import Unknown, with_values
from gates.rehearsal.reading.scripting import Script
from gates.rehearsal.reading.splitting import SqlStatement

MOST_ROWS = 100_000
LEAST_FREE_BYTES = 512 * 1024 * 1024
MOST_SECONDS = 600.0
READS = {"select", "with", "values", "table", "show", "explain", "fetch", "("}
CONTROLS = {"begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "prepare"}
KEEPS_SCHEMA = {
    *("insert", "update", "delete", "merge", "copy", "set", "reset", "begin", "start", "savepoint", "release"),
    "comment",
    *("grant", "revoke", "show", "values", "table", "explain", "analyze", "truncate", "lock", "fetch", "declare"),
}
SAVEPOINT = "rehearsal_statement"


@dataclass
class Performance:
    """The results of the statements.

    `functions`: for each PL/pgSQL function the last statement that created it, and its search path then. `undecided`:
    psql conditions with unknown values. `blocks`: mistakes in parts of DO blocks that did not run.
    """

    history: SchemaHistory = field(default_factory=SchemaHistory)
    functions: dict[str, tuple[SqlStatement, str]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    skipped: list[SqlStatement] = field(default_factory=list)
    undecided: list[SqlStatement] = field(default_factory=list)
    blocks: list[Failure] = field(default_factory=list)
    unfinished: str = ""


def perform(
    server: Rehearsed,
    files: Sequence[Sequence[SqlStatement]],
    *,
    database: str,
    whole: Collection[int] = (),
    dumps: Collection[int] = (),
    history: bool = True,
) -> Performance:
    """Run the files in order. `whole`: the numbers (from 0) of the files that are one transaction each. `dumps`: of
    those that a superuser restores.
    """
    done, number, began = Performance(), 0, time.monotonic()
    for index, statements in enumerate(files):
        with log_in(server, database) as connection:
            if history and not done.history.present:
                done.history.look(connection, None, 0)
            run = _FileRun(server, connection, done, history, database, index in dumps)
            if index in whole:
                connection.execute("begin")
            for statement in statements:
                number += 1
                if time.monotonic() - began > MOST_SECONDS:
                    run.connection.close()
                    done.unfinished = f"it ended after {MOST_SECONDS:.0f} s, before {statement.place().file}"
                    return done
                run.one(statement, number)
            if index in whole:
                run.finish(statements[-1], number)
            run.end(statements, number)
            done.undecided += run.script.undecided
            run.connection.close()
    return done


def log_in(server: Rehearsed, database: str) -> psycopg.Connection[Any]:
    """A session of the role that runs the migrations, even if they took its login away."""
    try:
        return server.session(database)
    except psycopg.OperationalError:
        server.let_in()
        return server.session(database)


@dataclass
class _FileRun:
    server: Rehearsed
    connection: psycopg.Connection[Any]
    done: Performance
    history: bool
    database: str
    restored: bool
    script: Script = field(default_factory=Script)

    def one(self, statement: SqlStatement, number: int) -> None:
        if statement.meta:
            self.done.skipped += [statement] * self.script.runs
            self.script.take(statement)
        if statement.meta or not self.script.runs:
            return
        if self.connection.closed:
            self.connection = log_in(self.server, self.database)
        guarded = (
            self.connection.info.transaction_status == TransactionStatus.INTRANS
            and statement.verb not in CONTROLS
            and statement.plain[:2] != ("set", "transaction")
        )
        before = self._block(statement, number)
        if self._send(statement, number, guarded=guarded):
            self._keep(statement)
            self._look(statement, number)
            after = {f.offset for f in self._block(statement, number)} if before else set()
            self.done.blocks += [f for f in before if f.offset in after]

    def _keep(self, statement: SqlStatement) -> None:
        if name := function_made(statement):
            path = self.connection.execute("show search_path").fetchone() or ("",)
            self.done.functions[name] = (statement, str(path[0]))

    def _block(self, statement: SqlStatement, number: int) -> Sequence[Failure]:
        """The mistakes in a DO block against the present schema; a block may itself create and drop what it names."""
        if statement.verb != "do" or not self.history:
            return ()
        with suppress(psycopg.Error):
            return BodyCheck(self.connection).failures(statement, number)
        return ()

    def finish(self, last: SqlStatement, number: int) -> None:
        """Commit the transaction that was begun for the file; deferred constraints may fail here."""
        try:
            self.connection.execute("commit")
        except psycopg.Error as error:
            self.done.failures.append(failure_of(error, last, number))
            return
        self._look(last, number)

    def end(self, statements: Sequence[SqlStatement], number: int) -> None:
        """Undo what the file leaves open, as the end of its session does."""
        if not self.connection.closed and self.connection.info.transaction_status != TransactionStatus.IDLE:
            opened = next((s for s in reversed(statements) if s.verb in {"begin", "start"}), statements[-1])
            self.done.failures.append(Failure(opened, number, LEFT_OPEN, "no COMMIT before the end of the file"))
            self.connection.execute("rollback")
            self._look(opened, number, undone=True)

    def _look(self, statement: SqlStatement, number: int, *, undone: bool = False) -> None:
        in_transaction = self.connection.info.transaction_status
        keeps = statement.verb in KEEPS_SCHEMA and not undone
        if self.history and not keeps and in_transaction != TransactionStatus.INERROR:
            with suppress(psycopg.Error), StatementLimit(self.server, self.connection):  # it runs planted code
                known = len(self.done.history.events)
                self.done.history.look(self.connection, statement, number)
                made = [e.entry.name for e in self.done.history.events[known:] if e.entry.kind == "role"]
                for name in made if self.server.version < 16 else ():  # later versions: createrole_self_grant
                    self.connection.execute(sql.SQL("grant {} to postgres").format(sql.Identifier(name)))

    def _send(self, statement: SqlStatement, number: int, *, guarded: bool) -> bool:
        rewritten = with_values(statement, self.script.values, Unknown.ITSELF)
        failure = self._refused(replace(statement, text=rewritten.text), number, guarded=guarded)
        if failure and self.restored and (undo := may_own(self.connection, statement, failure)):
            failure = self._refused(statement, number, guarded=guarded)
            with suppress(psycopg.Error):
                self.connection.execute(undo)
        if failure is None:
            return True
        if rewritten.unknown and failure.code == "42601":
            names = ", ".join(f":{name}" for name in rewritten.unknown)
            failure = replace(failure, limit=f"it depends on {names}, whose value is not known")
        at = None if failure.offset is None else rewritten.old(failure.offset)
        self.done.failures.append(replace(failure, statement=statement, offset=at))
        return False

    def _refused(self, statement: SqlStatement, number: int, *, guarded: bool) -> Failure | None:
        connection, limit = self.connection, StatementLimit(self.server, self.connection)
        try:
            if guarded:
                connection.execute(f"savepoint {SAVEPOINT}".encode())
            with limit:
                execute(connection, statement, limit)
            if guarded and connection.info.transaction_status == TransactionStatus.INTRANS:
                connection.execute(f"release {SAVEPOINT}".encode())
        except psycopg.Error as error:
            self._go_on(guarded=guarded)
            return failure_of(error, statement, number, limit.said)
        return None

    def _go_on(self, *, guarded: bool) -> None:
        with suppress(psycopg.Error):
            if self.connection.info.transaction_status == TransactionStatus.INERROR:
                self.connection.execute(f"rollback to {SAVEPOINT}".encode() if guarded else b"rollback")


class StatementLimit:
    """Ends a statement that takes too long or fills the disk; `said`: why."""

    def __init__(self, server: Rehearsed, connection: psycopg.Connection[Any]) -> None:
        self.said = ""
        self._connection, self._folder = connection, server.folder
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="statement-limit", daemon=True)

    def end(self, why: str) -> None:
        self.said = self.said or why
        with suppress(psycopg.Error):
            self._connection.cancel_safe(timeout=5.0)

    def _watch(self) -> None:
        deadline = time.monotonic() + STATEMENT_LIMIT_S
        while not self._done.wait(0.5):
            if time.monotonic() > deadline:
                self.end(f"it ran longer than {STATEMENT_LIMIT_S} s")
            elif shutil.disk_usage(self._folder).free < LEAST_FREE_BYTES:
                self.end("it filled the disk")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(timeout=10.0)


def execute(connection: psycopg.Connection[Any], statement: SqlStatement, limit: StatementLimit) -> None:
    """Send one statement; its rows are counted and dropped. Raise psycopg.Error."""
    text = statement.text.encode()
    with connection.cursor() as cursor:
        if statement.verb == "copy" and ("stdin" in statement.plain or "stdout" in statement.plain):
            with cursor.copy(text) as copy:
                if "stdin" in statement.plain:
                    copy.write(statement.rows or "")
                else:
                    for _ in copy:
                        pass
        elif statement.verb in READS:
            _drop_rows(cursor, text, limit)
        else:
            cursor.execute(text)


def _drop_rows(cursor: psycopg.Cursor[Any], text: bytes, limit: StatementLimit) -> None:
    try:
        for count, _row in enumerate(cursor.stream(text), 1):
            if count == MOST_ROWS:
                limit.end(f"it gave more than {MOST_ROWS} rows")
    except psycopg.ProgrammingError as error:
        if error.sqlstate:  # otherwise it ran, and has no rows
            raise


def may_own(connection: psycopg.Connection[object], statement: SqlStatement, failure: Failure) -> sql.Composed | None:
    """Let the new owner create objects in the schema; returns the statement that revokes this, None if not needed."""
    schema = re.fullmatch(r"permission denied for schema (.+)", failure.message)
    if failure.code != "42501" or schema is None or statement.plain[-3:-1] != ("owner", "to"):
        return None
    names = sql.Identifier(schema[1]), sql.Identifier(statement.plain[-1])
    try:
        connection.execute(sql.SQL("grant create on schema {} to {}").format(*names))
    except psycopg.Error:
        return None
    return sql.SQL("revoke create on schema {} from {}").format(*names)
