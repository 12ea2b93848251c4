"""Matches real tables with the contract's: scores with reasons, then the best assignment of all. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt

from gates.contract.contract import Contract, Relation
from gates.doctor.matching.assignment import NONE, assign
from gates.doctor.matching.columns import (
    CLOSE,
    ColumnLikenesses,
    ColumnMatch,
    Confidence,
    Pin,
    Pins,
    graded,
    match_columns,
)
from gates.doctor.matching.copies import TableCopies, shared
from gates.doctor.matching.limit_keys import LIMITING, calls_of
from gates.doctor.matching.presets import libraries_of
from gates.doctor.reading.schema import PUBLIC, Schema, SchemaColumn, SchemaTable
from gates.doctor.words import Likenesses, common_words, words

SURE_TABLE, LIKELY_TABLE, PERHAPS_TABLE = 0.74, 0.56, 0.42
NAME_SHARE, HUB_NAME_SHARE = 0.45, 0.75
"""The weight of the name in a table's score; a table of two columns is known by its name and its neighbours."""
HUB_NEIGHBOUR, NEIGHBOUR, MENTIONED, HOME = 0.5, 0.25, 0.1, 0.02
REFUTED = 0.6
"""The factor of a hub's score if foreign keys lead to another one."""
WHOLE_COVER, LEAST_COLUMNS = 0.85, 5
"""A table with all columns of the contract, and at least so many, is certain, whatever its name."""
CALLS_COVER, LEAST_NAME = 0.8, 0.6
"""The score of a table of single calls as the rate limit, and the required similarity of its name."""
SLACK = 0.1
"""What types, keys and states of columns may add to the score of their names."""
TARGETS = {"company_id": "companies", "event_id": "events", "replay_run_id": "replay_runs"}
"""Columns that refer to a table of the contract if a deployment has foreign keys."""
MOST_TABLES, MOST_NEIGHBOURS = 150, 30
"""How many tables are examined closely, at 0.25 ms per column; tables that they refer to are added."""
GENERIC = frozenset({"companies", "events", "agent_tasks", "audit_logs", "audit_heads"})
"""Tables that any application may have: they count only together with one that is specific to this contract."""
SAME_COLUMNS = 0.8
"""The share of columns that a table and its archive have in common."""
MOST_ALTERNATIVES = 3
BY_CHANCE = 3
"""Fewer `perhaps` tables than this may occur in any application."""


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
    home: str = PUBLIC
    """The schema of the contract's unqualified names."""
    calls: Mapping[str, str] = field(default_factory=dict)
    """`calls` for a rate limit with a row for each call."""
    copies: tuple[str, ...] = ()
    """The schemas with the same table, including its own; empty if there is only one."""

    @property
    def has_own_name(self) -> bool:
        return self.table.schema == self.home and self.table.name == self.relation.name

    @property
    def is_likely(self) -> bool:
        """Whether it is likely one of the contract, even if several are equally good."""
        return self.score >= LIKELY_TABLE


def guessed_tables(schema: Schema, contract: Contract, pins: Pins | None, home: str = "") -> dict[str, TableMatch]:
    """The real tables by name of the contract. Tables of a known queue are excluded. home: as of `match`."""
    libraries = {name for preset in libraries_of(schema) for name in preset.tables}
    own = replace(schema, tables=tuple(t for t in schema.tables if t.qualified not in libraries))
    return match(own, contract, pins, home)


