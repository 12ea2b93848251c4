"""The network fails at each statement of each act: what is said is what is so, and a rollback is done all the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from gates.act.emergency import emergency
from gates.act.flag import Order, look_at
from gates.act.rollback import roll_back
from gates.act.rollout import promote
from gates.decision.rules import RolloutPlan
from gates.deployment import database as door
from tests.gates.act.network import Fault, network

FLAG = "outbox.enabled"
PLAN = RolloutPlan(FLAG, bake_minutes=0, drain_timeout_s=2, rollback_patience_s=30)
Database = psycopg.Connection[dict[str, Any]]
LATE = {Fault.SILENT_BEFORE, Fault.SILENT_AFTER}


@pytest.fixture
def database(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A connection that no fault touches; the gate's own wait a second for an answer."""
    monkeypatch.setattr(door, "ANSWER_GRACE_S", -9.0)
    with psycopg.connect(migrated_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def reset(database: Database) -> int:
    """The flag on at 10 %, nobody paused, a limit; the id of the last audit row."""
    database.execute("delete from public.feature_flags where key = %s", (FLAG,))
    insert = "insert into public.feature_flags (key, enabled, rollout_percentage) values (%s, true, 10)"
    database.execute(insert, (FLAG,))
    database.execute("update public.agent_controls set agents_paused = false")
    database.execute(
        "insert into public.edge_rate_limits (key, hits) values ('replay:x:1', array[now()]) on conflict do nothing"
    )
    row = database.execute("select coalesce(max(id), 0) as id from public.audit_logs").fetchone()
    assert row
    return int(row["id"])


def audited(database: Database, action: str, since: int) -> int:
    query = "select from public.audit_logs where action = %s and id > %s"
    return len(database.execute(query, (action, since)).fetchall())


def flag(database: Database) -> tuple[bool, int]:
    row = database.execute(
        "select enabled, rollout_percentage from public.feature_flags where key = %s", (FLAG,)
    ).fetchone()
    assert row
    return row["enabled"], row["rollout_percentage"]


def order(url: str) -> Order:
    return Order(PLAN, "r1", "test", "why", look_at(url, FLAG), same_version=False)


def places(statements: int, fault: Fault) -> range:
    """Every statement for a cut; every second one for a silence, which costs a second each."""
    return range(1, statements + 1, 2 if fault in LATE else 1)


@pytest.mark.parametrize("fault", list(Fault))
def test_a_rollback_gets_through_whatever_statement_the_network_fails_at(
    fault: Fault, migrated_url: str, database: Database
) -> None:
    """The flag is off, read back, and the audit has one row of it."""
    reset(database)
    with network(migrated_url) as (url, net):
        roll_back(url, order(migrated_url), time.monotonic, print)
    assert net.statements > 8
    for at in places(net.statements, fault):
        last = reset(database)
        with network(migrated_url, fault, at) as (url, _):
            action = roll_back(url, order(migrated_url), time.monotonic, print)
        assert (action.flag, flag(database)[0]) == ("off", False), (at, action)
        assert action.kind == "rollback", (at, action)
        assert audited(database, "flag_rolled_back", last) == 1, (at, action)


@pytest.mark.parametrize("fault", list(Fault))
def test_a_promotion_says_what_is_so_whatever_statement_the_network_fails_at(
    fault: Fault, migrated_url: str, database: Database
) -> None:
    """The step and its audit row are both there or both not there, and the action says which."""
    reset(database)
    with network(migrated_url) as (url, net):
        assert promote(url, order(migrated_url)).result == "done"
    became = set()
    for at in range(1, net.statements + 1):
        last = reset(database)
        with network(migrated_url, fault, at) as (url, _):
            action = promote(url, order(migrated_url))
        step = (audited(database, "flag_promoted", last), flag(database))
        assert step in {(0, (True, 10)), (1, (True, 50))}, (at, action)
        said = {"done": {50}, "failed": {10}, "unknown": {10, 50}}[action.result]
        assert flag(database)[1] in said, (at, action)
        assert action.holds is (action.result != "done")
        assert action.result != "unknown" or "read back" in action.message, (at, action)
        became.add(flag(database)[1])
    assert became == {10, 50}


@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER])
def test_an_emergency_gets_through_whatever_statement_the_network_fails_at(
    fault: Fault, migrated_url: str, database: Database
) -> None:
    """All three are done and read back."""
    reset(database)
    with network(migrated_url) as (url, net):
        emergency(url, order(migrated_url), time.monotonic, print)
    for at in places(net.statements, fault):
        last = reset(database)
        with network(migrated_url, fault, at) as (url, _):
            action = emergency(url, order(migrated_url), time.monotonic, print)
        assert (action.result, action.headline) == ("done", ""), (at, action)
        assert not flag(database)[0]
        assert not database.execute("select from public.agent_controls where not agents_paused").fetchall()
        assert not database.execute("select from public.edge_rate_limits where key like 'replay:%'").fetchall()
        assert audited(database, "flag_rolled_back", last) == 1


def test_a_promoter_that_the_network_cuts_off_keeps_no_rollback_away(migrated_url: str, database: Database) -> None:
    """Its session stays in its transaction on the server, with the row's lock; the rollback ends it."""
    ended = 0
    reset(database)
    with network(migrated_url) as (url, net):
        promote(url, order(migrated_url))
    for at in range(3, net.statements):
        reset(database)
        with network(migrated_url, Fault.SILENT_AFTER, at) as (url, _):
            promote(url, order(migrated_url))
            started = time.monotonic()
            action = roll_back(migrated_url, order(migrated_url), time.monotonic, print)
            assert time.monotonic() - started < 20
        assert (action.flag, flag(database)[0]) == ("off", False), (at, action)
        ended += "was ended" in action.message
    assert ended
