"""What flags, pauses and budgets promise in the database, where no drill shows it."""

import uuid
from typing import Any

import psycopg
import pytest

KEY = "outbox.enabled"


def one(conn: psycopg.Connection, query: str, *args: Any) -> Any:
    row = conn.execute(query.encode(), args).fetchone()
    return row[0] if row and len(row) == 1 else row


@pytest.fixture
def conn(migrated_url: str) -> Any:
    with psycopg.connect(migrated_url, autocommit=True) as conn:
        yield conn


def enabled(conn: psycopg.Connection, key: str | None, company: str | None) -> Any:
    return one(conn, "SELECT is_feature_enabled(%s, %s)", key, company)


def test_nothing_is_never_null(conn: psycopg.Connection) -> None:
    """A flag without a key, or asked without a company, is off where nothing is stored."""
    company = str(uuid.uuid4())
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
