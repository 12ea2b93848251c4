"""Remembers how far the audit chain was verified, in a file of the gate: a gate owns no table of its target."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from gates.target.database import Connection, execute

CHAIN = "sql/spot/audit-chain"
FORMAT = re.compile(r'\{"audit_id": \d+, "audit_hash": "[0-9a-f]{64}"\}')


class CheckpointError(ValueError):
    """A checkpoint file cannot be used: what was observed, what is allowed, where, what to do."""


def read(path: Path) -> str:
    """The checkpoint as the queries take it; empty where there is none yet. Raise CheckpointError."""
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8").strip()
    if not FORMAT.fullmatch(text):
        raise CheckpointError(f"{path}: {text[:60]!r} is no checkpoint; allowed: what a run wrote. Delete the file")
    return text


def position(connection: Connection) -> str:
    """The end of the trail in this snapshot; empty where there are no rows. Raise psycopg.Error."""
    rows = execute(connection, "select id, hash from public.audit_logs order by id desc limit 1")
    return json.dumps({"audit_id": int(str(rows[0]["id"])), "audit_hash": str(rows[0]["hash"])}) if rows else ""


def write(path: Path, text: str) -> None:
    """Replace the checkpoint at once or not at all. Call only after the chain verified up to it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text + "\n", encoding="utf-8")
    fresh.replace(path)
