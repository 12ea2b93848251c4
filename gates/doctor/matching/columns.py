"""Matches real columns of a table with the contract's: by name, type, keys and neighbours. Pure. A guess by name alone
is never certain: it takes a key, a reference, or matching states.
"""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gates.contract.contract import Relation
from gates.contract.names import ID_KINDS
from gates.doctor.matching.assignment import NONE, assign
from gates.doctor.matching.states import match_values
from gates.doctor.reading.schema import SchemaColumn, SchemaTable
from gates.doctor.sqltypes import TIMES, WHOLES, bare, fitness, is_id
from gates.doctor.words import ALIKE, synonyms

SURE_COLUMN, LIKELY_COLUMN, PERHAPS_COLUMN = 0.9, 0.72, 0.52
CLOSE = 0.06
"""A second candidate within this distance is equally good: a person must choose."""
NAMED, TYPED = 0.75, 0.25
"""The weights of name and type in a score."""
REFERS, ALSO_CALLED, NUMBERS, ALONE, KEYED, HOLDS, COMMENTED = 0.4, 0.3, 0.5, 0.35, 0.45, 0.25, 0.2
"""Bonuses besides the name."""
UNKEYED = 0.75
"""The factor for a column that is not in the unique key that the contract's column is in."""
MOST_LOOKS = 3
"""The number of looks: the first finds the other columns of a key, the second uses them."""
KEY_FITNESS = 0.5
"""A key column whose type fits less than this belongs to another key."""
ColumnLikenesses = Mapping[str, Mapping[tuple[str, str], float]]
"""Real column -> (column of the contract, its table) -> similarity."""
KeyPlaces = Mapping[tuple[str, str], tuple[str, ...]]
"""(column of the contract, real column) at the same place of a unique key -> the real other columns of that key."""


class Confidence(enum.IntEnum):
    """How sure a guess is."""

    PERHAPS = 1
    LIKELY = 2
    SURE = 3

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class ColumnMatch:
    """The real column of a column of the contract."""

    column: SchemaColumn
    score: float
    confidence: Confidence
    reason: str
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pin:
    """What a person has said of one table already: it is no guess.

    columns: name of the contract -> real name. expressions, absent: columns of the contract without a real column.
    calls: a row is one call of the rate limit, or several.
    """

    table: str
    columns: Mapping[str, str] = field(default_factory=dict)
    expressions: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    calls: bool = False

    def allows(self, column: str, real: str) -> bool:
        """Whether it says, or does not rule out, that a column is this real one."""
        if column in self.columns:
            return self.columns[column] == real
        return column not in {*self.expressions, *self.absent} and real not in self.columns.values()

    def real(self, column: str) -> str:
        """The real name that it gives a column: its own name by default; empty if it has none."""
        return "" if column in {*self.expressions, *self.absent} else self.columns.get(column, column)


Pins = Mapping[str, Pin | None]
"""Table of the contract -> its pin; None: there is no such table."""


def graded(score: float, sure: float, likely: float) -> Confidence:
    """How sure a score is."""
    return Confidence.SURE if score >= sure else Confidence.LIKELY if score >= likely else Confidence.PERHAPS