def match(schema: Schema, contract: Contract, pins: Pins | None = None, home: str = "") -> dict[str, TableMatch]:
    """The real tables by name of the contract. Each table is used once; scores below `perhaps` are dropped.

    home: the schema of unqualified names, if gate.yaml says so. Of tables that several schemas have alike, those of one
    schema are examined: of home, else of the best fit. The others are alternatives.
    """
    said = pins or {}
    copies = TableCopies.among(schema.tables, {p.table for p in said.values() if p})
    found = _matched(copies.one_of_each(schema.tables, home), contract, said, home)
    schemas = copies.schemas((m.table, m.score) for m in found.values())
    if not schemas:
        return found
    best, worth = schemas[0]
    if home not in dict(schemas):
        found = _matched(copies.one_of_each(schema.tables, best), contract, said, home)
    is_open = best != PUBLIC and any(w > worth - CLOSE for _, w in schemas[1:])
    return {
        n: m if m.pin else _with_copies(m, copies.sets.get(m.table.qualified, ()), is_open) for n, m in found.items()
    }


def _matched(tables: Sequence[SchemaTable], contract: Contract, pins: Pins, home: str) -> dict[str, TableMatch]:
    made = _Matcher(tables, contract, pins, home or PUBLIC)
    first = made.best({})
    return made.corroborated(made.best(first))


def _with_copies(one: TableMatch, copies: Sequence[SchemaTable], is_open: bool) -> TableMatch:
    """The match with its copies in other schemas. is_open: they are equally good."""
    others = tuple(t.qualified for t in copies if t is not one.table)
    if one.pin or not others or (one.table.schema == one.home != PUBLIC):
        return one
    confidence = Confidence.PERHAPS if is_open else one.confidence if one.has_own_name else Confidence.LIKELY
    return replace(
        one,
        confidence=min(one.confidence, confidence),
        alternatives=(*one.alternatives, *others)[:MOST_ALTERNATIVES],
        copies=tuple(sorted(t.schema for t in copies)),
    )


