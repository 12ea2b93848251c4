"""The read-only connection of a run of the SQL suites: limits, the companies left out, whether its role sees rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import psycopg

from gates.deployment.connection import Answering
from gates.deployment.database import Connection, connect, execute, sql
from gates.deployment.dialect.current import current
from gates.inputs.values import Unfit, id_of_type

STATEMENT_TIMEOUT_MS = 5_000
DEEP_TIMEOUT_MS = 120_000
BLINDNESS = Path(__file__).parent / "blindness.sql"


def read_companies(path: Path, never: str = "") -> tuple[str, ...]:
    """Company ids, one a line, without `never` (TEST_COMPANY_ID is never left out). Raise ValueError."""
    ids: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
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
    """One connection, opened at first use. `settings` are handed to every query as `replaygate.<name>`."""

    url: str
    excluded: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    deep: bool = False

    @cached_property
    def connection(self) -> Answering:
        timeout_ms = DEEP_TIMEOUT_MS if self.deep else STATEMENT_TIMEOUT_MS
        connection = connect(self.url, read_only=True, statement_timeout_ms=timeout_ms)
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        given = {
            "jit": "off",  # compiling costs more than these queries
            "replaygate.excluded": "{" + ",".join(self.excluded) + "}",
            "replaygate.deep": "on" if self.deep else "off",
            **{f"replaygate.{k}": v for k, v in self.settings.items()},
        }
        connection.give(given)
        return connection

    def give(self, settings: Mapping[str, str]) -> None:
        """Hand further settings to the queries, as `replaygate.<name>`."""
        self.connection.give({f"replaygate.{k}": v for k, v in settings.items()})

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """One read-only transaction with one snapshot; rolled back at the end."""
        with self.connection.transaction(force_rollback=True):
            yield self.connection

    @cached_property
    def blindness(self) -> str:
        """Why this role cannot judge data, or an empty string: a role that rows are hidden from sees no fault."""
        with self.snapshot() as connection:
            unclear = execute(connection, sql(BLINDNESS))
            hidden = [str(r["name"]) for r in unclear if _hides(connection, r)]
        if not hidden:
            return ""
        return (
            f"row security hides rows of {len(hidden)} tables ({', '.join(hidden[:5])}) from this role;"
            " it must see all. Use a login that sees all rows (replay_gate)"
        )

    def close(self) -> None:
        if "connection" in self.__dict__:
            self.connection.close()


def _hides(connection: Connection, table: Mapping[str, object]) -> bool:
    """Whether the role counts fewer than half of the rows that the statistics know of (exact only in its order)."""
    estimate = int(str(table["estimate"]))
    enough = max(estimate // 2, 1)
    query = f"select count(*) as seen from (select from {table['reference']} limit {enough}) rows_seen"
    row = connection.execute(query.encode()).fetchone()
    seen = int(str(row["seen"])) if row else 0
    return (seen == 0 and estimate > 0) or (estimate >= 20 and seen < enough)
