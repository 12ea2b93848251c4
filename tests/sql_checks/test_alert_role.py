"""The login that evaluates alerts: blind behind row security, or looking at a table that was emptied."""

from __future__ import annotations

import pytest

from sql_checks.rulerun import measure
from tests.sql_checks.conftest import RULES, PlantedSession

BEGUN = (
    "create role stranger",
    "grant usage on schema public, auth to stranger",
    "grant select on all tables in schema public to stranger",
    "analyze public.agent_tasks",
)


@pytest.mark.parametrize(("role", "blind"), [("replay_gate", False), ("stranger", True)])
def test_an_emptied_table_is_no_blindness(role: str, blind: bool, planted: PlantedSession) -> None:
    """Statistics that still count deleted rows accuse nobody whom a policy shows every row, and others they do."""
    assert planted.planted is not None
    for statement in (*BEGUN, "delete from public.agent_tasks", f"set local role {role}"):
        planted.planted.execute(statement.encode())
    (sample,) = measure(RULES["alert-role-sees-rows"], planted.planted).samples
    assert (sample.value != 0) is blind, sample.witness
