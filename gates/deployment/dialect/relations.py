"""How a relation of the contract is read and written in the deployment: as a sub-query, and column by column."""

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from gates.contract.limit_calls import MOST_CALLS, LimitCalls
from gates.contract.names import ID_KINDS, Names, RelationNames
from gates.deployment.dialect.current import AbsentColumn, AbsentTable
from gates.deployment.dialect.tokens import literal, quoted

SYSTEM = ("xmin", "ctid", "tableoid")
WHOLE = re.compile(r"0|-?[1-9][0-9]*")
"""A state that is stored as a number."""


def absent(what: str) -> AbsentColumn:
    return AbsentColumn(SAID.format(what))


SAID = "names: in gate.yaml says that {} is absent; this check needs it"


def real_name(names: RelationNames) -> str:
    """The qualified real name. Raise AbsentTable if there is none."""
    if not names.name:
        raise AbsentTable(SAID.format(names.contract.name))
    return f"{quoted(names.schema)}.{quoted(names.name)}"


def subquery(names: RelationNames, ids: Names, words: AbstractSet[str], *, whole: bool) -> str:
    """The relation with the contract's columns that are mentioned, or all of them; PostgreSQL flattens it. An absent
    column is NULL if the contract allows NULL; else a statement that mentions it raises AbsentColumn.
    """
    as_it_is = whole and names.contract.is_view and not (names.values or names.expressions)
    counted = f" where ({names.rows})" if names.rows else ""
    if names.calls:
        return grouped(names, names.calls, ids, words | {*names.contract.columns} if whole else words)
    columns = [c for c in names.contract.columns if c in words or (whole and c not in names.absent)]
    if names.is_empty:
        nulls = (f"null::{column_type(names, ids, c)} as {quoted(c)}" for c in columns)
        return f"(select {', '.join(nulls)} where false)"
    if as_it_is:  # whatever columns the view has
        columns = [c for c in columns if c in words and c in names.columns]
    parts = ["*"] * as_it_is + [f"{quoted(s)}" for s in SYSTEM if s in words and not names.contract.is_view]
    for column in columns:
        text = read(names, ids, column)
        parts.append(text if text == quoted(column) else f"{text} as {quoted(column)}")
    return f"(select {', '.join(parts)} from {real_name(names)}{counted})"


def grouped(names: RelationNames, calls: LimitCalls, ids: Names, words: AbstractSet[str]) -> str:
    """The rate limit as the contract has it, if a real row is one call or several: one row per key."""
    source = real_name(names)
    if calls.number:
        source += f" cross join lateral generate_series(1, least({quoted(calls.number)}, {MOST_CALLS}))"
    source += f" where ({names.rows})" if names.rows else ""
    time = f"({calls.time})::timestamptz"
    parts = {
        "key": read(names, ids, "key"),
        "hits": f"array_agg({time} order by {time})",
        "count": "count(*)::int",
        "window_start": f"min({time})",
        "xmin": "(array_agg(xmin order by age(xmin) desc))[1]",
    }
    told = ", ".join(f"{sql} as {quoted(name)}" for name, sql in parts.items() if name == "key" or name in words)
    return f"(select {told} from {source} group by 1)"


def read(names: RelationNames, ids: Names, column: str, qualifier: str = "") -> str:
    """The expression that gives the contract's value of a column."""
    if column in names.absent:
        if column not in names.contract.nullable:
            raise absent(f"{names.contract.name}.{column}")
        return f"null::{column_type(names, ids, column)}"
    if column in names.expressions:
        return f"({names.expressions[column]})"
    real = quoted(names.column(column))
    real = f"{qualifier}.{real}" if qualifier else real
    values = names.values.get(column)
    return translated(f"{real}::text", {r: c for c, r in values.items()}) if values else real


def translated(expression: str, values: Mapping[str, str]) -> str:
    whens = " ".join(f"when {literal(k)} then {literal(v)}" for k, v in values.items())
    return f"(case {expression} {whens} else {expression} end)"


def column_type(names: RelationNames, ids: Names, column: str) -> str:
    kind = kind_of(names.contract.name, column)
    return ids.id_type(kind) if kind else names.contract.columns[column]


def kind_of(relation: str, column: str) -> str:
    """The kind of id that a column holds; empty if it holds none."""
    return ID_KINDS.get(f"{relation}.{column}") or ID_KINDS.get(column, "")
