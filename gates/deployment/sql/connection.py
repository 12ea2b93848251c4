"""A connection with a time limit for each answer, which keeps our settings behind a pooler."""

import array
import fcntl
import logging
import os
import socket as sockets
import struct
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from typing import Any, ClassVar, Self, TypeVar

import psycopg
from psycopg.abc import Params, PQGen, PQGenConn
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable, Composed

from gates.deployment.dialect import current
from gates.deployment.http.limits import within

logging.getLogger("psycopg").addHandler(logging.NullHandler())  # what it warns of was raised, and becomes a finding
T = TypeVar("T")
Connection = psycopg.Connection[dict[str, object]]
Statement = str | bytes | SQL | Composed
Answers = list[psycopg.Cursor[dict[str, object]]]

MOST_ANSWER = 64 * 1024 * 1024
"""The most bytes per statement, far above what a check reads. libpq keeps all of them in memory, and the driver those
of an error eight times. A message that arrives faster than it is read is refused once it is complete.
"""
IPPROTO_TCP, TCP_INFO, BYTES_RECEIVED = 6, 11, 128
"""Offset of `tcpi_bytes_received` in Linux's tcp_info."""
UNPINNED = (
    "a statement would run without the settings of its session: behind a pooler a pipeline begins within a transaction"
)


