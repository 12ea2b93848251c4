"""The doctor's guesses on foreign schemas, compared with a person's answers."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from gates.contract.contract import contract
from gates.deployment.sql.database import connect
from gates.doctor.comparison.compare import Comparison, compare
from gates.doctor.matching.columns import Confidence
from gates.doctor.matching.presets import libraries_of
from gates.doctor.reading.catalogue import read_schema
from gates.doctor.reading.schema import SchemaColumn, SchemaTable
from tests.gates.doctor.databases import TRUTH, database, schema_named, schema_of
from tests.postgres_fixture import TEMPLATE, PgServer
from tests.renamed import COLUMNS, TABLES, rename

LEAST_COLUMNS = {"terse": 0.5}
"""Share of the columns that must be found; of names of one or two letters not more can be asked."""


def columns_of(name: str, found: Comparison) -> Iterator[tuple[str, str | None, str | None, Confidence | None]]:
    """Every existing column: its real name, a person's answer, the guess, and how sure it is."""
    for table, said in TRUTH[name].items():
        match = found.tables.get(table)
        right = match if match and match.table.qualified == said["is"] else None
        for column in contract().relations[table].columns:
            renamed = said.get("columns", {})
            real = renamed.get(column)
            if real is None and right and column in right.table.columns and column not in renamed.values():
                real = column
            guess = right.columns.get(column) if right else None
            yield f"{table}.{column}", real, guess.column.name if guess else None, guess.confidence if guess else None


@pytest.mark.parametrize("name", TRUTH)
def test_tables_and_columns_are_found_under_foreign_names(pg_server: PgServer, name: str) -> None:
    """No table is taken for another, nearly every column is found, and what is called sure is right."""
    found = compare(schema_named(pg_server, name), contract())
    right_tables = {t: said["is"] for t, said in TRUTH[name].items()}
    assert {t: m.table.qualified for t, m in found.tables.items() if m.table.qualified != right_tables.get(t)} == {}
    columns = [*columns_of(name, found)]
    assert [c for c in columns if c[2] and c[2] != c[1] and c[3] is Confidence.SURE] == []
    there = [c for c in columns if c[1]]
    guessed = [c for c in columns if c[2]]
    right = [c for c in there if c[1] == c[2]]
    assert len(right) >= LEAST_COLUMNS.get(name, 0.9) * len(there), [c for c in there if c[1] != c[2]]
    assert len(right) >= 0.95 * len(guessed), [c for c in guessed if c[1] != c[2]]


@pytest.mark.parametrize("name", ["shop", "blog", "pgboss"])
def test_nothing_is_claimed_where_nothing_is(pg_server: PgServer, name: str) -> None:
    """An application without a queue, or with a known queue library, has no table of the contract."""
    assert compare(schema_named(pg_server, name), contract()).tables == {}


def test_a_function_is_a_flags_only_beside_flags(pg_server: PgServer) -> None:
    """A boolean function of a word and an id is not taken where there are no flags: many applications have one."""
    with database(pg_server, "create function may_see(text, int) returns boolean language sql as 'select true'") as url:
        assert compare(schema_of(url), contract()).functions == {}


def test_a_known_queue_is_recognised(pg_server: PgServer) -> None:
    """pg-boss is seen by its tables, in the schema where they are."""
    (found,) = libraries_of(schema_named(pg_server, "pgboss"))
    assert (found.name, found.schema, found.is_judged) == ("pg-boss", "pgboss", True)
    assert libraries_of(schema_named(pg_server, "shop")) == []


def test_two_candidates_are_said(pg_server: PgServer) -> None:
    """If two tables fit equally, the guess is `perhaps` and names the other."""
    letters = (
        "(id uuid primary key, tenant_id uuid, type text, payload jsonb, error_type text, error_message text,"
        " attempts int, max_attempts int, retry_at timestamptz, status text, created_at timestamptz);"
    )
    sql = f"create table failed_events {letters} create table failed_messages {letters}"
    with database(pg_server, sql) as url:
        found = compare(schema_of(url), contract()).tables["dead_letter_queue"]
    assert found.confidence is Confidence.PERHAPS
    assert {found.table.qualified, *found.alternatives} == {"public.failed_events", "public.failed_messages"}


def test_the_reference_under_other_names_is_found(pg_server: PgServer) -> None:
    """All tables and nearly all columns are found, and nothing wrong."""
    with pg_server.database(TEMPLATE) as name, connect(pg_server.url(name), autocommit=False) as connection:
        rename(connection)
        found = compare(read_schema(connection, contract()), contract())
        connection.rollback()
    assert {n: m.table.qualified for n, m in found.tables.items()} == TABLES
    guessed = {(n, c, m.column.name) for n, t in found.tables.items() for c, m in t.columns.items()}
    right = {(n, c, COLUMNS.get(c, c)) for n in TABLES for c in contract().relations[n].columns}
    assert guessed <= right
    assert len(guessed) >= 0.97 * len(right)
    assert found.functions["is_feature_enabled"].swapped
    assert found.roles["authenticated"].role.name == "app_user"


def test_a_huge_schema_hides_nothing(pg_server: PgServer) -> None:
    """The right tables are found among five thousand similar ones."""
    small = schema_named(pg_server, "django")
    kinds = ("uuid", "text", "timestamp with time zone", "integer", "jsonb", "boolean")
    common = {"id": "bigint", "account_id": "uuid", "status": "text", "date_created": "timestamp with time zone"}
    others = tuple(
        SchemaTable(
            "app",
            f"thing_{i}_event",
            "r",
            {
                n: SchemaColumn(n, t)
                for n, t in (common | {f"part_{i}_{j}": kinds[(i + j) % len(kinds)] for j in range(12)}).items()
            },
        )
        for i in range(5000)
    )
    found = compare(replace(small, tables=(*others, *small.tables)), contract())
    assert {n: m.table.qualified for n, m in found.tables.items()} == {t: s["is"] for t, s in TRUTH["django"].items()}


def test_a_table_is_used_once(pg_server: PgServer) -> None:
    """One real table stands for one of the contract's, however well it would fit another."""
    columns = "id uuid primary key, company_id uuid, event_type text, payload jsonb, created_at timestamptz"
    sql = f"create table outbox_events ({columns})"
    with database(pg_server, sql) as url:
        used = [m.table.qualified for m in compare(schema_of(url), contract()).tables.values()]
    assert len(used) == len(set(used))
