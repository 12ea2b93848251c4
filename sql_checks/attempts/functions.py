"""Calls, as one tenant and with another tenant's id, the functions that run with their owner's rights."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from gates.deployment.sql.catalogue import with_trust
from gates.deployment.sql.database import Connection, execute, sql
from sql_checks.attempts.statements import TenantStatement, attempt

FUNCTIONS = Path(__file__).with_name("functions.sql")
NAMES = ("uuid", "text", "character varying")
"""The types of arguments that get the other tenant's id."""
REST = {
    **dict.fromkeys(("smallint", "integer", "bigint", "numeric", "real", "double precision"), "50"),
    "boolean": "true",
    "interval": "100 years",
}
"""Type -> the value of other arguments, chosen so that a function shows much. Times are old, all others NULL."""
FIRST_S, ALL_S = 1.0, 15.0
"""The limit of a function's calls together, then of each alone, and that of all functions."""
OUT_OF_TIME, ASSERTED = "57014", "P0004"
"""SQLSTATEs that no handler of PL/pgSQL catches: they end all calls that were sent together."""
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the target: how it is called and shown, the types it takes, and how many have defaults."""

    name: str
    shown: str
    defaults: int
    types: Sequence[str]


def ids_in(connection: Connection, relation: str, tenant: str, whose: Sequence[str]) -> dict[str, set[str]]:
    """Tenant -> the ids in its rows, which tell its rows from all others."""
    query = f"select {tenant} as tenant, to_jsonb(t)::text as row from {relation} t where {tenant} = any(%s) limit 200"
    found: dict[str, set[str]] = {company: set() for company in whose}
    try:
        with connection.transaction():
            rows = execute(connection, query, list(whose))
    except psycopg.Error:
        if connection.closed:
            raise
        return found
    for row in rows:
        found[str(row["tenant"])] |= set(ID.findall(str(row["row"])))
    return found


def called(connection: Connection, claims: str, other: str, marks: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Function -> how many rows with a mark of the other tenant it gave, and the functions that were not called to an
    end. A slow one is called again, one call at a time, at last for all the time that is left. The last act of a
    transaction: it changes the statement timeout.
    """
    waiting = [Function(**row) for row in execute(connection, with_trust(sql(FUNCTIONS)))]  # type: ignore[arg-type]
    gave, end = dict[str, int](), time.monotonic() + ALL_S
    for is_alone, most_s in ((False, FIRST_S), (True, FIRST_S), (True, ALL_S)) if marks else ():
        slow: list[Function] = []
        for function in waiting:
            calls = [_asked(call, claims, marks) for call in _calls(function, other)]
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


def _asked(call: str, claims: str, marks: Sequence[str]) -> TenantStatement:
    rows = f"select to_jsonb(f)::text as said from {call} f limit 1000"
    query = f"select from ({rows}) given where said ~ %s"
    return TenantStatement(query, ("|".join(marks),), "authenticated", claims, read_only=True)


def _calls(function: Function, other: str) -> Iterator[str]:
    """Calls with and without arguments that have defaults; the tenant as its ids, as its texts, as both, or NULL."""
    several = {
        tuple(_given(kind, other, named) for kind in function.types[:count])
        for count in {len(function.types), len(function.types) - function.defaults}
        for named in (NAMES, NAMES[:1], NAMES[1:], ())
    }
    for given in sorted(several):
        yield f"{function.name}({', '.join(given)})"


def _given(kind: str, other: str, named: Sequence[str]) -> str:
    """The literal for one argument."""
    element = kind.removesuffix("[]")
    if kind.startswith("json") and named:
        said: str | None = json.dumps(dict.fromkeys(("company_id", "tenant_id", "company", "tenant"), other))
    elif element in named:
        said = other if element == kind else f"{{{other}}}"
    elif kind == "date" or kind.startswith("timestamp"):
        said = "2000-01-01"
    else:
        said = REST.get(kind)
    return f"null::{kind}" if said is None else f"'{said}'::{kind}"
