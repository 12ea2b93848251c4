"""Helpers: a rollback, and reads and writes of the flag."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from gates.act.flag import Order
from gates.act.rollback import roll_back
from gates.decision.rules import RolloutPlan
from gates.verdict import Action, Decision, Verdict

FLAG = "outbox.enabled"
ROLLBACK = Verdict(Decision.ROLLBACK, "harm")
Database = psycopg.Connection[dict[str, Any]]


def order(patience_s: int = 2, flag: str = FLAG, settle_s: int = 0) -> Order:
    plan = RolloutPlan(flag, settle_s=settle_s, drain_timeout_s=2, rollback_patience_s=patience_s)
    return Order(plan, "r1", "test", "why")


def rolled_back(url: str, asked: Order | None = None) -> Action:
    return roll_back(url, asked or order(), time.monotonic, print)


def switch(database: Database, *, on: bool, percent: int = 10) -> None:
    """Replace the flag's rows by one global row with this state."""
    database.execute("delete from public.feature_flags where key = %s", (FLAG,))
    insert = "insert into public.feature_flags (key, enabled, rollout_percentage) values (%s, %s, %s)"
    database.execute(insert, (FLAG, on, percent))


@contextmanager
def flagged(url: str, percent: int = 10) -> Iterator[Database]:
    """A second connection beside the gate's; the flag is on."""
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        switch(connection, on=True, percent=percent)
        yield connection


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """A connection beside the gate's; the flag is on at 10 %."""
    with flagged(migrated_url) as connection:
        yield connection


def flag(database: Database) -> tuple[bool, int]:
    """Whether the flag is on, and at how many percent."""
    (row,) = database.execute(
        "select enabled, rollout_percentage as at from public.feature_flags where key = %s", (FLAG,)
    ).fetchall()
    return row["enabled"], row["at"]


def on_change(database: Database, when: str, does: str, each: str = "row") -> None:
    """Create a trigger with this body, such as `before update on public.feature_flags`; constraints' are deferred."""
    kind = "constraint trigger" if "deferred" in when else "trigger"
    database.execute(
        f"create function public.planted() returns trigger language plpgsql as $$ begin {does} end $$;"
        f" create {kind} zz_planted {when} for each {each} execute function public.planted()".encode()
    )


FLAGS_AT_COMMIT = "after update on public.feature_flags deferrable initially deferred"


def is_on(database: Database) -> bool:
    rows = database.execute("select enabled from public.feature_flags where key = %s", (FLAG,)).fetchall()
    assert rows
    return any(r["enabled"] for r in rows)
