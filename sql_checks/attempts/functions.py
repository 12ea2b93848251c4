"""Calls, as one tenant, the functions that give rows with their owner's rights, with what another tenant is called."""

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
from sql_checks.attempts.statements import Attempt, TenantStatement, attempt

FUNCTIONS = Path(__file__).with_name("functions.sql")
NAMES = ("uuid", "text", "character varying")
"""The types that the name of a tenant is given as."""
REST = {
    **dict.fromkeys(("smallint", "integer", "bigint", "numeric", "real", "double precision"), "50"),
    "boolean": "true",
    "interval": "100 years",
}
"""What is given else, so that much is shown; NULL where a type is not here, nor a time."""
CALL_MS, ALL_S = 1000, 15.0
"""The limits of the calls of one function, and of all."""
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the target: how it is called and shown, the types it takes, and how many have defaults."""

    name: str
    shown: str
    defaults: int
    types: Sequence[str]


def ids_in(connection: Connection, relation: str, tenant: str, whose: Sequence[str]) -> dict[str, set[str]]:
    """The ids in the rows of each of these tenants: what tells a row from all others."""
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


def called(connection: Connection, claims: str, other: str, marks: Sequence[str]) -> dict[str, Attempt]:
    """What the calls of each function came to; `rows` are those with a mark of the other tenant's. Slow ones are cut
    short: the last that a transaction does.
    """
    if not marks:
        return {}
    connection.execute("select pg_catalog.set_config('statement_timeout', %s, true)", (str(CALL_MS),))
    end = time.monotonic() + ALL_S
    found: dict[str, Attempt] = {}
    for row in execute(connection, with_trust(sql(FUNCTIONS))):
        if time.monotonic() > end:
            break
        function = Function(**row)  # type: ignore[arg-type]
        calls = [_asked(call, claims, marks) for call in _calls(function, other)]
        done = [one for one in attempt(connection, calls) if one.entered]
        if done:
            found[function.shown] = max(done, key=lambda one: one.rows)
    return found


def _asked(call: str, claims: str, marks: Sequence[str]) -> TenantStatement:
    rows = f"select to_jsonb(f)::text as said from {call} f limit 1000"
    query = f"select from ({rows}) given where said ~ %s"
    return TenantStatement(query, ("|".join(marks),), "authenticated", claims, read_only=True)


def _calls(function: Function, other: str) -> Iterator[str]:
    """With all that it takes or only what it must have; the tenant as its ids, its texts or both, or NULL."""
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
