"""What each statement created, renamed and dropped, read from the catalogue after it. So a missing name can be traced:
never created, created later, dropped, or renamed.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from gates.rehearsal.reading.splitting import SqlStatement

AT_THE_END = sys.maxsize
"""The number of the look after all statements."""
QUERY = """
with own as (
  select oid, nspname from pg_catalog.pg_namespace
  where nspname not in ('pg_catalog', 'information_schema', 'pg_toast') and nspname !~ '^pg_(toast_)?temp_'
), relations as (
  select c.oid, o.nspname, c.relname, c.relkind from pg_catalog.pg_class c
  join own o on o.oid = c.relnamespace where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
)
select 'relation', oid, 0, nspname, relname::text, '' from relations
union all
select 'column', r.oid, a.attnum, r.nspname, a.attname::text, r.relname::text from relations r
join pg_catalog.pg_attribute a on a.attrelid = r.oid where a.attnum > 0 and not a.attisdropped and r.relkind <> 'S'
union all
select 'function', p.oid, 0, o.nspname, p.proname::text, pg_catalog.pg_get_function_identity_arguments(p.oid)
from pg_catalog.pg_proc p join own o on o.oid = p.pronamespace
union all
select 'type', t.oid, 0, o.nspname, t.typname::text, '' from pg_catalog.pg_type t join own o on o.oid = t.typnamespace
where t.typtype in ('e', 'd', 'r') or (t.typtype = 'c' and exists (
  select from pg_catalog.pg_class c where c.oid = t.typrelid and c.relkind = 'c'))
union all
select 'schema', oid, 0, '', nspname::text, '' from own
union all
select 'role', oid, 0, '', rolname::text, '' from pg_catalog.pg_roles where rolname !~ '^pg_'
union all
select 'extension', oid, 0, '', extname::text, '' from pg_catalog.pg_extension
"""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One object. `of`: the relation of a column, the arguments of a function."""

    kind: str
    schema: str
    name: str
    of: str = ""


@dataclass(frozen=True, slots=True)
class SchemaEvent:
    """A statement created, dropped or renamed an object (`now`: its new name)."""

    statement: SqlStatement
    number: int
    verb: str
    entry: CatalogueEntry
    now: str = ""


Snapshot = Mapping[tuple[str, int, int], CatalogueEntry]


@dataclass
class SchemaHistory:
    """The events in the order of the statements, and the objects that are there now."""

    present: Snapshot = field(default_factory=dict)
    events: list[SchemaEvent] = field(default_factory=list)

    def look(self, connection: psycopg.Connection[Any], statement: SqlStatement | None, number: int) -> None:
        """Compare the catalogue with the last look. Raise psycopg.Error if it cannot be read."""
        now = {(k, oid, sub): CatalogueEntry(k, *rest) for k, oid, sub, *rest in connection.execute(QUERY)}
        if statement is not None and now != self.present:
            self.events += self._changes(now, statement, number)
        self.present = now

    def _changes(self, now: Snapshot, statement: SqlStatement, number: int) -> Iterator[SchemaEvent]:
        for key in self.present.keys() - now.keys():
            yield SchemaEvent(statement, number, "drops", self.present[key])
        for key, entry in now.items():
            before = self.present.get(key)
            if before is None:
                yield SchemaEvent(statement, number, "makes", entry)
            elif before.name != entry.name or before.schema != entry.schema:
                yield SchemaEvent(statement, number, "renames", before, f"{entry.schema}.{entry.name}".lstrip("."))

    def of(self, kind: str, name: str, relations: frozenset[str] = frozenset()) -> list[SchemaEvent]:
        """The events of objects of that name; for a column, on one of these relations if any are given."""
        return [
            e
            for e in self.events
            if e.entry.kind == kind and e.entry.name == name and (not relations or e.entry.of in relations)
        ]

    def names(self, kind: str) -> list[str]:
        """The names of all objects of a kind that are there now."""
        return sorted({e.name for e in self.present.values() if e.kind == kind})

    def columns(self, relation: str) -> list[str]:
        found = [(key[2], e.name) for key, e in self.present.items() if e.kind == "column" and e.of == relation]
        return [name for _, name in sorted(found)]

    def schemas_with(self, kind: str, name: str) -> list[str]:
        return sorted({e.schema for e in self.present.values() if e.kind == kind and e.name == name})
