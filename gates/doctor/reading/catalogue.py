"""Reads a Schema from a database: few catalogue queries, limited in time and bytes, in one read-only transaction. A
part that cannot be read (a lock, a slow catalogue) is unknown and affects no other part.
"""

import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from gates.contract.contract import Contract
from gates.deployment.sql.connection import Answering
from gates.deployment.sql.database import sql
from gates.doctor.reading import schema
from gates.errors import first_line
from gates.text.foreign import text

QUERIES = Path(__file__).with_name("queries")
MOST_TABLES = 10_000
MOST_DETAILED = 2_000
"""How many tables' keys, checks and policies are read: those with the most columns of the contract first."""
MOST_S = 5.0
STATEMENT_S = 4.0
LEAST_S = 0.05
LOCK_TIMEOUT_MS = 500
PLATFORM = ("auth", "storage", "realtime", "vault", "graphql", "graphql_public", "extensions", "supabase_functions")
"""Schemas of Supabase itself: its functions do not show how the deployment knows a tenant."""
_LITERAL = re.compile(r"'((?:[^']|''){1,100})'::|'((?:[^']|''){1,100})'")

Rows = list[dict[str, Any]]
D = TypeVar("D")


@dataclass
class _Session:
    """Runs the queries of one reading and records why one could not be run."""

    connection: Answering
    ends: float
    unread: dict[str, str] = field(default_factory=dict)

    def rows_of(self, wanted: Mapping[str, Mapping[str, object]]) -> dict[str, Rows]:
        """The rows of several parts, given their parameters: in one round trip unless one fails."""
        left_s = self.ends - time.monotonic()
        try:
            return self._asked(wanted, min(left_s / (2 * len(wanted)), STATEMENT_S))
        except psycopg.Error:
            if self.connection.closed:
                raise
        return {part: self._rows(part, given) for part, given in wanted.items()}

    def _rows(self, part: str, given: Mapping[str, object]) -> Rows:
        try:
            return self._asked({part: given}, min(self.ends - time.monotonic(), STATEMENT_S))[part]
        except psycopg.Error as error:
            if self.connection.closed:
                raise
            self.unread[part] = f"not read: {text(first_line(error), 200)}"
            return []

    def _asked(self, wanted: Mapping[str, Mapping[str, object]], each_s: float) -> dict[str, Rows]:
        """Raise psycopg.Error if one of them cannot be read in this time."""
        if each_s < LEAST_S:
            raise psycopg.OperationalError(f"the catalogue took longer than {MOST_S:g} s")
        with self.connection.at_once(end=b"rollback"):
            self.connection.execute(f"set local statement_timeout = {int(each_s * 1000)}".encode())
            self.connection.execute(f"set local lock_timeout = {LOCK_TIMEOUT_MS}".encode())
            asked = {
                part: self.connection.execute(sql(QUERIES / f"{part}.sql").encode(), given or None)
                for part, given in wanted.items()
            }
        return {part: cursor.fetchall() for part, cursor in asked.items()}


def read_schema(connection: Answering, contract: Contract) -> schema.Schema:
    """The schema of the database, read over a read-only autocommit connection. Raise psycopg.Error if that is lost."""
    session = _Session(connection, time.monotonic() + MOST_S)
    names = [*contract.relations]
    parts = session.rows_of(
        {
            "tables": {"names": names, "most": MOST_TABLES},
            "functions": {"names": [*contract.functions]},
            "roles": {"names": [*contract.roles]},
            "claims": {"platform": [*PLATFORM]},
            "server": {},
        }
    )
    raw, functions, roles, readers = (parts[part] for part in ("tables", "functions", "roles", "claims"))
    if len(raw) == MOST_TABLES:
        session.unread["further tables"] = f"not read: there are more than {MOST_TABLES} tables"
    server = next(iter(parts["server"]), {})
    tables = _detailed(session, raw, _wanted(raw, contract))
    return schema.Schema(
        tables=tuple(tables),
        functions=tuple(_made(schema.SchemaFunction, f) for f in functions),
        roles=tuple(_made(schema.SchemaRole, r) for r in roles),
        login=str(server.get("login", "")),
        database=str(server.get("database", "")),
        schemas=(*server.get("schemas", ()),),
        claim_readers={str(r["name"]): str(r["source"]) for r in readers},
        unread=session.unread,
    )


def _wanted(raw: Rows, contract: Contract) -> list[int]:
    """The relations to read in detail, the likeliest first: most of a huge schema is irrelevant."""
    if len(raw) <= MOST_DETAILED:
        return [r["oid"] for r in raw]
    known = {c for r in contract.relations.values() for c in r.columns}
    ranked = sorted(
        raw, key=lambda r: -sum(c[0] in known for c in r["columns"]) - 100 * (r["name"] in contract.relations)
    )
    return [r["oid"] for r in ranked[:MOST_DETAILED]]


def _detailed(session: _Session, raw: Rows, oids: Sequence[int]) -> list[schema.SchemaTable]:
    names = {r["oid"]: f"{r['schema']}.{r['name']}" for r in raw}
    details = ("keys", "references", "enums", "checks", "policies", "triggers")
    parts = {p: _by_oid(rows) for p, rows in session.rows_of({d: {"oids": oids} for d in details}).items()}
    found = []
    for row in raw:
        mine: Mapping[str, Rows] = {part: rows.get(row["oid"], []) for part, rows in parts.items()}
        columns = {c.name: c for c in map(_column, row["columns"])}
        for one in mine["references"]:
            _change(columns, one["column"], references=names.get(one["target"], ""), cascades=one["cascades"])
        for one in mine["checks"]:
            _change(columns, one["column"], values=_listed(one["definition"]))
        for one in mine["enums"]:
            _change(columns, one["column"], values=(*one["labels"],))
        found.append(
            _made(
                schema.SchemaTable,
                row,
                columns=columns,
                keys=tuple(_made(schema.UniqueKey, k) for k in mine["keys"]),
                policies=tuple(_made(schema.RowPolicy, p) for p in mine["policies"]),
                triggers=tuple(t["fires"] for t in mine["triggers"] if t["enabled"]),
            )
        )
    return found


def _by_oid(rows: Rows) -> dict[int, Rows]:
    found: dict[int, Rows] = defaultdict(list)
    for row in rows:
        found[row["oid"]].append(row)
    return found


def _column(given: Sequence[Any]) -> schema.SchemaColumn:
    name, kind, not_null, has_default, comment = given
    return schema.SchemaColumn(name, kind, not_null, has_default, comment or "")


def _change(columns: dict[str, schema.SchemaColumn], name: str, **parts: Any) -> None:
    if name in columns and any(parts.values()):
        columns[name] = replace(columns[name], **parts)


def _listed(definition: str) -> tuple[str, ...]:
    """The literals of `CHECK (col = ANY (ARRAY['a'::text, ...]))` and similar forms; empty for other checks."""
    if "ANY" not in definition and " IN " not in definition and "=" not in definition:
        return ()
    return tuple(dict.fromkeys((a or b).replace("''", "'") for a, b in _LITERAL.findall(definition)))


def _made(kind: type[D], row: Mapping[str, Any], **parts: Any) -> D:
    """A row as the dataclass whose fields its columns name: lists as tuples, NULL as an empty text."""
    own = {f.name: row[f.name] for f in fields(kind) if f.name in row}  # type: ignore[arg-type]  # of dataclasses alone
    plain = {n: "" if v is None else (*v,) if isinstance(v, list) else v for n, v in own.items()}
    return kind(**plain | parts)