class _Matcher:
    """The scores of one schema against the contract."""

    def __init__(self, tables: Sequence[SchemaTable], contract: Contract, pins: Pins, home: str) -> None:
        relations = contract.relations.values()
        self.contract, self.pins, self.home = contract, pins, home
        all_tables = [t for t in tables if t.columns]
        self.prefixes = common_words([t.name for t in all_tables])
        self.weights = _weights(contract)
        self.names = Likenesses("tables", [(r.name, "") for r in relations])
        self.columns = Likenesses("columns", [(c, r.name) for r in relations for c in r.columns])
        self.tables = self._likeliest(all_tables)
        self.alike = [self._alike(t) for t in self.tables]

    def _likeliest(self, tables: Sequence[SchemaTable]) -> list[SchemaTable]:
        """The tables to examine closely: all, or, if there are very many, those with the most familiar names."""
        if len(tables) <= MOST_TABLES:
            return [*tables]
        known = {p.table for p in self.pins.values() if p} | {f"{self.home}.{n}" for n in self.contract.relations}

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
        """The similarity of a table's name to each table of the contract, and of its columns to each column."""
        own = words(table.name)
        named = {name: v for (name, _), v in self.names.of(own, self.prefixes).items()}
        columns = {c: self.columns.of(words(c), frozenset(own)) for c in table.columns}
        return named, columns

    def best(self, before: Mapping[str, TableMatch]) -> dict[str, TableMatch]:
        """The best assignment. before: an earlier one, from which a table's neighbours are known."""
        relations = [*self.contract.relations.values()]
        targets = _targets(before, self.tables)
        grid = [{i: self._scored(i, r, targets) for i, _ in self._candidates(r, targets)} for r in relations]
        own = {i: m.score for row in grid for i, m in row.items() if m.has_own_name and m.is_likely}
        grid = [{i: m for i, m in row.items() if m.has_own_name or m.score > own.get(i, 0.0)} for row in grid]
        used = sorted({i for row in grid for i in row})
        scores = [[row[i].score if i in row else 0.0 for i in used] for row in grid]
        found = assign(scores, PERHAPS_TABLE)
        worth = {used[p]: row[used[p]].score for row, p in zip(grid, found, strict=True) if p != NONE}
        named: dict[str, TableMatch] = {}
        for relation, row, place in zip(relations, grid, found, strict=True):
            if place != NONE:
                one = row[used[place]]
                named[relation.name] = _with_rivals(one, [m for i, m in row.items() if m.score > worth.get(i, 0.0)])
        rows = {
            r.name: {m.table.qualified: m.score for m in row.values()} for r, row in zip(relations, grid, strict=True)
        }
        return {n: m for n, m in named.items() if m.pin or not _is_second(m, named, rows)}

    def _candidates(self, relation: Relation, targets: Mapping[str, str]) -> Iterable[tuple[int, SchemaTable]]:
        """The tables that can reach a sufficient score."""
        pin = self.pins.get(relation.name, ...)
        pointed = {targets.get(c) for c, r in TARGETS.items() if r == relation.name}
        for i, table in enumerate(self.tables):
            if pin is None or (table.is_view != relation.is_view and pin is ...):
                continue
            if isinstance(pin, Pin):
                if table.qualified == pin.table:
                    yield i, table
            elif table.qualified in pointed or self._at_best(relation, i) > PERHAPS_TABLE:
                yield i, table

    def _at_best(self, relation: Relation, place: int) -> float:
        """The highest score that a table can reach without its neighbours and types."""
        named, columns = self.alike[place]
        table = self.tables[place]
        best = {
            c: max((a.get((c, relation.name), 0.0) for a in columns.values()), default=0.0) for c in relation.columns
        }
        whole = sum(self.weights[c] for c in relation.columns)
        covered = sum(self.weights[c] * (0.25 + 0.75 * a if a >= 0.4 else 0.0) for c, a in best.items()) / whole
        share = _name_share(relation)
        name = 1.0 if table.name == relation.name else named.get(relation.name, 0.0)
        if _may_limit(relation, table, name):
            name, covered = max(name, LEAST_NAME), max(covered, CALLS_COVER)
        return share * name + (1 - share) * covered + SLACK

    def _scored(self, place: int, relation: Relation, targets: Mapping[str, str]) -> TableMatch:
        table, (named, alike) = self.tables[place], self.alike[place]
        name = 1.0 if table.name == relation.name else named.get(relation.name, 0.0)
        pin = self.pins.get(relation.name)
        columns = match_columns(relation, table, targets, alike, pin)
        if pin:
            return TableMatch(relation, table, 2.0, Confidence.SURE, "gate.yaml says so", columns, (), pin, self.home)
        whole = sum(self.weights[c] for c in relation.columns)
        covered = sum(self.weights[c] * m.score for c, m in columns.items()) / whole
        calls = _calls(table, relation, name, targets)
        if calls:
            name, covered, columns = max(name, LEAST_NAME), CALLS_COVER, {}
        share = _name_share(relation)
        score = share * name + (1 - share) * covered + HOME * (table.schema == self.home)
        reasons = [f"name {name:.0%}", f"{len(columns)} of {len(relation.columns)} columns"]
        if calls:
            reasons[1] = f"each row has when, and whose, {'some calls were' if 'number' in calls else 'a call was'}"
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
        confidence = graded(score, SURE_TABLE, LIKELY_TABLE)
        return TableMatch(relation, table, score, confidence, ", ".join(reasons), columns, home=self.home, calls=calls)

    def corroborated(self, found: dict[str, TableMatch]) -> dict[str, TableMatch]:
        """Remove the tables that any application has, unless one of the contract, or several possible ones, exist."""
        certain = any(m.score >= LIKELY_TABLE for n, m in found.items() if n not in GENERIC and not m.relation.is_view)
        own = {n: m for n, m in found.items() if m.has_own_name and m.confidence > Confidence.PERHAPS}
        maybe = {n: m for n, m in found.items() if n not in GENERIC}
        return found if certain else own | maybe if len(maybe) >= BY_CHANCE else own


def _may_limit(relation: Relation, table: SchemaTable, name: float) -> bool:
    """Whether a table has a name like the rate limit's, or like a count of calls."""
    return "hits" in relation.columns and (name >= LEAST_NAME or bool(LIMITING & {*words(table.name)}))


