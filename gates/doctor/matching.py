"""Which real table and column is which of the contract: scores with reasons, then the best assignment of all. Pure."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt

from gates.contract.contract import Contract, Relation
from gates.doctor.assignment import NONE, assign
from gates.doctor.schema import Schema, SchemaColumn, SchemaTable
from gates.doctor.sqltypes import fitness, is_id
from gates.doctor.states import match_values
from gates.doctor.words import Likenesses, common_words, synonyms, words

SURE_TABLE, LIKELY_TABLE, PERHAPS_TABLE = 0.74, 0.56, 0.42
SURE_COLUMN, LIKELY_COLUMN, PERHAPS_COLUMN = 0.9, 0.72, 0.52
CLOSE = 0.06
"""A second candidate within this is as good as the first: which one it is, a person must say."""
NAME_SHARE, HUB_NAME_SHARE = 0.45, 0.75
"""How much of a table's score its name makes; a table of two columns is known by its name and its neighbours."""
HUB_NEIGHBOUR, NEIGHBOUR, MENTIONED, HOME = 0.5, 0.25, 0.1, 0.02
REFUTED = 0.6
"""What is left of a hub's score where foreign keys lead to another one."""
WHOLE_COVER, LEAST_COLUMNS = 0.85, 5
"""A table with all columns of the contract, and so many, is the one, whatever it is called."""
SLACK = 0.1
"""What the types, keys and states of columns may add to what their names say."""
TARGETS = {"company_id": "companies", "event_id": "events", "replay_run_id": "replay_runs"}
"""Columns that refer to a table of the contract where a deployment has foreign keys."""
ColumnLikenesses = Mapping[str, Mapping[tuple[str, str], float]]
"""Real column -> (column of the contract, its table) -> likeness."""
MOST_TABLES, MOST_NEIGHBOURS = 150, 30
"""Tables that are looked at closely, a quarter of a millisecond for each of their columns; and those they refer to."""
GENERIC = frozenset({"companies", "events", "agent_tasks", "audit_logs", "audit_heads"})
"""Tables that any application may have: they count only beside one that is of this contract alone."""


BY_CHANCE = 3
"""Fewer tables that are `perhaps` of the contract are there in any application."""


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
class TableMatch:
    """The real table of a table of the contract, with its columns: name of the contract -> match."""

    relation: Relation
    table: SchemaTable
    score: float
    confidence: Confidence
    reason: str
    columns: Mapping[str, ColumnMatch] = field(default_factory=dict)
    alternatives: tuple[str, ...] = ()
    pin: Pin | None = None

    @property
    def has_own_name(self) -> bool:
        return self.table.schema == "public" and self.table.name == self.relation.name


@dataclass(frozen=True, slots=True)
class Pin:
    """What a person has said of one table already: it is no guess.

    columns: name of the contract -> real name; expressions, absent: columns of the contract that are no real ones.
    """

    table: str
    columns: Mapping[str, str] = field(default_factory=dict)
    expressions: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    def allows(self, column: str, real: str) -> bool:
        """Whether it leaves it open that a column is this real one, or says so."""
        if column in self.columns:
            return self.columns[column] == real
        return column not in {*self.expressions, *self.absent} and real not in self.columns.values()


Pins = Mapping[str, Pin | None]
"""Table of the contract -> what is said of it; None: that there is none."""


def match(schema: Schema, contract: Contract, pins: Pins | None = None) -> dict[str, TableMatch]:
    """The real tables by name of the contract. One table is used once; nothing is claimed below `perhaps`."""
    made = _Matcher(schema, contract, pins or {})
    first = made.best({})
    return made.corroborated(made.best(first))


