"""The history that a fresh stack starts with: 24 healthy hours of one company, by the clock of the database.

It is deterministic: two stacks differ only in their start time. All of it is one transaction of the .sql files beside
this module, in the order of `FLAGS` and `HISTORY`; `plan.sql` decides everything, the others only write it.
"""

from pathlib import Path

from gates.stack.postgres import connect

HERE = Path(__file__).parent
FLAGS = ("flags.sql",)
HISTORY = ("plan.sql", "events.sql", "replays.sql", "audit.sql", "ledgers.sql")


def write(database_url: str, company_id: str, *, history: bool = True) -> None:
    """Write flags and, by default, the history. Raise psycopg.Error on another schema."""
    with connect(database_url) as connection, connection.transaction():
        connection.execute("select set_config('seed.company', %s, true)", (company_id,))
        for name in (*FLAGS, *(HISTORY if history else ())):
            connection.execute((HERE / name).read_bytes())