class Answering(Connection):
    """A connection whose statements have `answer_limit_s` seconds; TCP alone waits for ever behind a live proxy.

    pins: the settings that each transaction begins with, behind a pooler; empty if the session keeps them. may_be_kept:
    nobody changed it in a way that outlasts a transaction.
    """

    answer_limit_s: float = 15.0
    connecting_until: ClassVar[ContextVar[float]] = ContextVar("connecting_until")
    """The deadline for all addresses of all hosts of a connection string."""
    pins: Mapping[str, str] = {}
    may_be_kept: bool = True

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler lends us sessions: session state then lasts no longer than a transaction."""
        return bool(self.pins)

    @property
    def beginning(self) -> bytes:
        """The statement that begins a transaction here."""
        level = self.isolation_level or psycopg.IsolationLevel.READ_COMMITTED
        access = "read only" if self.read_only else "read write"
        return f"begin isolation level {level.name.replace('_', ' ')} {access}".encode()

    def give(self, settings: Mapping[str, str]) -> None:
        """Run all further statements under these settings, too."""
        self.may_be_kept = False
        if self.is_pooled:
            self.pins = {**self.pins, **settings}
        elif settings:
            _configure(psycopg.Cursor(self), settings, local=False)

    def pin(self) -> None:
        """Behind a pooler, give a transaction its settings. `transaction` and the first statement of one do so."""
        if self.is_pooled:
            _configure(psycopg.Cursor(self), self.pins, local=True)

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """Like psycopg's; behind a pooler an outermost one begins with the settings, in the same round trip."""
        if not self.is_pooled or self.info.transaction_status != TransactionStatus.IDLE:
            with super().transaction(savepoint_name, force_rollback) as block:
                yield block
            return
        with ExitStack() as stack:
            with self.pipeline():
                block = stack.enter_context(psycopg.Transaction(self, savepoint_name, force_rollback))
                self.pin()
            yield block

    def glance(self, *statements: str) -> Answers:
        """The results of statements in a transaction of their own, which is rolled back, in one round trip."""
        return self.glances([statements])[0]

    def glances(self, asked: Sequence[Sequence[str]]) -> list[Answers]:
        """`glance` for several, each in its own transaction: no setting outlasts it. All of it is one round trip, and
        an error in one is raised for all.
        """
        found: list[Answers] = []
        with self.at_once(end=b"rollback") as begin:
            for number, statements in enumerate(asked):
                if number:
                    begin()
                found.append([self.execute(statement.encode()) for statement in statements])
        return found

    @contextmanager
    def at_once(self, *, end: bytes = b"commit") -> Iterator[Callable[[], None]]:
        """A transaction in one round trip, for autocommit only; its statements have their results afterwards. What it
        yields ends the transaction and begins the next one in the same round trip.
        """
        control = psycopg.Cursor(self)

        def begin(*, first: bool = False) -> None:
            if not first:
                control.execute(end)
            control.execute(self.beginning)
            self.pin()

        try:
            with self.pipeline():
                begin(first=True)
                yield begin
                control.execute(end)
        except BaseException:
            if self.pgconn.pipeline_status != PipelineStatus.OFF:
                self.close()  # unread answers are on the way: the connection is useless
            elif not self.closed and self.info.transaction_status != TransactionStatus.IDLE:
                self.rollback()
            raise

    @classmethod
    def within(cls, limit_s: float, url: str, **options: Any) -> Self:
        """`connect` within a time limit for all addresses, each of which has half of what is left. The limit includes
        name lookups, whatever libpq and the resolver take.
        """
        until = time.monotonic() + limit_s

        def connected() -> Any:
            cls.connecting_until.set(until)
            return cls.connect(url, **options)

        try:
            opened: Self = within(connected, limit_s)
        except TimeoutError as late:
            raise psycopg.errors.ConnectionTimeout(f"no connection within {limit_s:g} s") from late
        except UnicodeError:
            raise psycopg.OperationalError("a host is no name of a host") from None
        return opened

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Self]:
        began, gen = time.monotonic(), super()._connect_gen(conninfo)
        limit_s = max(0.0, cls.connecting_until.get() - began) / 2
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if time.monotonic() > began + limit_s:
                    raise psycopg.errors.ConnectionTimeout(f"no connection within {limit_s:.1f} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            connection: Self = end.value
            return connection

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        limit_s = self.answer_limit_s if timeout is None else min(timeout, self.answer_limit_s)
        return super().wait(self._limited(gen, limit_s), interval)

    def _limited(self, gen: PQGen[T], limit_s: float) -> PQGen[T]:
        until, seen = time.monotonic() + limit_s, 0
        try:
            wanted = next(gen)
            before = _received(self.pgconn.socket)
            while True:
                ready = yield wanted
                seen += _waiting(self.pgconn.socket)
                self._refuse_more_than_most(seen, before)
                if time.monotonic() > until:
                    self._give_up(f"within {limit_s:g} s")
                wanted = gen.send(ready)
        except (StopIteration, psycopg.DatabaseError) as end:
            if seen and self.pgconn.status == ConnStatus.OK:  # libpq reads for as long as bytes come
                self._refuse_more_than_most(seen, before)
            if not isinstance(end, StopIteration):
                raise
            answer: T = end.value
            return answer

    def _refuse_more_than_most(self, seen: int, before: int) -> None:
        if max(seen, _received(self.pgconn.socket) - before) > MOST_ANSWER:
            self._give_up(f"of at most {MOST_ANSWER} bytes")

    def _give_up(self, limit: str) -> None:
        self.pgconn.finish()
        raise psycopg.OperationalError(f"the server gave no answer {limit}") from None


def _waiting(socket: int) -> int:
    """Received bytes that are not read yet."""
    found = array.array("i", [0])
    fcntl.ioctl(socket, termios.FIONREAD, found)
    return found[0]


def _received(socket: int) -> int:
    """Bytes received since the connection was made, by the kernel's count: libpq reads on while more come. 0 if the
    kernel does not count, as for a Unix socket.
    """
    with suppress(OSError, struct.error), sockets.socket(fileno=os.dup(socket)) as same:
        return int(struct.unpack_from("=Q", same.getsockopt(IPPROTO_TCP, TCP_INFO, 256), BYTES_RECEIVED)[0])
    return 0


class AnswerRow(dict[str, object]):
    """A row by column names. A missing column is an error of the server: it was asked for."""

    def __missing__(self, name: str) -> object:
        raise psycopg.DataError(f"the server's answer has no column {name}")


class AnswerRows(list[dict[str, object]]):
    """The rows of an answer. A missing one that is asked for is an error of the server, too."""

    def __getitem__(self, at: Any) -> Any:
        try:
            return super().__getitem__(at)
        except IndexError:
            raise psycopg.DataError("the server's answer has no row") from None


def by_name(cursor: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], AnswerRow]:
    """As psycopg's dict_row."""
    of_row = dict_row(cursor)
    return lambda values: AnswerRow(of_row(values))