class _Matcher:
    """The scores of one schema against the contract."""

    def __init__(self, schema: Schema, contract: Contract, pins: Pins) -> None:
        relations = contract.relations.values()
        self.contract, self.pins = contract, pins
        all_tables = [t for t in schema.tables if t.columns]
        self.prefixes = common_words([t.name for t in all_tables])
        self.weights = _weights(contract)
        self.names = Likenesses("tables", [(r.name, "") for r in relations])
        self.columns = Likenesses("columns", [(c, r.name) for r in relations for c in r.columns])
        self.tables = self._likeliest(all_tables)
        self.alike = [self._alike(t) for t in self.tables]

    def _likeliest(self, tables: Sequence[SchemaTable]) -> list[SchemaTable]:
        """The tables to look at closely: all of them, or, of very many, those with the most familiar names."""
        if len(tables) <= MOST_TABLES:
            return [*tables]
        known = {p.table for p in self.pins.values() if p} | {f"public.{n}" for n in self.contract.relations}

        def familiar(table: SchemaTable) -> float:
            own = tuple(w for w in words(table.name) if w not in self.prefixes)
            named = 4.0 * self.names.knows(own) + 100.0 * (table.qualified in known)
            return named + sum(self.columns.knows(words(c)) for c in table.columns)

        chosen = sorted(tables, key=familiar, reverse=True)[:MOST_TABLES]
        named = {t.qualified for t in chosen}
        pointed = Counter(c.references for t in chosen for c in t.columns.values() if c.references not in {"", *named})
        near = {name for name, _ in pointed.most_common(MOST_NEIGHBOURS)}
        return [*chosen, *(t for t in tables if t.qualified in near)]

    def _alike(self, table: SchemaTable) -> tuple[Mapping[str, float], ColumnLikenesses]:
        """Of a table: how alike its name is to each table of the contract, and each column to each of the contract."""
        own = words(table.name)
        named = {name: v for (name, _), v in self.names.of(own, self.prefixes).items()}
        columns = {c: self.columns.of(words(c), frozenset(own)) for c in table.columns}
        return named, columns

    def best(self, before: Mapping[str, TableMatch]) -> dict[str, TableMatch]:
        """The best assignment. before: an earlier one, by which a table's neighbours are known."""
        relations = [*self.contract.relations.values()]
        targets = _targets(before)
        grid = [{i: self._scored(i, r, targets) for i, _ in self._candidates(r, targets)} for r in relations]
        used = sorted({i for row in grid for i in row})
        scores = [[row[i].score if i in row else 0.0 for i in used] for row in grid]
        found = assign(scores, PERHAPS_TABLE)
        worth = {used[p]: row[used[p]].score for row, p in zip(grid, found, strict=True) if p != NONE}
        named: dict[str, TableMatch] = {}
        for relation, row, place in zip(relations, grid, found, strict=True):
            if place != NONE:
                one = row[used[place]]
                named[relation.name] = _with_rivals(one, [m for i, m in row.items() if m.score > worth.get(i, 0.0)])
        return named

    def _candidates(self, relation: Relation, targets: Mapping[str, str]) -> Iterable[tuple[int, SchemaTable]]:
        """The tables that can come to a score worth claiming."""
        pin = self.pins.get(relation.name, ...)
        pointed = {targets.get(c) for c, r in TARGETS.items() if r == relation.name}
        for i, table in enumerate(self.tables):
            if pin is None or table.is_view != relation.is_view:
                continue
            if isinstance(pin, Pin):
                if table.qualified == pin.table:
                    yield i, table
            elif table.qualified in pointed or self._at_best(relation, i) > PERHAPS_TABLE:
                yield i, table

    def _at_best(self, relation: Relation, place: int) -> float:
        """The score that a table cannot exceed but by its neighbours and types."""
        named, columns = self.alike[place]
        table = self.tables[place]
        best = {
            c: max((a.get((c, relation.name), 0.0) for a in columns.values()), default=0.0) for c in relation.columns
        }
        whole = sum(self.weights[c] for c in relation.columns)
        covered = sum(self.weights[c] * (0.25 + 0.75 * a if a >= 0.4 else 0.0) for c, a in best.items()) / whole
        share = _name_share(relation)
        name = 1.0 if table.name == relation.name else named.get(relation.name, 0.0)
        return share * name + (1 - share) * covered + SLACK

    def _scored(self, place: int, relation: Relation, targets: Mapping[str, str]) -> TableMatch:
        table, (named, alike) = self.tables[place], self.alike[place]
        name = 1.0 if table.name == relation.name else named.get(relation.name, 0.0)
        pin = self.pins.get(relation.name)
        columns = match_columns(relation, table, targets, alike, pin)
        if pin:
            return TableMatch(relation, table, 2.0, Confidence.SURE, "gate.yaml says so", columns, pin=pin)
        whole = sum(self.weights[c] for c in relation.columns)
        covered = sum(self.weights[c] * m.score for c, m in columns.items()) / whole
        share = _name_share(relation)
        score = share * name + (1 - share) * covered + HOME * (table.schema == "public")
        reasons = [f"name {name:.0%}", f"{len(columns)} of {len(relation.columns)} columns"]
        pointed = [c for c, r in TARGETS.items() if r == relation.name and targets.get(c) == table.qualified]
        if pointed:
            score += HUB_NEIGHBOUR if share == HUB_NAME_SHARE else NEIGHBOUR
            reasons.append(f"{pointed[0]} refers to it")
        elif share == HUB_NAME_SHARE and any(targets.get(c) for c, r in TARGETS.items() if r == relation.name):
            score *= REFUTED
            reasons.append("the others refer to another table")
        elif table.comment and relation.name in table.comment:
            score += MENTIONED
            reasons.append("its comment names it")
        if covered < 0.2 and len(relation.columns) >= 4:
            score /= 2
        is_whole = covered >= WHOLE_COVER and len(relation.columns) >= LEAST_COLUMNS
        if relation.name in GENERIC and not pointed and not is_whole and score < LIKELY_TABLE:
            score = 0.0
        score = min(score, 1.0)
        confidence = _confidence(score, SURE_TABLE, LIKELY_TABLE)
        return TableMatch(relation, table, score, confidence, ", ".join(reasons), columns)

    def corroborated(self, found: dict[str, TableMatch]) -> dict[str, TableMatch]:
        """Without the tables that any application has, where nothing speaks for this contract: neither a table that is
        likely one of it, nor several that may be.
        """
        certain = any(m.score >= LIKELY_TABLE for n, m in found.items() if n not in GENERIC and not m.relation.is_view)
        own = {n: m for n, m in found.items() if m.has_own_name and m.confidence > Confidence.PERHAPS}
        maybe = {n: m for n, m in found.items() if n not in GENERIC}
        return found if certain else own | maybe if len(maybe) >= BY_CHANCE else own


