"""What flags and budgets promise in the database, where no drill shows it."""

import uuid

import psycopg
import pytest


def test_nothing_is_never_null(migrated_url: str) -> None:
    """A flag without a key, or asked without a company, is off where nothing is stored."""
    asked = [(None, str(uuid.uuid4())), ("outbox.enabled", None), (None, None)]
    with psycopg.connect(migrated_url) as conn:
        answers = [conn.execute("SELECT is_feature_enabled(%s, %s)", one).fetchone() for one in asked]
    assert answers == [(False,)] * 3


def test_a_new_period_keeps_to_a_lowered_limit(migrated_url: str) -> None:
    """What is used then counts anew, and may not begin above it."""
    with psycopg.connect(migrated_url, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO replay_budgets (company_id, daily_used, monthly_used) VALUES (gen_random_uuid(), 400, 400)"
        )
        conn.execute("UPDATE replay_budgets SET daily_limit = 100")
        conn.execute("UPDATE replay_budgets SET day = day + 1, daily_used = 100")
        with pytest.raises(psycopg.errors.CheckViolation):
            conn.execute("UPDATE replay_budgets SET day = day + 1, daily_used = 101")