class PinningCursor(psycopg.Cursor[dict[str, object]]):
    """One call is one statement: the server accepts no second one. Behind a pooler a statement outside a transaction
    gets its own, which begins with the connection's settings, in one round trip.
    """

    def execute(  # type: ignore[override]  # psycopg's template strings are not for us
        self, query: Statement, params: Params | None = None, **options: Any
    ) -> Self:
        """Like psycopg's. Text that the session's encoding lacks, such as a column name, is an SQL error."""
        try:
            return self._pinned(query, params, **options)
        except UnicodeError as error:
            raise psycopg.DataError(f"there is text that is not valid in the session's encoding: {error}") from error

    def _pinned(self, query: Statement, params: Params | None, **options: Any) -> Self:
        connection = self.connection
        if (writer := current.writer()) is not None:
            query, params = writer.of(_text(query, connection), params)
        if not isinstance(connection, Answering) or not connection.is_pooled:
            return super().execute(query, params, **options)
        if connection.info.transaction_status != TransactionStatus.IDLE:
            return super().execute(query, params, **options)
        if connection.pgconn.pipeline_status != PipelineStatus.OFF:
            if connection.autocommit:
                raise psycopg.InterfaceError(UNPINNED)
            connection.pin()
            return super().execute(query, params, **options)
        control = psycopg.Cursor(connection)
        try:
            with connection.pipeline():
                if connection.autocommit:
                    control.execute(connection.beginning)
                connection.pin()
                super().execute(query, params, **options)
                if connection.autocommit:
                    control.execute(b"commit")
        except psycopg.Error:
            if connection.autocommit and not connection.closed:
                connection.rollback()
            raise
        return self

    def fetchone(self) -> dict[str, object] | None:
        with self._whole():
            return super().fetchone()

    def fetchmany(self, size: int = 0) -> list[dict[str, object]]:
        with self._whole():
            return AnswerRows(super().fetchmany(size))

    def fetchall(self) -> list[dict[str, object]]:
        with self._whole():
            return AnswerRows(super().fetchall())

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Raise a server error for a cell that is not of its type, and for another number of rows than announced. A row
        that was lost on the way must not read as an absent one.
        """
        sent = self.pgresult
        counted = sent is not None and (sent.command_status or b"").startswith(b"SELECT ")
        if sent and counted and sent.command_tuples != sent.ntuples:
            raise psycopg.InterfaceError(
                f"rows that the database sent: {sent.command_tuples}; rows that came: {sent.ntuples}. See what stands"
                " between it and the gate"
            )
        try:
            yield
        except (ValueError, OverflowError) as error:
            raise psycopg.DataError(f"the server's answer has a cell that is not of its type: {error}") from error

    def _execute_send(self, query: Any, **options: Any) -> None:
        """Never use the simple protocol: there a text may hold several statements, and one of them a commit."""
        super()._execute_send(query, **{**options, "force_extended": True})


def _text(query: Statement, connection: psycopg.Connection[Any]) -> str:
    if isinstance(query, Composable):
        return query.as_string(connection)
    return query.decode() if isinstance(query, bytes) else query


def _configure(cursor: psycopg.Cursor[Any], settings: Mapping[str, str], *, local: bool) -> None:
    """Use qualified names only: the settings that make a bare name safe are not set yet."""
    calls = ", ".join([f"pg_catalog.set_config(%s, %s, {str(local).lower()})"] * len(settings))
    cursor.execute(f"select {calls}".encode(), [part for item in settings.items() for part in item])
