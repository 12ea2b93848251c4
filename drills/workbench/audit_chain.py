"""What a drill reads of the audit trail: chains recomputed as the contract writes them, and their heads."""

from typing import Any

from drills.workbench.database import query
from gates.deployment.database import Connection, execute
from gates.deployment.dialect.exchange import real_code

GENESIS = "0" * 64
REFUSED = "dlq_replay_refused"
"""The action of a refusal's row."""


def broken_links(connection: Connection, scope: str) -> tuple[int, list[str]]:
    """The number of rows of a scope, and what is wrong with its chain: one sentence a broken link."""
    rows = execute(connection, query("audit_chain"), scope)
    wrong: list[str] = []
    previous = GENESIS
    for row in rows:
        if row["prev_hash"] != previous:
            wrong.append(f"row {row['id']} ({row['action']}) does not follow the row before it")
        if row["hash"] != row["due"]:
            wrong.append(f"row {row['id']} ({row['action']}) has a hash that its content does not have")
        previous = str(row["hash"])
    return len(rows), wrong


def head_of(connection: Connection, scope: str) -> dict[str, Any]:
    """The head row of a scope, or an empty mapping."""
    rows = execute(connection, "select last_id, last_hash, row_count from public.audit_heads where scope = %s", scope)
    return rows[0] if rows else {}


def says(row: dict[str, Any], code: str) -> bool:
    """Whether a refusal's audit row carries a code; the contract does not name the member of `metadata` for it."""
    said = str(row.get("metadata"))
    return code in said or real_code(code) in said
