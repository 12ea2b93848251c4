"""Which rows of a table count if others are soft-deleted: a guess with its evidence. Pure."""

import re
from dataclasses import dataclass, replace

from gates.doctor.matching.columns import Confidence
from gates.doctor.matching.tables import TableMatch
from gates.doctor.reading.schema import SchemaColumn, SchemaTable, quoted
from gates.doctor.sqltypes import TIMES, bare
from gates.doctor.words import words

GONE = frozenset(words("deleted archived removed trashed erased deactivated"))
"""Names for the mark of a row that does not count."""
OF_STATE = ("companies", "feature_flags", "replay_budgets", "agent_controls", "dead_letter_queue")
"""Tables of present state. In the others a row is history, and always counts: leaving some out would hide losses."""


@dataclass(frozen=True, slots=True)
class CountedRows:
    """SQL over the row, of those that count; why, and how sure that is."""

    expression: str
    confidence: Confidence
    reason: str


def counted_rows(one: TableMatch) -> CountedRows | None:
    """The guess; None if no column marks a row as deleted. It is more than `perhaps` only for a table of present state
    with a unique key or a policy that leaves out the same rows.
    """
    taken = {m.column.name for m in one.columns.values()}
    columns = [c for c in one.table.columns.values() if c.name not in taken and set(words(c.name)) & GONE]
    told = {c.name: said for c in columns if (said := _kept(c))}
    if not told or one.table.is_view:
        return None
    evidence = {name: _evidence(one, name) for name in told}
    proven = {name: said for name, said in evidence.items() if said}
    names = [*proven] or [*told]
    is_sure = bool(proven) and one.relation.name in OF_STATE
    reason = next(iter(proven.values())) if proven else f"it has {', '.join(names)}"
    if proven and not is_sure:
        reason += ", but what was counts for good here"
    confidence = Confidence.LIKELY if is_sure else Confidence.PERHAPS
    return CountedRows(" and ".join(told[name] for name in names), confidence, reason)


def of_counted_rows(one: TableMatch) -> SchemaTable:
    """The table reduced to rows that count: a unique key of those alone is a key of all."""
    found = counted_rows(one)
    if found is None or found.confidence is Confidence.PERHAPS:
        return one.table
    plain = found.expression.lower().replace('"', "")
    keys = (replace(k, partial=False) if k.predicate.lower().strip("()") == plain else k for k in one.table.keys)
    return replace(one.table, keys=(*keys,))


def _kept(column: SchemaColumn) -> str:
    """SQL that is true for rows that are not deleted; empty if the column does not say."""
    if bare(column.type) in TIMES:
        return f"{quoted(column.name)} is null"
    if bare(column.type) == "boolean":
        return f"not {quoted(column.name)}" if column.not_null else f"{quoted(column.name)} is not true"
    return ""


def _evidence(one: TableMatch, column: str) -> str:
    """What else in the deployment leaves out the same rows."""
    mention = re.compile(rf"\b{re.escape(column)}\b")
    for key in one.table.keys:
        if mention.search(key.predicate):
            return f"the unique key {key.name} leaves the others out"
    for policy in one.table.policies:
        if mention.search(policy.rows):
            return f"the policy {policy.name} asks for {column}"
    return ""
