"""A login that evaluates alerts: blind through row security, or just looking at an emptied table."""

import pytest

from sql_checks.rules.run import measure
from tests.sql_checks.conftest import RULES, PlantedSession

BEGUN = (
    "create role stranger",
    "grant usage on schema public, auth to stranger",
    "grant select on all tables in schema public to stranger",
    "analyze public.agent_tasks",
)


@pytest.mark.parametrize(("role", "blind"), [("replay_gate", False), ("stranger", True)])
def test_an_emptied_table_is_no_blindness(role: str, blind: bool, planted: PlantedSession) -> None:
    """Outdated statistics prove no blindness if a policy shows the login every row."""
    for statement in (*BEGUN, "delete from public.agent_tasks", f"set local role {role}"):
        planted.planted.execute(statement.encode())
    (sample,) = measure(RULES["alert-role-sees-rows"], planted.planted).samples
    assert (sample.value != 0) is blind, sample.witness


PARTED = (
    "analyze public.agent_tasks",
    "alter table public.agent_tasks alter id drop identity",
    "alter table public.agent_tasks rename to agent_tasks_0",
    "create table public.agent_tasks (like public.agent_tasks_0 including defaults) partition by list (company_id)",
    "alter table public.agent_tasks attach partition public.agent_tasks_0 default",
    "alter table public.agent_tasks enable row level security",
)


def test_a_partitioned_table_has_the_rows_of_its_partitions(planted: PlantedSession) -> None:
    """Hidden rows are noticed in the partitions, since the parent has no statistics."""
    for statement in (*PARTED, *BEGUN[:-1], "set local role stranger"):
        planted.planted.execute(statement.encode())
    (sample,) = measure(RULES["alert-role-sees-rows"], planted.planted).samples
    assert "agent_tasks" in str(sample.witness), sample
    assert "agent_tasks" in planted.blindness


@pytest.mark.parametrize(
    ("shown", "blind"),
    [
        ("status <> 'pending'", True),
        ("public.is_drill_company(company_id)", True),
        ("company_id is not null", False),
        ("current_user = 'replay_gate' or company_id = (auth.jwt() ->> 'company_id')::uuid", False),
    ],
)
def test_a_policy_of_the_row_alone_hides_rows(shown: str, blind: bool, planted: PlantedSession) -> None:
    """Few hidden rows, or no statistics, make the login blind; who is asked for may see all."""
    for statement in (
        "drop policy replay_gate_sees_all on public.dead_letter_queue",
        f"create policy shown on public.dead_letter_queue for select to replay_gate using ({shown})",
        "set local role replay_gate",
    ):
        planted.planted.execute(statement.encode())
    assert ("dead_letter_queue" in planted.blindness) is blind
