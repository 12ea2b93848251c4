"""Reads the few rows that a comparison needs: global rows of flags, the row of the pause, states in rows."""

import re
import uuid
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql as compose

from gates.deployment.requests import bucket
from gates.deployment.sql.connection import Answering
from gates.deployment.sql.database import sql
from gates.doctor.comparison.compare import RowsSeen
from gates.doctor.matching.actors import FunctionMatch
from gates.doctor.matching.limit_keys import LimitForm, form_of, limits_in
from gates.doctor.matching.tables import TableMatch
from gates.doctor.reading.catalogue import LOCK_TIMEOUT_MS
from gates.doctor.sqltypes import bare, id_type
from gates.text.foreign import text

QUERIES = Path(__file__).with_name("queries")
STATEMENT_TIMEOUT_MS = 800
MOST_FLAGS = 300
ASKED = 64
"""Made-up tenants that identify a formula: another one agrees on all of them once in 300,000 times."""
ID_FORMS = {
    "uuid": re.compile(r"(.{0,20}?)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "hex": re.compile(r"(.{0,20}?)[0-9a-f]{32}"),
    "ulid": re.compile(r"(.{0,20}?)[0-7][0-9A-HJKMNP-TV-Z]{25}"),
}
"""Form of `names: ids` -> how such an id looks after its prefix."""
MOST_STATE = 60
"""The most characters of a state: longer texts are for people."""


def read_rows(
    connection: Answering, tables: Mapping[str, TableMatch], function: FunctionMatch | None = None
) -> RowsSeen:
    """What could be read. function: the one that decides flags. Raise psycopg.Error if the connection is lost."""
    flags = _flags(connection, tables.get("feature_flags"))
    return RowsSeen(
        flags,
        _pause_row(connection, tables.get("agent_controls")),
        _states(connection, tables),
        _limit_form(connection, tables.get("edge_rate_limits")),
        _limits(connection, tables.get("edge_rate_limits")),
        _id_form(connection, tables.get("companies")),
        _own_buckets(connection, function, flags or {}),
    )


def _rows(
    connection: Answering, statement: compose.Composed | bytes, **params: object
) -> list[dict[str, object]] | None:
    """The rows, or None if they cannot be read."""
    try:
        with connection.at_once(end=b"rollback"):
            connection.execute(f"set local statement_timeout = {STATEMENT_TIMEOUT_MS}".encode())
            connection.execute(f"set local lock_timeout = {LOCK_TIMEOUT_MS}".encode())
            cursor = connection.execute(statement, params or None)
        return cursor.fetchall()
    except psycopg.Error:
        if connection.closed:
            raise
        return None


def _flags(connection: Answering, found: TableMatch | None) -> dict[str, tuple[bool | None, int | None]] | None:
    if found is None or "key" not in found.columns:
        return None
    real = {c: m.column.name for c, m in found.columns.items()}
    parts = [
        compose.SQL("{}::text as {}").format(compose.Identifier(real[c]), compose.Identifier(c))
        if c in real
        else compose.SQL("null as {}").format(compose.Identifier(c))
        for c in ("key", "enabled", "rollout_percentage")
    ]
    company = real.get("company_id")
    statement = compose.SQL("select {} from {} where {} limit {}").format(
        compose.SQL(", ").join(parts),
        compose.Identifier(found.table.schema, found.table.name),
        compose.SQL("{} is null").format(compose.Identifier(company)) if company else compose.SQL("true"),
        compose.Literal(MOST_FLAGS),
    )
    rows = _rows(connection, statement)
    if rows is None:
        return None
    return {text(r["key"], 200): (_truth(r["enabled"]), _whole(r["rollout_percentage"])) for r in rows if r["key"]}


def _own_buckets(
    connection: Answering, found: FunctionMatch | None, flags: Mapping[str, tuple[bool | None, int | None]]
) -> bool | None:
    """Whether the function draws tenants by another formula than the contract's; None if no flag is partly on."""
    some = [(key, percent) for key, (on, percent) in flags.items() if on and percent and 10 <= percent <= 90]
    if found is None or found.is_own or not found.function.callable or not some:
        return None
    key, percent = some[0]
    kind = id_type(found.function.arguments[0 if found.swapped else 1])
    ids = [str(n) if kind == "bigint" else str(uuid.UUID(int=n * 10**20)) for n in range(1, ASKED + 1)]
    name, company = compose.SQL("{}::text").format(compose.Literal(key)), compose.SQL("c::{}").format(compose.SQL(kind))
    statement = compose.SQL("select c, {}({}) as is_on from unnest({}::text[]) c").format(
        compose.Identifier(found.function.schema, found.function.name),
        compose.SQL(", ").join([company, name] if found.swapped else [name, company]),
        compose.Literal(ids),
    )
    rows = _rows(connection, statement)
    return None if rows is None else any(bool(r["is_on"]) != (bucket(key, str(r["c"])) < percent) for r in rows)


def _truth(value: object) -> bool | None:
    return {"true": True, "false": False, "t": True, "f": False, "1": True, "0": False}.get(str(value).lower())


def _whole(value: object) -> int | None:
    return int(str(value)) if str(value).isdecimal() and len(str(value)) < 10 else None


def _pause_row(connection: Answering, found: TableMatch | None) -> bool | None:
    if found is None or "company_id" not in found.columns:
        return None
    statement = compose.SQL("select exists (select from {} where {} is null) as found").format(
        compose.Identifier(found.table.schema, found.table.name),
        compose.Identifier(found.columns["company_id"].column.name),
    )
    rows = _rows(connection, statement)
    return bool(rows[0]["found"]) if rows else None


def _limit_form(connection: Answering, found: TableMatch | None) -> LimitForm | None:
    """How the keys of the rate limit are written; None without rows, or if some differ."""
    if found is None or "key" not in found.columns:
        return None
    statement = compose.SQL("select {}::text as key from {} limit {}").format(
        compose.Identifier(found.columns["key"].column.name),
        compose.Identifier(found.table.schema, found.table.name),
        compose.Literal(MOST_FLAGS),
    )
    forms = {form_of(text(r["key"], 300)) for r in _rows(connection, statement) or ()}
    return forms.pop() if len(forms) == 1 else None


def _id_form(connection: Answering, found: TableMatch | None) -> str:
    """The form of text ids if all that are looked at have one; else empty."""
    if found is None or "id" not in found.columns or bare(found.columns["id"].column.type) == "uuid":
        return ""
    statement = compose.SQL("select {}::text as id from {} limit {}").format(
        compose.Identifier(found.columns["id"].column.name),
        compose.Identifier(found.table.schema, found.table.name),
        compose.Literal(MOST_FLAGS),
    )
    ids = [text(r["id"], 200) for r in _rows(connection, statement) or ()]
    for name, form in ID_FORMS.items():
        begins = {m[1] if (m := form.fullmatch(one)) else None for one in ids}
        if len(begins) == 1 and (begin := begins.pop()) is not None:
            return f"{begin}{{{name}}}"
    return ""


def _limits(connection: Answering, found: TableMatch | None) -> dict[str, tuple[int, str]]:
    """The limits in the functions that count calls: those whose text names the table of the rate limit."""
    if found is None or found.table.is_view:
        return {}
    rows = _rows(connection, sql(QUERIES / "counters.sql").encode(), table=found.table.name)
    return limits_in({text(r["name"], 200): str(r["source"]) for r in rows or ()})


def _states(connection: Answering, tables: Mapping[str, TableMatch]) -> dict[tuple[str, str], tuple[str, ...]]:
    """The states in columns without an enum or a CHECK, from the server's statistics."""
    places = [
        f"{m.table.schema}\x01{m.table.name}\x01{m.columns[c].column.name}"
        for m in tables.values()
        for c in m.relation.values
        if c in m.columns and not m.columns[c].column.values and id_type(m.columns[c].column.type) == "text"
    ]
    rows = _rows(connection, sql(QUERIES / "states.sql").encode(), places=places) if places else None
    made = {}
    for row in rows or ():
        held = row["held"]
        states = tuple(text(v, MOST_STATE) for v in held if v) if isinstance(held, list) else ()
        if states and all(len(s) < MOST_STATE for s in states):
            made[f"{row['schema']}.{row['name']}", str(row["column"])] = states
    return made
