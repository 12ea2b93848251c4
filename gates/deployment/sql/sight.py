"""What a login sees of the contract's tables: every row, or what row-level security leaves."""

from dataclasses import dataclass
from pathlib import Path

from gates.deployment.sql.database import Connection, execute, sql

QUERY = Path(__file__).with_name("sight.sql")


@dataclass(frozen=True, slots=True)
class TableSight:
    """A table of the contract under its real name. whole: row-level security hides no row of it from this login.
    is_table: false for a view, which may leave rows out by itself.
    """

    name: str
    is_flags: bool
    is_companies: bool
    present: bool
    readable: bool
    is_table: bool
    whole: bool

    @property
    def sure(self) -> bool:
        """Whether every row is surely seen."""
        return self.is_table and self.whole


def sights(connection: Connection, *, every: bool = True) -> list[TableSight]:
    """One for each table that the names do not call absent; or only those that say for whom a flag is on, since a look
    waits for whoever has a table locked. Raise psycopg.Error.
    """
    return [
        TableSight(str(row["name"]), **{name: row[name] is True for name in row if name != "name"})
        for row in execute(connection, sql(QUERY), every)
    ]


def sees_every_flag(connection: Connection) -> bool:
    """Whether this login surely sees every row of the flags. Raise psycopg.Error."""
    return any(s.is_flags and s.sure for s in sights(connection, every=False))
