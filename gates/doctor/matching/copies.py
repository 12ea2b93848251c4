"""Tables that are in several schemas alike, as where each tenant has one: of such copies one is looked at. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gates.doctor.reading.schema import PUBLIC, SchemaTable

LEAST_SHARED = 0.5
"""Share of the columns of two tables of one name that both have, from which one is a copy of the other."""
CLOSE = 0.06
"""A schema that is worth so little less is as good as the best."""


@dataclass(frozen=True, slots=True)
class TableCopies:
    """The sets of copies: qualified name of each table -> all of its set; said: tables that a person names."""

    sets: Mapping[str, tuple[SchemaTable, ...]]
    said: Collection[str]

    @classmethod
    def among(cls, tables: Iterable[SchemaTable], said: Collection[str]) -> TableCopies:
        """Those of one name, of one kind, and with most of the columns, in schemas of their own."""
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
        """The schemas of the copies of what was found, the best first, with what all that was found there is worth."""
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
        """The tables without copies: of each set what a person names, else that of the first schema, or of the next."""
        sizes = Counter(t.schema for t in tables if t.qualified in self.sets)

        def rank(table: SchemaTable) -> tuple[bool, bool, int, str]:
            return table.schema != first, table.schema != PUBLIC, -sizes[table.schema], table.schema

        kept = set[str]()
        for copies in {id(s): s for s in self.sets.values()}.values():
            named = {t.qualified for t in copies} & {*self.said}
            kept |= named or {min(copies, key=rank).qualified}
        return tuple(t for t in tables if t.qualified not in self.sets or t.qualified in kept)


def shared(one: SchemaTable, other: SchemaTable) -> float:
    """Share of the columns of two tables that both have."""
    both = one.columns.keys() & other.columns.keys()
    return len(both) / max(len(one.columns.keys() | other.columns.keys()), 1)
