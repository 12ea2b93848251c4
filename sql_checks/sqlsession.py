"""The read-only connection of the SQL suites: time limits, companies left out, whether its role sees all rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import psycopg

from gates import disk
from gates.deployment.dialect.current import current
from gates.deployment.sql.catalogue import identifier
from gates.deployment.sql.connection import Answering, Answers
from gates.deployment.sql.database import Connection, connect, execute, sql
from gates.deployment.sql.locks import holders_of, with_holders
from gates.inputs.values import Unfit, id_of_type

STATEMENT_TIMEOUT_MS = 5_000
DEEP_TIMEOUT_MS = 120_000
SIDE_BY_SIDE = 4
"""Connections that prefetch, beside the session's own."""
HURRIED_MS = "50"
"""How long a query waits for a lock once another one waited for one in vain."""
AT_ONCE = 6
"""Queries that such a connection sends in one round trip."""
BLINDNESS = Path(__file__).parent / "blindness.sql"
ZONE = Path(__file__).parent / "zone.sql"

Asked = tuple[tuple[str, ...], Future[Answers]]
"""Statements, and the future of their results."""


def read_companies(path: Path, never: str = "") -> tuple[str, ...]:
    """Company ids, one a line, without `never` (TEST_COMPANY_ID is never left out). Raise ValueError."""
    ids: list[str] = []
    for number, line in enumerate(disk.read_text(path).splitlines(), 1):
        text = line.strip()
        if not text:
            continue
        try:
            ids.append(id_of_type(text, current().id_type("company")))
        except Unfit as unfit:
            raise ValueError(f"{path}:{number}: {text[:60]!r} is no company id; allowed: {unfit}, one a line") from None
    return tuple(dict.fromkeys(i for i in ids if i != never))


@dataclass
class SqlSession:
    """One connection, opened at first use. `settings` are given to every query as `replaygate.<name>`. `crowded`:
    companies of a load that the machine was too busy for; their lateness is not judged.
    """

    url: str
    excluded: Sequence[str] = ()
    crowded: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    deep: bool = False
    holders: str = field(default="", init=False)
    """Who held locks when a query had waited for one in vain; empty before."""
    _ahead: dict[tuple[str, ...], Future[Answers]] = field(default_factory=dict, init=False)

    @cached_property
    def connection(self) -> Answering:
        return self._opened()

    def _opened(self) -> Answering:
        timeout_ms = DEEP_TIMEOUT_MS if self.deep else STATEMENT_TIMEOUT_MS
        connection = connect(self.url, read_only=True, statement_timeout_ms=timeout_ms)
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        given = {
            "jit": "off",  # compiling costs more than these queries
            "replaygate.excluded": "{" + ",".join(self.excluded) + "}",
            "replaygate.crowded": "{" + ",".join(self.crowded) + "}",
            "replaygate.deep": "on" if self.deep else "off",
            **{f"replaygate.{k}": v for k, v in self.settings.items()},
            **({"lock_timeout": HURRIED_MS} if self.holders else {}),
        }
        connection.give(given)
        with connection.transaction(force_rollback=True):
            own = execute(connection, sql(ZONE))
        connection.give({"timezone": str(own[0]["zone"])} if own else {})
        return connection

    def give(self, settings: Mapping[str, str]) -> None:
        """Give further settings to the queries, as `replaygate.<name>`."""
        self.connection.give({f"replaygate.{k}": v for k, v in settings.items()})

    @contextmanager
    def _hurried(self, connection: Answering) -> Iterator[None]:
        """Where a query waits for a lock in vain, the error says who holds locks, and no further one waits as long."""
        try:
            yield
        except psycopg.errors.LockNotAvailable as error:
            with suppress(psycopg.Error):
                self.holders = self.holders or holders_of(connection)
                connection.give({"lock_timeout": HURRIED_MS})
            raise with_holders(error, self.holders) from error

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """One read-only transaction with one snapshot; rolled back at the end."""
        with self._hurried(self.connection), self.connection.transaction(force_rollback=True):
            yield self.connection

    @cached_property
    def blindness(self) -> str:
        """Why this role cannot judge data, or an empty string: a role that rows are hidden from would miss faults."""
        with self.snapshot() as connection:
            unclear = execute(connection, sql(BLINDNESS))
            hidden = [str(r["name"]) for r in unclear if r["is_by_row"] or _hides(connection, r)]
        if not hidden:
            return ""
        return (
            f"row security hides rows of {len(hidden)} tables ({', '.join(hidden[:5])}) from this role;"
            " it must see all. Use a login that sees all rows (replay_gate)"
        )

    def ask(self, *statements: str) -> Answers:
        """The results of statements in one read-only snapshot and round trip. Raise psycopg.Error."""
        ahead = self._ahead.pop(statements, None)
        if ahead:
            return ahead.result()
        with self._hurried(self.connection):
            return self.connection.glance(*statements)

    def ask_ahead(self, asked: Iterable[tuple[str, ...]]) -> None:
        """Prefetch what `ask` will be asked for over a few connections in parallel, since the server may be far away.

        Not for deep checks: reading several whole tables at a time would burden the server.
        """
        if self.deep:
            return
        queue = SimpleQueue[Asked]()
        for statements in asked:
            self._ahead[statements] = Future()
            queue.put((statements, self._ahead[statements]))
        try:
            for number in range(SIDE_BY_SIDE):
                Thread(target=self._work_off, args=(queue,), name=f"ask-ahead-{number}", daemon=True).start()
        except RuntimeError:  # no thread can be started: ask one after the other
            self._ahead.clear()

    def _work_off(self, queue: SimpleQueue[Asked]) -> None:
        connection: Answering | None = None
        while some := _some_of(queue):
            try:
                connection = connection or self._opened()
                found = connection.glances([statements for statements, _ in some])
            except Exception:  # noqa: BLE001  -- one of them has an error: which, and what the others give, each says
                connection = self._ask_each(some, connection)
                continue
            for (_, answers), one in zip(some, found, strict=True):
                answers.set_result(one)
        if connection is not None:
            connection.close()

    def _ask_each(self, some: Sequence[Asked], connection: Answering | None) -> Answering | None:
        """Run each by itself; returns the connection for the next batch, if it is still open."""
        for statements, answers in some:
            try:
                if connection is None or connection.closed:
                    connection = self._opened()
                with self._hurried(connection):
                    found = connection.glance(*statements)
                answers.set_result(found)
            except Exception as error:  # noqa: BLE001  -- it is the answer
                answers.set_exception(error)
        return None if connection is None or connection.closed else connection

    def close(self) -> None:
        if "connection" in self.__dict__:
            self.connection.close()


def _some_of(queue: SimpleQueue[Asked]) -> list[Asked]:
    """The next batch; empty at the end."""
    some: list[Asked] = []
    with suppress(Empty):
        while len(some) < AT_ONCE:
            some.append(queue.get_nowait())
    return some


def _hides(connection: Connection, table: Mapping[str, object]) -> bool:
    """Whether the role counts fewer than half of the rows that the statistics know of (exact only in its order)."""
    estimate = int(str(table["estimate"]))
    enough = max(estimate // 2, 1)
    reference = identifier(str(table["schema"]), str(table["relation"]))
    query = f"select count(*) as seen from (select from {reference} limit %s) rows_seen"
    row = connection.execute(query.encode(), (enough,)).fetchone()
    seen = int(str(row["seen"])) if row else 0
    return (seen == 0 and estimate > 0) or (estimate >= 20 and seen < enough)