def match_columns(
    relation: Relation,
    table: SchemaTable,
    targets: Mapping[str, str],
    alike: ColumnLikenesses,
    pin: Pin | None = None,
) -> dict[str, ColumnMatch]:
    """The real columns by name of the contract. targets: column -> the table that it should refer to."""
    wanted, real = [*relation.columns.items()], [*table.columns.values()]
    alone = _alone(relation, table)
    scores = [
        [
            _column_score(relation, n, t, c, targets, alike[c.name].get((n, relation.name), 0.0), table, alone)
            for c in real
        ]
        for n, t in wanted
    ]
    for row, (name, _) in zip(scores, wanted, strict=True):
        for place, column in enumerate(real):
            if pin and not pin.allows(name, column.name):
                row[place] = 0.0
            elif pin and name in pin.columns:
                row[place] = 2.0
    found = assign(scores, PERHAPS_COLUMN)
    taken = {p for p in found if p != NONE}
    matched = {}
    for (name, _), row, place in zip(wanted, scores, found, strict=True):
        if place == NONE:
            continue
        score = row[place]
        rivals = [real[i].name for i, s in enumerate(row) if i not in taken and s >= max(score - CLOSE, PERHAPS_COLUMN)]
        confidence = _confidence(score, SURE_COLUMN, LIKELY_COLUMN)
        if rivals and real[place].name != name:
            confidence = Confidence.PERHAPS
        matched[name] = ColumnMatch(
            real[place],
            min(score, 1.0),
            confidence,
            _column_reason(relation, name, real[place], targets),
            (*rivals[:3],),
        )
    return matched


