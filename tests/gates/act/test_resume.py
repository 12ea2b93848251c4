"""The way back from an emergency, and a flag that a person switches on."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from gates.act.emergency import emergency, resume
from gates.act.flag import FlagState, Order
from gates.act.rollout import promote
from gates.decision.rules import RolloutPlan
from gates.verdict import Action
from tests.gates.act.flagged import FLAG, Database, flag, flagged
from tests.gates.gate_process import gate

ORDER = Order(
    RolloutPlan(FLAG, settle_s=0, drain_timeout_s=1, rollback_patience_s=2), "r1", "gate:ann", "the database is on fire"
)


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """The flag was on at 50 % and one tenant paused, then came an emergency."""
    with flagged(migrated_url, 50) as connection:
        connection.execute("insert into public.companies (id, name) select gen_random_uuid(), 'paused before'")
        connection.execute(
            "insert into public.agent_controls (company_id, agents_paused, pause_reason)"
            " select id, true, 'unpaid' from public.companies where name = 'paused before'"
        )
        assert emergency(migrated_url, ORDER, time.monotonic, print).result == "done"
        yield connection


def back(url: str, **changes: Any) -> Action:
    return resume(url, replace(ORDER, reason="the fire is out", **changes), time.monotonic, print)


def paused(database: Database) -> list[str]:
    rows = database.execute("select pause_reason from public.agent_controls where agents_paused").fetchall()
    return [row["pause_reason"] for row in rows]


def test_the_way_back_ends_the_pause_and_switches_on_the_first_step(migrated_url: str, database: Database) -> None:
    """Agents work again, the flag is on at 10 % instead of 50 %, and both are audited."""
    action = back(migrated_url)
    assert (action.kind, action.result, action.to_percent, action.holds) == ("resume", "done", 10, False)
    assert flag(database) == (True, 10)
    assert paused(database) == ["unpaid"]  # another's pause stays
    told = database.execute("select action, actor, metadata from public.audit_logs order by id desc limit 2").fetchall()
    assert [row["action"] for row in told] == ["flag_promoted", "agents_resumed"]
    assert {row["actor"] for row in told} == {"gate:ann"}
    assert told[0]["metadata"]["to"] == 10


def test_a_flag_that_was_resumed_is_explained_and_bakes(migrated_url: str, database: Database) -> None:
    """The next gate finds the audit row, and takes no step before the bake time is over."""
    back(migrated_url)
    version = database.execute("select version from public.feature_flags where key = %s", (FLAG,)).fetchone()
    assert version is not None
    step = promote(migrated_url, replace(ORDER, seen=FlagState(True, 10, version["version"])))
    assert step.result == "baking"


def test_a_pause_of_everybody_for_another_reason_ends_the_way_back(migrated_url: str, database: Database) -> None:
    """A person's own pause stays, and so the flag stays off."""
    database.execute("update public.agent_controls set pause_reason = 'mine' where company_id is null")
    action = back(migrated_url)
    assert (action.result, action.holds) == ("failed", True)
    assert "another reason" in action.message
    assert flag(database) == (False, 50)
    assert "mine" in paused(database)


def test_without_an_emergency_on_record_nothing_is_undone(migrated_url: str, database: Database) -> None:
    """Without its audit row the way back refuses."""
    database.execute("alter table public.audit_logs disable trigger user")
    database.execute("update public.audit_logs set action = 'other' where action = 'agents_paused'")
    action = back(migrated_url)
    assert (action.result, flag(database)[0]) == ("failed", False)
    assert len(paused(database)) > 1


def test_a_dry_run_of_the_way_back_writes_nothing(migrated_url: str, database: Database) -> None:
    """It only says what would be done."""
    before = paused(database)
    action = back(migrated_url, dry_run=True)
    assert (action.result, flag(database)[0], paused(database)) == ("dry_run", False, before)


@pytest.mark.parametrize("at", [10, 25])
def test_a_person_switches_a_flag_on(at: int, migrated_url: str, database: Database) -> None:
    """`gate flags enable` sets the percentage that was asked for, and audits the person's name."""
    words = ("flags", "enable", FLAG, "--at", str(at), "--reason", "try it", "--actor", "bob", "--json")
    done = gate(*words, environ={"DATABASE_URL": migrated_url})
    assert done.returncode == 0, done.stderr
    assert f"switched on at {at} %" in json.loads(done.stdout)["message"]
    assert flag(database) == (True, at)
    row = database.execute("select actor from public.audit_logs order by id desc limit 1").fetchone()
    assert row == {"actor": "gate:bob"}


def test_a_flag_that_is_on_is_not_switched_on_again(migrated_url: str, database: Database) -> None:
    """If somebody has it on at another percentage, it holds and says so."""
    database.execute("update public.feature_flags set enabled = true where key = %s", (FLAG,))
    done = gate("flags", "enable", FLAG, "--at", "10", "--reason", "x", environ={"DATABASE_URL": migrated_url})
    assert done.returncode == 10
    assert "on already, at 50 %" in done.stdout
    assert flag(database) == (True, 50)


def test_the_pause_of_every_emergency_since_the_last_way_back_ends(migrated_url: str, database: Database) -> None:
    """A second emergency found everybody paused by the first; emergencies before the last way back are over."""
    second = replace(ORDER, reason="it burns again")
    assert emergency(migrated_url, second, time.monotonic, print).result == "done"
    assert back(migrated_url).result == "done"
    assert paused(database) == ["unpaid"]
    assert emergency(migrated_url, replace(ORDER, reason="a third"), time.monotonic, print).result == "done"
    database.execute("update public.agent_controls set pause_reason = %s where company_id is null", (second.reason,))
    assert "another reason" in back(migrated_url).message


def test_an_older_pause_with_the_same_words_stays(migrated_url: str, database: Database) -> None:
    """A tenant's earlier pause is not the emergency's, even with the same reason."""
    assert back(migrated_url).result == "done"
    older = "update public.agent_controls set pause_reason = %s where company_id is not null"
    database.execute(older, (ORDER.reason,))
    assert emergency(migrated_url, ORDER, time.monotonic, print).result == "done"
    assert paused(database) == [ORDER.reason, ORDER.reason]
    assert back(migrated_url).result == "done"
    (row,) = database.execute("select company_id from public.agent_controls where agents_paused").fetchall()
    assert row["company_id"] is not None