def match_columns(
    relation: Relation, table: SchemaTable, targets: Mapping[str, str], alike: ColumnLikenesses, pin: Pin | None = None
) -> dict[str, ColumnMatch]:
    """The real columns by name of the contract. targets: column -> the table that it should refer to, and more."""
    wanted, real = [*relation.columns], [*table.columns.values()]
    one = _Pairs(relation, table, targets, alike, pin)
    for _ in range(MOST_LOOKS):
        scores = [[one.score(name, column) for column in real] for name in wanted]
        found = assign(scores, PERHAPS_COLUMN)
        named = {n: real[p].name for n, p in zip(wanted, found, strict=True) if p != NONE}
        before, one.places = one.places, key_places(relation, table, named)
        if one.places == before:
            break
    taken = {p for p in found if p != NONE}
    matched = {}
    for name, row, place in zip(wanted, scores, found, strict=True):
        if place == NONE:
            said = table.columns.get(pin.real(name)) if pin else None
            if said:  # two columns of the contract may map to one
                matched[name] = ColumnMatch(said, 1.0, Confidence.SURE, "gate.yaml says so")
            continue
        score, column = row[place], real[place]
        rivals = [real[i].name for i, s in enumerate(row) if i not in taken and s >= max(score - CLOSE, PERHAPS_COLUMN)]
        confidence = graded(score, SURE_COLUMN, LIKELY_COLUMN)
        if column.name != name and score <= 1.0:
            confidence = min(confidence, Confidence.SURE if one.is_evident(name, column) else Confidence.LIKELY)
            confidence = Confidence.PERHAPS if rivals else confidence
        matched[name] = ColumnMatch(column, min(score, 1.0), confidence, one.reason(name, column), (*rivals[:3],))
    return matched


class _Pairs:
    """The pairs of a contract column and a real one of one table. places: known once some pairs are."""

    def __init__(
        self,
        relation: Relation,
        table: SchemaTable,
        targets: Mapping[str, str],
        alike: ColumnLikenesses,
        pin: Pin | None,
    ) -> None:
        self.relation, self.table, self.targets, self.alike, self.pin = relation, table, targets, alike, pin
        self.alone = _alone(relation, table)
        self.places: KeyPlaces = {}

    def score(self, name: str, column: SchemaColumn) -> float:
        """From 0 to 1; 2 if gate.yaml says so."""
        if self.pin and not self.pin.allows(name, column.name):
            return 0.0
        if self.pin and self.pin.real(name) in self.table.columns and self.pin.real(name) != column.name:
            return 0.0
        if self.pin and name in self.pin.columns:
            return 2.0
        fit = self._fitness(name, column)
        if not fit or self._is_no_number(name, column):
            return 0.0
        if column.name == name:
            return NAMED + TYPED * fit
        if name in self.relation.nullable - {*sum(self.relation.keys, ())} and self._is_primary(column):
            return 0.0  # what identifies rows is never null
        if name == "id" and self._is_primary(column):
            return 0.99
        if column.references and column.references == self.targets.get(f"{name}!"):
            return 0.0
        alike = self._alike(name, column)
        bonus = sum(worth for worth, _ in self._support(name, column))
        if self.targets.get(f"{name}=") == column.name and not self._refers(name, column):
            bonus += ALSO_CALLED
        if alike < 0.5 and not bonus:
            return 0.0
        score = min(NAMED * alike + TYPED * fit + bonus, 0.99)
        others_keyed = any(n == name for n, _ in self.places) and (name, column.name) not in self.places
        return score * UNKEYED if others_keyed else score

    def _fitness(self, name: str, column: SchemaColumn) -> float:
        wanted = self.relation.columns[name]
        return fitness(wanted, column.type, is_id=is_id(name, wanted), values=bool(column.values))

    def _is_primary(self, column: SchemaColumn) -> bool:
        return any(k.is_primary and k.columns == (column.name,) for k in self.table.keys)

    def _is_own_number(self, column: SchemaColumn) -> bool:
        """Whether the rows have a number besides a primary key that is not a number."""
        is_unique = any(k.columns == (column.name,) and not k.is_primary and not k.partial for k in self.table.keys)
        primary = next((self.table.columns.get(c) for k in self.table.keys if k.is_primary for c in k.columns), None)
        is_number = bare(column.type) in WHOLES and column.has_default and is_unique
        return is_number and primary is not None and bare(primary.type) not in WHOLES

    def _is_no_number(self, name: str, column: SchemaColumn) -> bool:
        """Whether it cannot be the `id` that orders the rows of a table whose id has no type in `names:`."""
        if name != "id" or f"{self.relation.name}.id" in {*ID_KINDS, "agent_tasks.id"}:
            return False
        return self.relation.columns[name] == "bigint" and bare(column.type) not in WHOLES

    def _refers(self, name: str, column: SchemaColumn) -> bool:
        return bool(self.targets.get(name)) and column.references == self.targets[name]

    def _support(self, name: str, column: SchemaColumn) -> Iterator[tuple[float, str]]:
        """The evidence for a pair besides its names: weight and words."""
        if self._refers(name, column):
            yield REFERS, f"refers to {column.references}"
        if name == "id" and (self.table.numbered_by == column.name or self._is_own_number(column)):
            yield NUMBERS, "numbers the rows"
        if (name, column.name) in self.alone:
            yield ALONE, "the only one of its type"
        if (others := self.places.get((name, column.name))) is not None:
            yield KEYED, f"unique with {', '.join(others)}" if others else "unique"
        if name in self.relation.values and column.values:
            wanted = self.relation.values[name]
            worth = HOLDS * len(match_values(wanted, column.values, synonyms())) / len(wanted)
            yield worth, f"holds {', '.join(column.values[:6])}"
        if column.comment and name in column.comment:
            yield COMMENTED, "its comment names it"

    def is_evident(self, name: str, column: SchemaColumn) -> bool:
        """Whether more than a similar name supports a pair: a reference or its number, or weaker evidence as well."""
        is_key = name == "id" and self._is_primary(column)
        supported = any(worth for worth, _ in self._support(name, column))
        return is_key or self._refers(name, column) or (supported and self._alike(name, column) >= ALIKE)

    def _alike(self, name: str, column: SchemaColumn) -> float:
        return self.alike[column.name].get((name, self.relation.name), 0.0)

    def reason(self, name: str, column: SchemaColumn) -> str:
        """Why the real column is the one."""
        if column.name == name:
            return "same name"
        return "; ".join([f"called {column.name}, {column.type}", *(said for _, said in self._support(name, column))])