def _column_score(
    relation: Relation,
    name: str,
    wanted: str,
    column: SchemaColumn,
    targets: Mapping[str, str],
    alike: float,
    table: SchemaTable,
    alone: frozenset[tuple[str, str]],
) -> float:
    identifies = is_id(name, wanted)
    fit = fitness(wanted, column.type, is_id=identifies, values=bool(column.values))
    if not fit:
        return 0.0
    if column.name == name:
        return 0.75 + 0.25 * fit
    bonus = 0.0
    if targets.get(name) and column.references == targets[name]:
        bonus += 0.4
    elif targets.get(f"{name}=") == column.name:
        bonus += 0.3
    if name == "id" and any(k.is_primary and k.columns == (column.name,) for k in table.keys):
        return 0.99
    if name == "id" and table.numbered_by == column.name:
        bonus += 0.5
    if (name, column.name) in alone:
        bonus += 0.35
    if name in relation.values and column.values:
        bonus += 0.25 * len(match_values(relation.values[name], column.values, synonyms())) / len(relation.values[name])
    if column.comment and name in column.comment:
        bonus += 0.2
    if alike < 0.5 and not bonus:
        return 0.0
    return min(0.75 * alike + 0.25 * fit + bonus, 0.99)


def _alone(relation: Relation, table: SchemaTable) -> frozenset[tuple[str, str]]:
    """Pairs of columns that are the only ones of their type, in the table of the contract and in the real one."""
    pairs = []
    for kind in ("jsonb", "boolean", "timestamptz", "timestamptz[]", "xid8"):
        wanted = [n for n, t in relation.columns.items() if t == kind]
        real = [c.name for c in table.columns.values() if fitness(kind, c.type, is_id=False) >= 0.9]
        if len(wanted) == len(real) == 1:
            pairs.append((wanted[0], real[0]))
    return frozenset(pairs)


def _column_reason(relation: Relation, name: str, column: SchemaColumn, targets: Mapping[str, str]) -> str:
    if column.name == name:
        return "same name"
    reasons = [f"called {column.name}, {column.type}"]
    if targets.get(name) and column.references == targets[name]:
        reasons.append(f"refers to {column.references}")
    if column.comment and name in column.comment:
        reasons.append("its comment names it")
    if name in relation.values and column.values:
        reasons.append(f"holds {', '.join(column.values[:6])}")
    return "; ".join(reasons)


def _with_rivals(one: TableMatch, others: Sequence[TableMatch]) -> TableMatch:
    """The match with the tables that are nearly as good; where there is one, which it is must be said by a person."""
    rivals = sorted(
        (m for m in others if m.score >= max(one.score - CLOSE, PERHAPS_TABLE) and m.table is not one.table),
        key=lambda m: -m.score,
    )
    if not rivals or one.has_own_name or one.pin:
        return one
    return TableMatch(
        one.relation,
        one.table,
        one.score,
        Confidence.PERHAPS,
        one.reason,
        one.columns,
        tuple(m.table.qualified for m in rivals[:3]),
        one.pin,
    )


def _targets(found: Mapping[str, TableMatch]) -> dict[str, str]:
    """What an assignment says of names to come: for each column that refers to a table of the contract, which table the
    real ones refer to most; and, under `column=`, what a column of several tables is called in most of them.
    """
    targets = {}
    for column, named in TARGETS.items():
        seen = Counter(
            m.columns[column].column.references
            for m in found.values()
            if column in m.columns and m.columns[column].column.references
        )
        table = found.get(named)
        if seen:
            targets[column] = seen.most_common(1)[0][0]
        elif table is not None and table.confidence > Confidence.PERHAPS:  # its own name told it
            targets[column] = table.table.qualified
    if "companies" in found and "name" in found["companies"].columns:
        targets["company_name="] = found["companies"].columns["name"].column.name
    for column in {c for m in found.values() for c in m.columns}:
        called = Counter(m.columns[column].column.name for m in found.values() if column in m.columns)
        name, times = called.most_common(1)[0]
        if times > 1:
            targets[f"{column}="] = name
    return targets


def _weights(contract: Contract) -> dict[str, float]:
    """A column that few tables have says more than one that all have."""
    seen = Counter(c for r in contract.relations.values() for c in r.columns)
    return {c: 1 / sqrt(n) for c, n in seen.items()}


def _name_share(relation: Relation) -> float:
    return HUB_NAME_SHARE if len(relation.columns) < 4 else NAME_SHARE


def _confidence(score: float, sure: float, likely: float) -> Confidence:
    return Confidence.SURE if score >= sure else Confidence.LIKELY if score >= likely else Confidence.PERHAPS