def _calls(table: SchemaTable, relation: Relation, name: float, targets: Mapping[str, str]) -> dict[str, str]:
    """`calls` for such a table without hits; else nothing."""
    if not _may_limit(relation, table, name):
        return {}
    return calls_of(table, targets.get("company_id", ""), targets.get("company_id=", ""))


def _is_second(one: TableMatch, named: Mapping[str, TableMatch], scores: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether another table with the same columns is already matched, and this one is its archive."""
    name = one.table.qualified
    return any(
        scores[n].get(name, 0.0) > one.score and shared(m.table, one.table) >= SAME_COLUMNS
        for n, m in named.items()
        if m is not one
    )


def _with_rivals(one: TableMatch, others: Sequence[TableMatch]) -> TableMatch:
    """The match with the tables that are nearly as good; if there is one, a person must choose."""
    rivals = sorted(
        (m for m in others if m.score >= max(one.score - CLOSE, PERHAPS_TABLE) and m.table is not one.table),
        key=lambda m: -m.score,
    )
    if not rivals or one.has_own_name or one.pin:
        return one
    named = tuple(m.table.qualified for m in rivals[:MOST_ALTERNATIVES])
    return replace(one, confidence=Confidence.PERHAPS, alternatives=named)


def _targets(found: Mapping[str, TableMatch], tables: Sequence[SchemaTable]) -> dict[str, str]:
    """What an assignment tells of names, for the next one.

    For each column that refers to a table of the contract: the table that most real ones refer to. Under `column=`: the
    most common name of a column of several tables. Under `column!`: a table whose row a reference names, but the
    contract's column does not.
    """
    targets = {}
    taken = {m.table.qualified: n for n, m in found.items() if m.is_likely}
    for column, named in TARGETS.items():
        refer = [m.columns[column].column for m in found.values() if column in m.columns]
        seen = Counter(c.references for c in refer if c.references and taken.get(c.references, named) == named)
        for one in refer:  # a letter may refer to the outbox by the number of its row
            other = found.get(taken.get(one.references, named))
            if other and other.relation.name != named and not _has_type(other, column, one.type):
                targets[f"{column}!"] = one.references
        table = found.get(named)
        likely = [t.qualified for t in tables if not t.is_view and _is_named_by(refer, t)]
        if seen:
            targets[column] = seen.most_common(1)[0][0]
        elif table is not None and table.confidence > Confidence.PERHAPS:  # its own name gave it
            targets[column] = table.table.qualified
        elif len(likely) == 1 and taken.get(likely[0], named) == named:
            targets[column] = likely[0]
    if "companies" in found and "name" in found["companies"].columns:
        targets["company_name="] = found["companies"].columns["name"].column.name
    for column in {c for m in found.values() for c in m.columns}:
        called = Counter(m.columns[column].column.name for m in found.values() if column in m.columns)
        name, times = called.most_common(1)[0]
        if times > 1 or any(column in m.relation.columns and column not in m.columns for m in found.values()):
            targets[f"{column}="] = name
    return targets


def _is_named_by(columns: Iterable[SchemaColumn], table: SchemaTable) -> bool:
    """Whether a column without a reference names a table, as `notice_id` does `notices`."""
    return any(not c.references and words(c.name) == (*words(table.name), "id") for c in columns)


def _has_type(one: TableMatch, column: str, kind: str) -> bool:
    return column in one.columns and one.columns[column].column.type == kind


def _weights(contract: Contract) -> dict[str, float]:
    """A column that few tables have is more telling than one that all have."""
    seen = Counter(c for r in contract.relations.values() for c in r.columns)
    return {c: 1 / sqrt(n) for c, n in seen.items()}


def _name_share(relation: Relation) -> float:
    return HUB_NAME_SHARE if len(relation.columns) < 4 else NAME_SHARE
