"""Recognises queues of known libraries, and Supabase, by their tables and roles. Pure except for presets.yaml."""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gates.contract.contract import contract
from gates.doctor.reading.schema import Schema, SchemaTable
from gates.text.own_data import data_of

FILE = Path(__file__).with_name("presets.yaml")
SUPABASE = "supabase"
SERVICE_ROLE = "service_role"
"""The role of the secret key. It bypasses row-level security, and no deployment can change that."""
KEYS = ("SUPABASE_ANON_KEY", "SUPABASE_PUBLISHABLE_KEY")
"""Variables with the key that Supabase's gateway wants in every request: public, and no credential."""
KEY_HEADER, FUNCTIONS = "apikey", "/functions/v1"
SUPABASE_ROLES = frozenset({"anon", "authenticated", SERVICE_ROLE})


@dataclass(frozen=True, slots=True)
class FoundPreset:
    """A preset that fits. schema: where its tables are. is_elsewhere: that is not the library's default. prefix: of the
    table names, if not the library's default. is_judged: whether the gate has such a preset.
    """

    name: str
    title: str
    schema: str = ""
    is_elsewhere: bool = False
    prefix: str = ""
    reason: str = ""
    is_judged: bool = True
    tables: tuple[str, ...] = ()
    """Qualified names of the library's objects: no tables of the contract."""


def key_variable(environ: Mapping[str, str]) -> str:
    """The variable that holds the gateway's key; empty where none is set."""
    return next((name for name in KEYS if environ.get(name)), "")


@functools.cache
def _known() -> Mapping[str, Mapping[str, Any]]:
    data: dict[str, Mapping[str, Any]] = data_of(FILE)
    return data


def libraries_of(schema: Schema) -> list[FoundPreset]:
    """Every preset that fits, for each schema with its tables and each table prefix. Also the libraries that the gate
    knows without a preset (`is_judged` is false).
    """
    by_schema: dict[str, list[SchemaTable]] = {}
    for table in schema.tables:
        by_schema.setdefault(table.schema, []).append(table)
    found = []
    for name, given in _known().items():
        for place, tables in by_schema.items():
            usual = given.get("schema", "public")
            foreign = {*given.get("without", ())}
            for chosen in _prefixes(given["tables"], [t for t in tables if not foreign & {*t.columns}]):
                named = [pattern.replace("%", chosen) for pattern in given["tables"]]
                # a library with a schema of its own has all of it, under any schema name
                own = tuple(t.qualified for t in tables if usual != "public" or t.name in named)
                prefix = "" if chosen == given.get("prefix", "") else chosen
                reason = f"the tables {', '.join(named)} in schema {place}"
                judged = name in contract().presets
                found.append(FoundPreset(name, given["title"], place, place != usual, prefix, reason, judged, own))
    if {r.name for r in schema.roles} >= SUPABASE_ROLES and "auth" in schema.schemas:
        found.append(
            FoundPreset(SUPABASE, "Supabase", reason="the roles anon, authenticated, service_role; a schema auth")
        )
    return found


def _prefixes(wanted: Mapping[str, list[str]], tables: list[SchemaTable]) -> list[str]:
    """The values of `%` for which all tables are there; one empty text if the library has no prefix."""
    fits = [
        {match[1] for t in tables if set(columns) <= set(t.columns) and (match := _shape(pattern).fullmatch(t.name))}
        for pattern, columns in wanted.items()
    ]
    return sorted(set.intersection(*fits))


def _shape(pattern: str) -> re.Pattern[str]:
    before, _, after = pattern.partition("%")
    chosen = "(.*)" if "%" in pattern else "()"
    return re.compile(f"{re.escape(before)}{chosen}{re.escape(after)}")
