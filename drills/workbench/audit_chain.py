"""Audit chains for drills: recomputed by the contract's formula, and their heads."""

from collections.abc import Iterator, Sequence
from typing import Any

from drills.workbench.database import query
from gates.deployment.dialect.exchange import real_code
from gates.deployment.sql.database import Connection, execute

GENESIS = "0" * 64
REFUSED = "dlq_replay_refused"
"""The action of a refusal's row."""


def broken_links(connection: Connection, scope: str) -> tuple[int, list[str]]:
    """The number of rows of a scope, and what is wrong with its chain: one sentence a broken link."""
    rows = execute(connection, query("audit_chain"), scope)
    wrong: list[str] = []
    previous = GENESIS
    for row in _by_links(rows):
        if row["prev_hash"] != previous:
            wrong.append(f"row {row['id']} ({row['action']}) does not follow the row before it")
        if row["hash"] != row["due"]:
            wrong.append(f"row {row['id']} ({row['action']}) has a hash that its content does not have")
        previous = str(row["hash"])
    return len(rows), wrong


def _by_links(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows from 64 zeros on, each followed by the one that names its hash; then those that no link leads to.

    With a cached sequence, concurrent writers may get ids in another order than their places in the chain.
    """
    left = {row["id"]: row for row in rows}
    followers = {row["prev_hash"]: row for row in reversed(rows)}
    row = followers.get(GENESIS)
    while row is not None and row["id"] in left:
        yield left.pop(row["id"])
        row = followers.get(row["hash"])
    yield from left.values()


def head_of(connection: Connection, scope: str) -> dict[str, Any]:
    """The head row of a scope, or an empty mapping."""
    rows = execute(connection, "select last_id, last_hash, row_count from public.audit_heads where scope = %s", scope)
    return rows[0] if rows else {}


def says(row: dict[str, Any], code: str) -> bool:
    """Whether a refusal's audit row carries a code; the contract does not name the member of `metadata` for it."""
    said = str(row.get("metadata"))
    return code in said or real_code(code) in said
