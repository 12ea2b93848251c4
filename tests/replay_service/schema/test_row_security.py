"""Privileges of the roles, each judged as the role itself; the checks of SQL show what tenants and PUBLIC may."""

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.postgres_fixture import TEMPLATE, PgServer

FORCED = (
    "companies", "events", "feature_flags", "replay_budgets", "edge_rate_limits", "replay_runs",
    "audit_logs", "audit_heads", "event_outbox", "dead_letter_queue", "agent_tasks", "agent_controls",
)  # fmt: skip
VIEWS = ("feature_flags_status", "replay_budgets_status")
TENANTS = (str(uuid.UUID(int=1)), str(uuid.UUID(int=2)))
ROLES = ("replay_service", "replay_worker", "replay_gate")

PLANT = (
    "INSERT INTO companies (id, name) VALUES (%(c)s, 'acme')",
    "INSERT INTO events (company_id, event_type) VALUES (%(c)s, 'x')",
    "INSERT INTO feature_flags (key, company_id) VALUES ('k', %(c)s)",
    "INSERT INTO replay_budgets (company_id) VALUES (%(c)s)",
    "INSERT INTO edge_rate_limits (key) VALUES ('replay:' || %(c)s || ':10.0.0.1')",
    "INSERT INTO replay_runs (company_id) VALUES (%(c)s)",
    "INSERT INTO audit_logs (action, scope) VALUES ('x', %(c)s)",
    "INSERT INTO event_outbox (company_id, event_type) VALUES (%(c)s, 'x')",
    "INSERT INTO dead_letter_queue (company_id, event_type, payload, error_type) VALUES (%(c)s, 'x', '{}', 'e')",
    "INSERT INTO agent_tasks (company_id, status) VALUES (%(c)s, 'completed')",
    "INSERT INTO agent_controls (company_id) VALUES (%(c)s)",
)


@pytest.fixture(scope="module")
def planted_db(pg_server: PgServer) -> Iterator[str]:
    """Two tenants with one row in every table, and global rows beside them. No test of this module commits a change."""
    with pg_server.database(TEMPLATE) as name:
        with psycopg.connect(pg_server.url(name), autocommit=True) as conn:
            conn.execute("INSERT INTO feature_flags (key, enabled) VALUES ('k', true)")
            conn.execute("SELECT append_audit('x', 'me', 'all')")
            for company in TENANTS:
                for statement in PLANT:
                    conn.execute(statement.encode(), {"c": company})
        yield name


@pytest.fixture
def planted(pg_server: PgServer, planted_db: str) -> str:
    """The superuser's URL."""
    return pg_server.url(planted_db)


def rows_of(conn: psycopg.Connection, name: str) -> int:
    row = conn.execute(f"SELECT count(*) FROM {name}".encode()).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("role", ROLES)
def test_the_roles_hold_no_more_than_they_need(planted: str, role: str) -> None:
    """Neither superuser nor BYPASSRLS, owner of nothing, no way to another's rights, nothing that wipes a table."""
    with psycopg.connect(planted) as conn:
        attributes = "rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb"
        assert conn.execute(f"SELECT {attributes} FROM pg_roles WHERE rolname = %s".encode(), (role,)).fetchone() == (
            False,
        )
        owned = "SELECT relname FROM pg_class WHERE relowner = %s::regrole"
        assert conn.execute(owned, (role,)).fetchall() == []
        reach = "SELECT rolname::text FROM pg_roles WHERE pg_has_role(%s, oid, 'MEMBER') AND rolname <> %s ORDER BY 1"
        expected = [("anon",), ("authenticated",)] if role == "replay_gate" else []
        assert conn.execute(reach, (role, role)).fetchall() == expected
        wiping = (
            "SELECT relname, p FROM pg_class, unnest('{TRUNCATE,REFERENCES,TRIGGER}'::text[]) p"
            " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND has_table_privilege(%s, oid, p)"
        )
        assert conn.execute(wiping, (role,)).fetchall() == []
        assert conn.execute("SELECT has_schema_privilege(%s, 'public', 'CREATE')", (role,)).fetchone() == (False,)


