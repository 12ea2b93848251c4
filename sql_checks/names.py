"""Finds names in a query that stand without a schema: what they mean depends on the session's search_path.

The gate's own sessions look such a name up in pg_catalog alone, so a table of the target is not found. In another
session (an exporter's, a psql) an object of somebody else's may answer to it.
"""

import re
from collections.abc import Iterator
from typing import Any

import postgast
from postgast.pg_query_pb2 import FuncCall, LockingClause, RangeVar

OF_POSTGRES = re.compile(r"pg_[a-z0-9_]+")
"""Relations of pg_catalog, which comes first in every session."""

OF_THE_TARGET = {"is_feature_enabled"}
"""Functions of the contract, which live in `public`."""


def unqualified(query: str) -> list[str]:
    """Relations, and functions of the contract, without a schema. Raise ValueError for what cannot be read as SQL."""
    try:
        tree = postgast.parse(query)
    except postgast.PgQueryError as error:
        raise ValueError(" ".join(str(error).split())) from None
    return sorted(set(_names(tree)))


def _names(tree: Any) -> Iterator[str]:
    """The names of tables in a query, without those that a WITH around them defines."""
    parts: list[tuple[Any, frozenset[str]]] = [(tree, frozenset())]
    while parts:
        node, local = parts.pop()
        if isinstance(node, LockingClause):  # FOR UPDATE OF names what FROM has named
            continue
        if isinstance(node, RangeVar):
            if not node.schemaname and node.relname not in local and not OF_POSTGRES.fullmatch(node.relname):
                yield node.relname
        elif isinstance(node, FuncCall) and len(node.funcname) == 1:
            yield from {node.funcname[0].string.sval} & OF_THE_TARGET
        fields = node.ListFields()
        for field, value in fields:
            if field.name == "with_clause":
                local |= {one.common_table_expr.ctename for one in value.ctes}
        for field, value in fields:
            if field.message_type is not None:
                parts += ((child, local) for child in ((value,) if hasattr(value, "ListFields") else value))
