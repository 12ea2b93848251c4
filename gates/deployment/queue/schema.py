"""Looks at the tables of a queue in the catalogue: which are there, which the login may read, of which version.

The catalogue needs no grant, so what is missing and what is forbidden can be told apart, before a query fails.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from gates.contract.queues import Queue, QueueSchema
from gates.deployment.sql.database import Connection, sql, value
from gates.deployment.sql.failures import in_words
from gates.text.foreign import text, whole

QUERY = Path(__file__).with_name("tables.sql")
FORGETS = """
with {{heap}}
select not ({{kept}}) and 10 * sum(pg_stat_get_tuples_deleted(oid)) > sum(pg_stat_get_tuples_inserted(oid)) as forgets
from heap"""
"""A tenth of all rows ever inserted was deleted, and not one success is left: the queue deletes successes. An old
success shows that successes are kept: if newer ones are missing, that is an outage.
"""


@dataclass(frozen=True, slots=True)
class QueueLook:
    """What was seen. trouble: why the queue cannot be judged, and what to do; odd: what is unusual, but no reason."""

    schema: QueueSchema
    trouble: str = ""
    odd: str = ""


def look_at(queue: Queue, connection: Connection) -> QueueLook:
    """The queue's schema according to the catalogue. Raise psycopg.Error if even that cannot be read."""
    found = connection.execute(sql(QUERY).encode(), {"schema": queue.schema}).fetchall()
    rows = {text(row["name"]): row for row in found}
    columns = {name: frozenset(_names(row["columns"])) for name, row in rows.items()}
    schema = QueueSchema(columns)
    trouble = _trouble(queue, schema, rows)
    if trouble:
        return QueueLook(schema, trouble)
    if queue.preset.kept:
        try:
            forgets = value(connection, queue.written(FORGETS, schema, kept=queue.preset.kept)) is True
        except psycopg.Error as error:
            return QueueLook(schema, f"what {queue.preset.title} keeps cannot be read: {in_words(error)}")
        schema = replace(schema, forgets=forgets)
    if not queue.preset.version:
        return QueueLook(schema)
    try:
        version = whole(value(connection, queue.written(queue.preset.version)))
    except psycopg.Error as error:
        return QueueLook(schema, f"the version of {queue.preset.title} cannot be read: {in_words(error)}")
    if version is None:
        return QueueLook(
            schema, f"{queue.preset.title} does not say its version; its migrations have not run. Run them"
        )
    known = queue.preset.known
    odd = ""
    if known and not known[0] <= version <= known[1]:
        odd = f"version {version} of {queue.preset.title}'s schema was not tried; {known[0]} to {known[1]} were"
    return QueueLook(replace(schema, version=version), odd=odd)


def _names(columns: object) -> list[str]:
    return [text(name) for name in columns] if isinstance(columns, list) else []


def _trouble(queue: Queue, schema: QueueSchema, rows: dict[str, dict[str, object]]) -> str:
    """What is absent, locked or hidden; empty if all that is needed can be read."""
    title, place = queue.preset.title, queue.schema
    tables = queue.tables()
    absent = [table for table in tables if table not in rows]
    if absent:
        where = (
            f"schema {place} has no table {', '.join(absent)}"
            if rows
            else f"there is no schema {place}, or it is empty"
        )
        here = ", ".join(table for table in tables if table in rows)
        other = f", though it has {here}: another version? Tried were {queue.preset.tried}" if here else ""
        return f"{title} is absent: {where}{other}. Run its migrations, or name its schema in `contract: options:`"
    locked = [table for table in tables if not rows[table]["readable"]]
    if locked:
        grant = f"grant usage on schema {place}; grant select on {', '.join(f'{place}.{t}' for t in locked)}"
        return f"the login may not read {', '.join(locked)} in schema {place}. Run: {grant}"
    lacking = [f"{t}.{c}" for t, columns in tables.items() for c in columns if c not in schema.columns[t]]
    if lacking:
        return (
            f"{title} differs: {', '.join(lacking)} not found in schema {place}; tried were {queue.preset.tried}."
            " See whether the preset is right"
        )
    blind = [table for table in tables if rows[table]["blind"]]
    if blind:
        return f"row security hides rows of {', '.join(blind)} from this login. Use one that sees all rows"
    return ""
