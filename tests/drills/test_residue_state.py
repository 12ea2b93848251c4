"""Remains of a tenant are found for any column type, without reading others' large tables."""

from drills.residue.state import rows_left
from gates.deployment.sql.connection import Answering
from gates.deployment.sql.database import connect

COMPANY = "7a3c1f0e-5b7d-4c1a-9d43-0c3f6e6f2b11"
TABLES = (
    "create domain tenant as uuid",
    "create table public.by_domain (company_id tenant)",
    "create table public.by_text (tenant_id text)",
    "create table public.by_number (tenant_id bigint)",
    "create table public.large (company_id uuid, filling text)",
    "alter table public.large alter filling set storage plain",
    f"insert into public.by_domain values ('{COMPANY}')",
    f"insert into public.by_text values ('{COMPANY}')",
    "insert into public.by_number values (7)",
    f"insert into public.large select '{COMPANY}', repeat('x', 7000) from generate_series(1, 6500)",
    f"insert into public.companies (id, name) values ('{COMPANY}', 'drill-left')",
    f"insert into public.edge_rate_limits (key, hits) values ('replay:{COMPANY}:192.0.2.1', '{{}}')",
)


def _left(connection: Answering) -> dict[str, int]:
    return rows_left(connection, [COMPANY])[1]


def test_rows_are_found_by_the_type_of_their_column(migrated_url: str) -> None:
    """Ids are compared as the column holds them, so its index finds them; a large table without one is not read."""
    with connect(migrated_url, autocommit=False) as connection:
        for statement in TABLES:
            connection.execute(statement.encode())
        small = {"public.by_domain", "public.by_text", "public.companies", "public.edge_rate_limits"}
        assert _left(connection) == dict.fromkeys(small, 1)
        connection.execute(b"create index on public.large (company_id)")
        assert _left(connection) == {**dict.fromkeys(small, 1), "public.large": 6500}
        connection.execute(b"set local role replay_gate")
        known = {"public.companies", "public.edge_rate_limits"}
        assert _left(connection) == dict.fromkeys(known, 1), "a table that the login may not read is not looked at"
        connection.rollback()
