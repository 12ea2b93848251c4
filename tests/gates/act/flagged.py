"""A rollback as these tests order it, and what they ask of the flag."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from gates.act.flag import Order
from gates.act.rollback import roll_back
from gates.decision.rules import RolloutPlan
from gates.verdict import Action, Decision, Verdict

FLAG = "outbox.enabled"


ROLLBACK = Verdict(Decision.ROLLBACK, "harm")


Database = psycopg.Connection[dict[str, Any]]


def order(patience_s: int = 2, flag: str = FLAG) -> Order:
    plan = RolloutPlan(flag, settle_s=0, drain_timeout_s=2, rollback_patience_s=patience_s)
    return Order(plan, "r1", "test", "why")


def rolled_back(url: str, asked: Order | None = None) -> Action:
    return roll_back(url, asked or order(), time.monotonic, print)


def is_on(database: Database) -> bool:
    rows = database.execute("select enabled from public.feature_flags where key = %s", (FLAG,)).fetchall()
    assert rows
    return any(r["enabled"] for r in rows)
