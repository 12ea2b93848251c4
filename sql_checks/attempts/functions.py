"""Calls, as one tenant, the functions with their owner's rights: with the ids of another tenant and of its rows."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import psycopg

from gates.deployment.sql.catalogue import with_trust
from gates.deployment.sql.database import Connection, execute, sql
from sql_checks.attempts.statements import TenantStatement, attempt

FUNCTIONS = Path(__file__).with_name("functions.sql")
NAMES = ("uuid", "text", "character varying")
"""The types of arguments that get the other tenant's id, or the id of one of its rows."""
NUMBERS = ("smallint", "integer", "bigint", "numeric")
REST = {**dict.fromkeys((*NUMBERS, "real", "double precision"), "50"), "boolean": "true", "interval": "100 years"}
"""Type -> the value of other arguments, chosen so that a function shows much. Times are old, all others NULL."""
FIRST_S, ALL_S = 1.0, 15.0
"""The limit of a function's calls together, then of each alone, and that of all functions."""
OUT_OF_TIME, ASSERTED = "57014", "P0004"
"""SQLSTATEs that no handler of PL/pgSQL catches: they end all calls that were sent together."""
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NOTHING = "x^"
"""Matches no text."""
ROW_ID = re.compile(rf'"id": (?:"({ID.pattern})"|([0-9]{{1,9}})\b)')


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the target: how it is called and shown, its text, the types it takes; how many have defaults."""

    name: str
    shown: str
    body: str
    defaults: int
    types: Sequence[str]


@dataclass(frozen=True, slots=True)
class TwoTenants:
    """Who asks, with which claims, and whose rows must stay hidden. marks: ids in these rows alone; rows: their
    ids by table.
    """

    mine: str
    claims: str
    other: str
    marks: Sequence[str]
    rows: Mapping[str, Sequence[str]]


def told_apart(mine: str, claims: str, other: str, texts: Mapping[str, Sequence[str]]) -> TwoTenants:
    """The two, by the texts of both's rows in each table."""
    own, others = (" ".join(both[i] for both in texts.values()) for i in (0, 1))
    marks = {*ID.findall(others)} - {*ID.findall(own), mine, other}
    rows = {table: [a or b for a, b in ROW_ID.findall(both[1])] for table, both in texts.items()}
    return TwoTenants(mine, claims, other, sorted(marks), rows)


def rows_of(connection: Connection, relation: str, tenant: str, company: str) -> str:
    """The text of a tenant's rows."""
    query = f"select to_jsonb(t)::text as row from {relation} t where {tenant} = %s limit 200"
    try:
        with connection.transaction():
            return " ".join(str(row["row"]) for row in execute(connection, query, company))
    except psycopg.Error:
        if connection.closed:
            raise
        return ""


def called(connection: Connection, tenants: TwoTenants) -> tuple[dict[str, int], list[str]]:
    """Function -> how many rows with a mark of the other tenant it gave, and the functions that were not called to an
    end. A slow one is called again, one call at a time, at last for all the time that is left. The last act of a
    transaction: it changes the statement timeout.
    """
    waiting = [Function(**row) for row in execute(connection, with_trust(sql(FUNCTIONS)))]  # type: ignore[arg-type]
    gave, end = dict[str, int](), time.monotonic() + ALL_S
    for is_alone, most_s in ((False, FIRST_S), (True, FIRST_S), (True, ALL_S)) if tenants.marks else ():
        slow: list[Function] = []
        for function in waiting:
            calls = [*_calls(function, tenants)]
            batches = [[call] for call in calls] if is_alone else [calls]
            rows = [_rows(connection, some, min(most_s, end - time.monotonic())) for some in batches]
            gave[function.shown] = max((n for n in rows if n is not None), default=0)
            if None in rows and not gave[function.shown]:
                slow.append(function)
        waiting = slow
    return {name: rows for name, rows in gave.items() if rows}, [function.shown for function in waiting]


def _rows(connection: Connection, calls: Sequence[TenantStatement], limit_s: float) -> int | None:
    """The most rows that one of these calls gave; None if they did not all end within the limit."""
    if limit_s <= 0:
        return None
    connection.execute("select pg_catalog.set_config('statement_timeout', %s, true)", (str(int(limit_s * 1000) + 1),))
    done = attempt(connection, calls, whole=True)
    cut_short = {OUT_OF_TIME} if len(calls) == 1 else {OUT_OF_TIME, ASSERTED}
    return None if any(not one.entered or one.state in cut_short for one in done) else max(one.rows for one in done)


def _calls(function: Function, tenants: TwoTenants) -> Iterator[TenantStatement]:
    """Calls with and without arguments that have defaults; the other tenant as its ids, as its texts, as both, or NULL.
    Then calls for one of its rows, otherwise as for one's own.
    """
    types = function.types
    several = {
        tuple(_given(kind, tenants.other, named) for kind in types[:count])
        for count in {len(types), len(types) - function.defaults}
        for named in (NAMES, NAMES[:1], NAMES[1:], ())
    }
    for given in sorted(several):
        yield _call(function, given, tenants)
    own = [_given(kind, tenants.mine, NAMES) for kind in types]
    read = [row for table, rows in tenants.rows.items() if table in function.body for row in rows]
    for (place, kind), row in product(enumerate(types), read):
        if kind.removesuffix("[]") in (NUMBERS if row.isdigit() else NAMES):
            yield _call(function, [*own[:place], _literal(kind, row), *own[place + 1 :]], tenants, row)


def _call(function: Function, given: Sequence[str], tenants: TwoTenants, asked: str = "") -> TenantStatement:
    """Which rows of its answer have a mark, beside the one that was asked for."""
    rows = f"select to_jsonb(f)::text as said from {function.name}({', '.join(given)}) f limit 1000"
    marks = "|".join(mark for mark in tenants.marks if mark != asked) or NOTHING
    query = f"select from ({rows}) given where said ~ %s"
    return TenantStatement(query, (marks,), "authenticated", tenants.claims, read_only=True)


def _given(kind: str, tenant: str, named: Sequence[str]) -> str:
    """The literal for one argument."""
    if kind.startswith("json") and named:
        said: str | None = json.dumps(dict.fromkeys(("company_id", "tenant_id", "company", "tenant"), tenant))
    elif kind.removesuffix("[]") in named:
        return _literal(kind, tenant)
    elif kind == "date" or kind.startswith("timestamp"):
        said = "2000-01-01"
    else:
        said = REST.get(kind)
    return f"null::{kind}" if said is None else f"'{said}'::{kind}"


def _literal(kind: str, value: str) -> str:
    """A value as an argument, or as the only one of a list."""
    return f"'{{{value}}}'::{kind}" if kind.endswith("[]") else f"'{value}'::{kind}"
