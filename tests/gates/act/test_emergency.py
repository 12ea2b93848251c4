"""An emergency tries each of its parts, whatever became of the others."""

import time

import pytest

from gates.act.emergency import emergency
from gates.verdict import Action
from tests.gates.act.flagged import Database, is_on, order


def in_emergency(url: str) -> tuple[Action, dict[str, str]]:
    action = emergency(url, order(), time.monotonic, print)
    return action, {s.name: s.result for s in action.steps}


def test_a_missing_row_of_everybody_s_pause_is_made(either_url: str, database: Database) -> None:
    """Without the row an update would pause nobody, so it is inserted."""
    database.execute("delete from public.agent_controls")
    action, results = in_emergency(either_url)
    assert (action.result, results["pause all agents"]) == ("done", "done")
    assert database.execute("select from public.agent_controls where company_id is null and agents_paused").fetchall()


def test_a_pause_that_cannot_be_made_is_not_done(gate_url: str, database: Database) -> None:
    """If the login may not insert the row, the pause fails, and the flag is off all the same."""
    database.execute("delete from public.agent_controls")
    database.execute("revoke insert on public.agent_controls from replay_gate")
    action, results = in_emergency(gate_url)
    assert results == {"switch off outbox.enabled": "done", "pause all agents": "unknown", **CLEARED}
    assert (action.result, action.headline) == ("failed", "THE AGENTS MAY NOT BE PAUSED")
    assert action.by_hand == "UPDATE public.agent_controls SET agents_paused = true;"
    assert not is_on(database)


CLEARED = {"clear the replay limits": "done"}


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ("drop table public.edge_rate_limits cascade", "clear the replay limits"),
        ("drop table public.agent_controls cascade", "pause all agents"),
        ("drop table public.feature_flags cascade", "switch off outbox.enabled"),
    ],
)
def test_each_part_of_an_emergency_is_tried_whatever_became_of_the_others(
    migrated_url: str, database: Database, change: str, failed: str
) -> None:
    """The other two parts are done, and the SQL to run by hand is that of the failed part alone."""
    database.execute(change.encode())
    action, results = in_emergency(migrated_url)
    assert [name for name, result in results.items() if result != "done"] == [failed]
    assert action.result == "failed"
    assert bool(action.headline) is (failed != "clear the replay limits")
    assert action.by_hand.count(";") == 1


def test_a_pause_needs_agents_paused_alone_and_limits_need_key_alone(migrated_url: str, database: Database) -> None:
    """Tables with no other columns are enough."""
    database.execute("drop table public.agent_controls cascade; drop table public.edge_rate_limits cascade")
    database.execute("create table public.agent_controls (agents_paused boolean)")
    database.execute("insert into public.agent_controls values (null)")
    database.execute("create table public.edge_rate_limits (key text)")
    database.execute("insert into public.edge_rate_limits values ('replay:a:1'), ('other')")
    action, results = in_emergency(migrated_url)
    assert (action.result, set(results.values())) == ("done", {"done"})
    assert database.execute("select agents_paused from public.agent_controls").fetchall() == [{"agents_paused": True}]
    assert database.execute("select key from public.edge_rate_limits").fetchall() == [{"key": "other"}]


def test_limits_that_a_policy_keeps_are_not_cleared(gate_url: str, database: Database) -> None:
    """A DELETE that row-level security filters reports no error, and is not called done."""
    database.execute("insert into public.edge_rate_limits (key, hits) values ('replay:x:1', array[now()])")
    database.execute("drop policy replay_gate_deletes on public.edge_rate_limits")
    action, results = in_emergency(gate_url)
    assert (action.result, results["clear the replay limits"]) == ("failed", "failed")
