"""Finds names in a query that stand without a schema: what they mean depends on the session's search_path.

The gate's own sessions look such a name up in pg_catalog alone, so a table of the target is not found. In another
session (an exporter's, a psql) an object of somebody else's may answer to it.
"""

from __future__ import annotations

import re

from sqlglot import exp, parse
from sqlglot.errors import SqlglotError

OF_POSTGRES = re.compile(r"pg_[a-z0-9_]+")
"""Relations of pg_catalog, which comes first in every session."""

OF_THE_TARGET = {"is_feature_enabled"}
"""Functions of the contract, which live in `public`."""


def unqualified(query: str) -> list[str]:
    """Relations, and functions of the contract, without a schema. Raise ValueError for what cannot be read as SQL."""
    try:
        trees = [tree for tree in parse(query, read="postgres") if tree is not None]
    except SqlglotError as error:
        raise ValueError(" ".join(str(error).split())) from None
    tables = [t for tree in trees for t in tree.find_all(exp.Table) if isinstance(t.this, exp.Identifier) and not t.db]
    calls = [f for tree in trees for f in tree.find_all(exp.Anonymous) if not isinstance(f.parent, exp.Dot)]
    return sorted(
        {t.name for t in tables if not OF_POSTGRES.fullmatch(t.name) and not _is_local(t)}
        | {f.name for f in calls if f.name.lower() in OF_THE_TARGET}
    )


def _is_local(table: exp.Table) -> bool:
    """Whether a WITH around the table gives its name."""
    node: exp.Expr | None = table
    while node is not None:
        if any(cte.alias == table.name for cte in getattr(node, "ctes", ())):
            return True
        node = node.parent
    return False
