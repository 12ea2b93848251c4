"""Recognises queues of known libraries, and Supabase, by their tables and roles. Pure but for presets.yaml."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gates.doctor.schema import Schema, SchemaTable
from gates.text.own_data import data_of

FILE = Path(__file__).with_name("presets.yaml")
SUPABASE = "supabase"
SERVICE_ROLE = "service_role"
"""Of whoever has the secret key. It passes over row-level security, and no deployment can change that."""
KEYS = ("SUPABASE_ANON_KEY", "SUPABASE_PUBLISHABLE_KEY")
"""Variables that hold the key which Supabase's gateway wants of every request: public, and no credential."""
KEY_HEADER, FUNCTIONS = "apikey", "/functions/v1"
SUPABASE_ROLES = frozenset({"anon", "authenticated", SERVICE_ROLE})


@dataclass(frozen=True, slots=True)
class FoundPreset:
    """A preset that fits. schema: where its tables are; is_elsewhere: that is not where the library puts them."""

    name: str
    title: str
    schema: str = ""
    is_elsewhere: bool = False
    reason: str = ""
    tables: tuple[str, ...] = ()
    """Qualified names of what is the library's: no table of the contract."""


def key_variable(environ: Mapping[str, str]) -> str:
    """The variable that holds the gateway's key; empty where none is set."""
    return next((name for name in KEYS if environ.get(name)), "")


@functools.cache
def _known() -> Mapping[str, Mapping[str, Any]]:
    data: dict[str, Mapping[str, Any]] = data_of(FILE)
    return data


def presets_of(schema: Schema) -> list[FoundPreset]:
    """Every preset that fits, in each schema that holds its tables."""
    by_schema: dict[str, list[SchemaTable]] = {}
    for table in schema.tables:
        by_schema.setdefault(table.schema, []).append(table)
    found = []
    for name, given in _known().items():
        for place, tables in by_schema.items():
            named = [_like(pattern, columns, tables) for pattern, columns in given["tables"].items()]
            if all(named):
                usual = given.get("schema", "public")
                own = [t.qualified for t in tables if place != "public" or t.name in named]
                reason = f"the tables {', '.join(n for n in named)} in schema {place}"
                found.append(FoundPreset(name, given["title"], place, place != usual, reason, (*own,)))
    if {r.name for r in schema.roles} >= SUPABASE_ROLES and "auth" in schema.schemas:
        found.append(
            FoundPreset(SUPABASE, "Supabase", reason="the roles anon, authenticated, service_role; a schema auth")
        )
    return found


def _like(pattern: str, columns: list[str], tables: list[SchemaTable]) -> str:
    """The name of a table that fits; empty where there is none."""
    glob = pattern.replace("%", "*")
    return next((t.name for t in tables if fnmatchcase(t.name, glob) and set(columns) <= set(t.columns)), "")
