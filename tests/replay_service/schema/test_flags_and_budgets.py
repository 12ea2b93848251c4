"""Flags, pauses, budgets and rate-limit rows: what their triggers, functions and views promise."""

import hashlib
import uuid
from typing import Any

import psycopg
import pytest

KEY = "outbox.enabled"


def one(conn: psycopg.Connection, query: str, *args: Any) -> Any:
    row = conn.execute(query.encode(), args).fetchone()
    return row[0] if row and len(row) == 1 else row


def bucket(key: str, company: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{key}:{company}".lower().encode()).digest()[:4], "big") % 100


@pytest.fixture
def conn(migrated_url: str) -> Any:
    with psycopg.connect(migrated_url, autocommit=True) as conn:
        yield conn


def enabled(conn: psycopg.Connection, key: str | None, company: str | None) -> Any:
    return one(conn, "SELECT is_feature_enabled(%s, %s)", key, company)


def test_the_bucket_is_the_contract_s(conn: psycopg.Connection) -> None:
    """1000 companies: on exactly where sha256 puts them below the percentage, in any letter case."""
    conn.execute("INSERT INTO feature_flags (key, enabled, rollout_percentage) VALUES (%s, true, 37)", (KEY,))
    companies = [str(uuid.uuid4()) for _ in range(1000)]
    query = (
        "SELECT array_agg(is_feature_enabled(%s, c::uuid) ORDER BY n) FROM unnest(%s::text[]) WITH ORDINALITY u (c, n)"
    )
    assert one(conn, query, KEY, [c.upper() for c in companies]) == [bucket(KEY, c) < 37 for c in companies]


def test_a_tenant_row_wins_and_a_missing_row_is_off(conn: psycopg.Connection) -> None:
    """Tenant over global, both ways; nothing stored is off, but for the budget control; never null."""
    company = str(uuid.uuid4())
    assert enabled(conn, KEY, company) is False
    assert enabled(conn, "dlq.replay.budget_control", company) is True
    conn.execute("INSERT INTO feature_flags (key, enabled) VALUES (%s, true)", (KEY,))
    assert enabled(conn, KEY, company) is True
    conn.execute("INSERT INTO feature_flags (key, company_id, enabled) VALUES (%s, %s, false)", (KEY, company))
    assert enabled(conn, KEY, company) is False
    conn.execute("UPDATE feature_flags SET enabled = company_id IS NOT NULL")
    assert enabled(conn, KEY, company) is True
    assert enabled(conn, KEY, str(uuid.uuid4())) is False
    assert [enabled(conn, None, company), enabled(conn, KEY, None), enabled(conn, None, None)] == [False] * 3


@pytest.mark.parametrize(("percentage", "on"), [(0, False), (100, True)])
def test_the_ends_of_the_range(conn: psycopg.Connection, percentage: int, on: bool) -> None:
    """0 % is nobody, 100 % is everybody."""
    conn.execute(
        "INSERT INTO feature_flags (key, enabled, rollout_percentage) VALUES (%s, true, %s)", (KEY, percentage)
    )
    assert one(
        conn, "SELECT bool_and(is_feature_enabled(%s, gen_random_uuid()) = %s) FROM generate_series(1, 200)", KEY, on
    )


def test_one_row_per_key_and_tenant_nulls_included(conn: psycopg.Connection) -> None:
    """A second global row is refused, and ON CONFLICT finds the first."""
    conn.execute("INSERT INTO feature_flags (key, enabled) VALUES (%s, true)", (KEY,))
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("INSERT INTO feature_flags (key, enabled) VALUES (%s, true)", (KEY,))
    conn.execute(
        "INSERT INTO feature_flags (key, enabled) VALUES (%s, false)"
        " ON CONFLICT (key, company_id) DO UPDATE SET enabled = false",
        (KEY,),
    )
    assert one(conn, "SELECT enabled FROM feature_flags") is False


@pytest.mark.parametrize("percentage", [-1, 101])
def test_a_percentage_beyond_the_range_is_refused(conn: psycopg.Connection, percentage: int) -> None:
    """0..100 only."""
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("INSERT INTO feature_flags (key, rollout_percentage) VALUES ('x', %s)", (percentage,))


def test_the_version_grows_with_every_change(conn: psycopg.Connection) -> None:
    """Whatever the statement: also one that sets the version back, and a delete with a new insert."""
    upsert = (
        f"INSERT INTO feature_flags (key) VALUES ('{KEY}') ON CONFLICT (key, company_id) DO UPDATE SET enabled = true"
    )
    changes = (
        upsert,
        "UPDATE feature_flags SET enabled = false",
        "UPDATE feature_flags SET version = 0",
        upsert,
        "DELETE FROM feature_flags",
        upsert,
    )
    versions = [one(conn, f"{change} RETURNING version") for change in changes]
    grown = [v for n, v in enumerate(versions) if n != 4]
    assert grown == sorted(set(grown))


def test_a_pause_of_either_row_counts(conn: psycopg.Connection) -> None:
    """The row of everybody is there from the start; a tenant is paused if its own row or that one says so."""
    company = str(uuid.uuid4())
    assert one(conn, "SELECT agents_paused FROM agent_controls WHERE company_id IS NULL") is False
    assert one(conn, "SELECT is_company_paused(%s)", company) is False
    conn.execute("UPDATE agent_controls SET agents_paused = true")
    assert one(conn, "SELECT is_company_paused(%s)", company) is True
    conn.execute("UPDATE agent_controls SET agents_paused = false")
    conn.execute("INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, true)", (company,))
    assert one(conn, "SELECT is_company_paused(%s), is_company_paused(gen_random_uuid())", company) == (True, False)


@pytest.mark.parametrize("change", ["daily_used = 501", "monthly_used = 10001", "daily_used = 501, monthly_used = 501"])
def test_used_cannot_be_raised_above_its_limit(conn: psycopg.Connection, change: str) -> None:
    """By no UPDATE, and by no INSERT."""
    conn.execute(
        "INSERT INTO replay_budgets (company_id, daily_used, monthly_used) VALUES (gen_random_uuid(), 500, 500)"
    )
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute(f"UPDATE replay_budgets SET {change}".encode())
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("INSERT INTO replay_budgets (company_id, daily_used) VALUES (gen_random_uuid(), 501)")


def test_a_limit_may_be_lowered_below_what_is_used(conn: psycopg.Connection) -> None:
    """That leaves nothing: what is used may then be lowered, not raised; a new period keeps to the limit."""
    conn.execute(
        "INSERT INTO replay_budgets (company_id, daily_used, monthly_used) VALUES (gen_random_uuid(), 400, 400)"
    )
    conn.execute("UPDATE replay_budgets SET daily_limit = 100")
    assert one(conn, "SELECT daily_remaining, monthly_remaining, status FROM replay_budgets_status") == (
        0,
        9600,
        "exhausted",
    )
    conn.execute("UPDATE replay_budgets SET daily_used = 399")
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("UPDATE replay_budgets SET daily_used = 400")
    conn.execute("UPDATE replay_budgets SET day = day + 1, daily_used = 100")
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("UPDATE replay_budgets SET day = day + 1, daily_used = 101")


def test_a_past_period_counts_as_nothing_used(conn: psycopg.Connection) -> None:
    """The view shows yesterday's row as unused today."""
    conn.execute(
        "INSERT INTO replay_budgets (company_id, daily_used, monthly_used, day, month)"
        " VALUES (gen_random_uuid(), 500, 10000, '2024-01-31', '2024-01-01')"
    )
    assert one(conn, "SELECT daily_remaining, monthly_remaining, status FROM replay_budgets_status") == (
        500,
        10000,
        "active",
    )


def test_the_window_of_a_rate_limit_is_generated(conn: psycopg.Connection) -> None:
    """Count and window_start follow from hits; an empty list has no window."""
    conn.execute(
        "INSERT INTO edge_rate_limits (key, hits) VALUES ('replay:c:ip', ARRAY[now() - interval '1 s', now()])"
    )
    assert one(conn, "SELECT count, window_start = hits[1] FROM edge_rate_limits") == (2, True)
    conn.execute("UPDATE edge_rate_limits SET hits = '{}'")
    assert one(conn, "SELECT count, window_start FROM edge_rate_limits") == (0, None)
