"""Tables that exist alike in several schemas, such as one schema per tenant: only one of them is examined. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gates.doctor.reading.schema import PUBLIC, SchemaTable

LEAST_SHARED = 0.5
"""The share of common columns from which a table of the same name is a copy."""
CLOSE = 0.06
"""A schema whose score is so little lower is as good as the best."""


@dataclass(frozen=True, slots=True)
class TableCopies:
    """The sets of copies: qualified name of each table -> its whole set. said: tables that a person named."""

    sets: Mapping[str, tuple[SchemaTable, ...]]
    said: Collection[str]

    @classmethod
    def among(cls, tables: Iterable[SchemaTable], said: Collection[str]) -> TableCopies:
        """Those of one name and kind that share most columns, each in its own schema."""
        alike: dict[tuple[str, bool], list[list[SchemaTable]]] = {}
        for table in tables:
            sets = alike.setdefault((table.name, table.is_view), [])
            found = next((s for s in sets if shared(s[0], table) >= LEAST_SHARED), None)
            if found is None:
                sets.append([table])
            else:
                found.append(table)
        several = [tuple(s) for sets in alike.values() for s in sets if len(s) > 1]
        return cls({t.qualified: s for s in several for t in s}, said)

    def schemas(self, found: Iterable[tuple[SchemaTable, float]]) -> list[tuple[str, float]]:
        """The schemas of the copies found, the best first, each with the total score of what was found there."""
        worth: dict[str, float] = defaultdict(float)
        copied = set[str]()
        for table, score in found:
            copies = self.sets.get(table.qualified, ())
            copied |= {t.schema for t in copies}
            for schema in (
                {table.schema} if table.qualified in self.said else {table.schema, *(t.schema for t in copies)}
            ):
                worth[schema] += score
        return sorted(((s, worth[s]) for s in copied), key=lambda s: (-s[1], s[0] != PUBLIC, s[0]))

    def one_of_each(self, tables: Sequence[SchemaTable], first: str) -> tuple[SchemaTable, ...]:
        """The tables without copies: of each set the one that a person names, else that of the first schema with it."""
        sizes = Counter(t.schema for t in tables if t.qualified in self.sets)

        def rank(table: SchemaTable) -> tuple[bool, bool, int, str]:
            return table.schema != first, table.schema != PUBLIC, -sizes[table.schema], table.schema

        kept = set[str]()
        for copies in {id(s): s for s in self.sets.values()}.values():
            named = {t.qualified for t in copies} & {*self.said}
            kept |= named or {min(copies, key=rank).qualified}
        return tuple(t for t in tables if t.qualified not in self.sets or t.qualified in kept)


def shared(one: SchemaTable, other: SchemaTable) -> float:
    """The share of columns that two tables have in common."""
    both = one.columns.keys() & other.columns.keys()
    return len(both) / max(len(one.columns.keys() | other.columns.keys()), 1)