def key_places(relation: Relation, table: SchemaTable, named: Mapping[str, str]) -> KeyPlaces:
    """The pairs at the same place in a unique key. named: the present mapping. A real key with all columns of the
    contract's is stronger evidence than one with some. A table's own number is a key of any table.
    """
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for key in relation.keys:
        for name in key if key != ("id",) else ():
            others = {named[c] for c in key if c != name and c in named}
            places = [p for k in table.keys if (p := _rest(relation, table, k.columns, others, named.get("id", "")))]
            most = max((len(kept) for _, kept in places), default=0)
            for real, kept in places:
                wanted, column = relation.columns[name], table.columns[real]
                fit = fitness(wanted, column.type, is_id=is_id(name, wanted), values=bool(column.values))
                if len(kept) == most and fit >= KEY_FITNESS:
                    found[name, real] = kept
    return found


def _rest(
    relation: Relation, table: SchemaTable, key: tuple[str, ...], others: set[str], own_id: str
) -> tuple[str, tuple[str, ...]] | None:
    """The one column of a real key that is not among the others, and those of the others that it has."""
    rest = [c for c in key if c not in others]
    if table.kind == "p":  # the key of a partitioned table includes its time column, too
        rest = [c for c in rest if len(rest) == 1 or bare(table.columns[c].type) not in TIMES]
    if len(rest) != 1 or rest[0] not in table.columns:
        return None
    is_number = rest[0] == own_id or ("id" not in relation.columns and table.columns[rest[0]].has_default)
    return None if is_number and len(key) == 1 else (rest[0], tuple(c for c in key if c in others))


def _alone(relation: Relation, table: SchemaTable) -> frozenset[tuple[str, str]]:
    """Pairs of columns that are the only ones of their type in both tables."""
    pairs = []
    for kind in ("jsonb", "boolean", "timestamptz", "timestamptz[]", "xid8"):
        wanted = [n for n, t in relation.columns.items() if t == kind]
        real = [c.name for c in table.columns.values() if fitness(kind, c.type, is_id=False) >= 0.9]
        if len(wanted) == len(real) == 1:
            pairs.append((wanted[0], real[0]))
    return frozenset(pairs)