def test_definers_are_pinned_and_belong_to_no_superuser(planted: str) -> None:
    """Every function has a pinned search_path; nothing in public belongs to a superuser."""
    with psycopg.connect(planted) as conn:
        loose = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proconfig IS NULL"
        assert conn.execute(loose).fetchall() == []
        owners = (
            "SELECT DISTINCT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
            " UNION SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        )
        assert conn.execute(owners).fetchall() == [("replay_owner",)]


@pytest.mark.parametrize("role", ROLES)
def test_the_roles_see_all_rows_and_answer_flags_alike(
    planted: str, pg_server: PgServer, planted_db: str, role: str
) -> None:
    """Both tenants' rows and the global ones; a flag means the same for a tenant."""
    with psycopg.connect(planted) as conn:
        everything = {name: rows_of(conn, name) for name in (*FORCED, *VIEWS)}
        conn.execute("SET LOCAL ROLE authenticated")
        answer = conn.execute("SELECT is_feature_enabled('k', gen_random_uuid())").fetchone()
    with psycopg.connect(pg_server.url(planted_db, role)) as conn:
        assert {name: rows_of(conn, name) for name in (*FORCED, *VIEWS)} == everything
        assert conn.execute("SELECT is_feature_enabled('k', gen_random_uuid())").fetchone() == answer == (True,)


@pytest.fixture
def gate(pg_server: PgServer, planted_db: str) -> Any:
    """The gate's login; whatever it does is rolled back."""
    with psycopg.connect(pg_server.url(planted_db, "replay_gate")) as conn:
        yield conn
        conn.rollback()


DRILL_ONLY = ("events", "replay_budgets", "replay_runs", "event_outbox", "dead_letter_queue", "agent_tasks")


@pytest.mark.parametrize("name", DRILL_ONLY)
def test_the_gate_writes_no_other_tenant(gate: psycopg.Connection, name: str) -> None:
    """Rows of a real tenant are neither inserted, changed, deleted nor given away to it."""
    insert = next(s for s in PLANT if f"INTO {name} " in s)
    with pytest.raises(psycopg.errors.InsufficientPrivilege), gate.transaction():
        gate.execute(insert.replace("%(c)s", "gen_random_uuid()").encode())
    assert gate.execute(f"UPDATE {name} SET company_id = company_id".encode()).rowcount == 0
    assert gate.execute(f"DELETE FROM {name}".encode()).rowcount == 0


def test_the_gate_renames_no_tenant_into_a_drill(gate: psycopg.Connection) -> None:
    """A real company is not the gate's to touch, and a drill company cannot become a real one."""
    assert gate.execute("UPDATE companies SET name = 'drill-x'").rowcount == 0
    assert gate.execute("DELETE FROM companies").rowcount == 0
    gate.execute("INSERT INTO companies (name) VALUES ('drill-1')")
    for statement in ("INSERT INTO companies (name) VALUES ('acme')", "UPDATE companies SET name = 'acme'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), gate.transaction():
            gate.execute(statement.encode())


@pytest.mark.parametrize("role", ["authenticated", "anon"])
def test_the_gate_steps_into_a_tenant_s_role(gate: psycopg.Connection, role: str) -> None:
    """SET ROLE works, and without it the gate does not carry the tenant's policies."""
    with gate.transaction():
        gate.execute(f"SET LOCAL ROLE {role}".encode())
    query = "SELECT pg_has_role('replay_gate', %s, 'USAGE')"
    assert gate.execute(query, (role,)).fetchone() == (False,)


@pytest.mark.parametrize("role", ["replay_owner", "replay_service", "replay_worker", "postgres"])
def test_the_gate_escalates_to_nobody(gate: psycopg.Connection, role: str) -> None:
    """No way to the roles that write."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege), gate.transaction():
        gate.execute(f"SET ROLE {role}".encode())
