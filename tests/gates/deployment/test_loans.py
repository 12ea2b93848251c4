"""Rows that a drill borrows: any other writer has the last word, and a killed run leaves nothing set."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gates.act.emergency import emergency
from gates.act.flag import Order
from gates.act.rollback import roll_back
from gates.decision.rules import RolloutPlan
from gates.deployment.sql.database import connect
from gates.deployment.tenants.leftovers import HELD, TIMED, Lease, take_lease
from gates.deployment.tenants.loans import (
    GIVEN_BACK,
    KEPT,
    SET,
    Changed,
    Ending,
    LiveRow,
    Loan,
    Values,
    give_back,
    give_back_for_the_dead,
    lend,
)
from tests.gates.act.flagged import Database, flagged
from tests.postgres_fixture import PgServer
from tests.waiting import until

FLAG, FLEET = LiveRow("outbox.enabled"), LiveRow()
OFF: Values = {"enabled": False}
PAUSED: Values = {"agents_paused": True, "pause_reason": "a drill"}
BOTH = [(FLAG, OFF), (FLEET, PAUSED)]
DEAD = f"{HELD}9999999999"
"""The lease of a run that held its lock; nobody holds it now."""


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """An operator's connection; the flag is on at 10 %, and nobody is paused."""
    with flagged(migrated_url) as connection:
        connection.execute("update agent_controls set agents_paused = false, pause_reason = 'none'")
        yield connection


def standing(database: Database) -> list[Any]:
    flags = database.execute("select key, enabled, rollout_percentage from feature_flags order by key").fetchall()
    return [*flags, *database.execute("select agents_paused, pause_reason from agent_controls").fetchall()]


def audited(database: Database) -> list[str]:
    return [r["action"] for r in database.execute("select action from audit_logs order by id").fetchall()]


def lent(url: str, switch: LiveRow, values: Values, *, run: str = "ab12", lease: str = DEAD) -> Loan:
    with connect(url) as connection:
        return lend(connection, switch, values, run=run, lease=lease)


def ended(url: str, loan: Loan) -> Ending:
    with connect(url) as connection:
        return give_back(connection, loan)


@pytest.mark.parametrize("role", [None, "replay_gate"])
@pytest.mark.parametrize(("switch", "values"), BOTH)
def test_a_row_that_is_lent_comes_back_as_it_was(
    switch: LiveRow, values: Values, role: str | None, pg_server: PgServer, migrated_db: str, database: Database
) -> None:
    """Both writes are audited, the row is restored once, and nothing looks like a rollout step."""
    url, before = pg_server.url(migrated_db, role), standing(database)
    loan = lent(url, switch, values)
    assert standing(database) != before
    assert audited(database) == [SET]
    assert ended(url, loan) is Ending.GIVEN_BACK
    assert standing(database) == before
    assert ended(url, loan) is Ending.BEFORE
    assert audited(database) == [SET, GIVEN_BACK]
    rows = database.execute("select metadata from audit_logs where metadata ? 'to'").fetchall()
    assert not rows, "what a drill does to a flag must not look like a step of it"


PERSONS = [
    (FLAG, OFF, "update feature_flags set enabled = false, rollout_percentage = 0 where key = 'outbox.enabled'"),
    (FLAG, OFF, "update feature_flags set enabled = false where key = 'outbox.enabled'"),
    (FLAG, OFF, "update feature_flags set enabled = true, rollout_percentage = 50 where key = 'outbox.enabled'"),
    (FLAG, OFF, "update feature_flags set description = 'hands off' where key = 'outbox.enabled'"),
    (FLAG, OFF, "delete from feature_flags where key = 'outbox.enabled'"),
    (FLAG, OFF, ("delete from feature_flags where key = 'outbox.enabled'; insert into feature_flags (key, enabled,"
     " rollout_percentage) values ('outbox.enabled', false, 10)")),
    (FLEET, PAUSED, "update agent_controls set agents_paused = true, pause_reason = 'a drill'"),
    (FLEET, PAUSED, "update agent_controls set agents_paused = true, pause_reason = 'emergency'"),
    (FLEET, PAUSED, "update agent_controls set agents_paused = false"),
]  # fmt: skip


@pytest.mark.parametrize("triggers", ["origin", "replica"])
@pytest.mark.parametrize(("switch", "values", "statement"), PERSONS)
def test_what_a_person_does_meanwhile_stays(
    switch: LiveRow, values: Values, statement: str, triggers: str, migrated_url: str, database: Database
) -> None:
    """Any write by a person wins, even with equal values or without a version counter."""
    if triggers == "replica":
        database.execute("alter table feature_flags disable trigger feature_flags_touch")
        database.execute("alter table agent_controls disable trigger all")
    loan = lent(migrated_url, switch, values)
    database.execute(statement.encode())
    database.execute("delete from feature_flags where key = 'none'")
    left = [r for r in standing(database) if not str(r.get("key", "")).startswith("drill.loan.")]
    assert ended(migrated_url, loan) is Ending.KEPT
    assert standing(database) == left
    assert audited(database)[-1] == KEPT
    assert give_back_for_the_dead(migrated_url) == []


@pytest.mark.parametrize(("switch", "values"), BOTH)
def test_a_persons_change_in_the_moment_of_a_write_stays(
    switch: LiveRow, values: Values, migrated_url: str, database: Database
) -> None:
    """The gate waits for a person's open transaction, then neither sets nor restores the row."""
    touch = f"update {switch.table.as_string()} set updated_at = now() where company_id is null"
    with ThreadPoolExecutor(1) as pool:
        with database.transaction():
            database.execute(touch.encode())
            setting = pool.submit(lent, migrated_url, switch, values)
            _waited_for(database, setting.done)
        with pytest.raises(Changed, match="somebody else changed"):
            setting.result(timeout=10)
        assert audited(database) == []
        loan = lent(migrated_url, switch, values)
        with database.transaction():
            database.execute(touch.encode())
            giving = pool.submit(ended, migrated_url, loan)
            _waited_for(database, giving.done)
            left = [r for r in standing(database) if not str(r.get("key", "")).startswith("drill.loan.")]
        assert giving.result(timeout=10) is Ending.KEPT
    assert standing(database) == left


def _waited_for(database: Database, done: Callable[[], bool]) -> None:
    """Poll until somebody waits for a lock."""
    query = "select count(*) as n from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"

    def waits() -> bool:
        assert not done(), "nobody waited for the person's transaction"
        database.execute("select pg_stat_clear_snapshot()")
        row = database.execute(query).fetchone()
        return bool(row and row["n"])

    until(waits, what="a wait for the person's transaction")


@pytest.mark.parametrize(("switch", "values"), BOTH)
def test_the_next_run_gives_back_for_one_that_was_killed(
    switch: LiveRow, values: Values, migrated_url: str, database: Database
) -> None:
    """Exactly one of twenty runs restores the row; the row of a living run is left alone."""
    before, run = standing(database), "ab12"
    lease, mark = take_lease(migrated_url, run, shared=True)
    assert isinstance(lease, Lease)
    loan = lent(migrated_url, switch, values, run=run, lease=f"{mark}{int(time.time()) + 1800}")
    with ThreadPoolExecutor(20) as pool:
        assert [pool.submit(give_back_for_the_dead, migrated_url).result() for _ in range(3)] == [[], [], []]
        assert audited(database) == [SET]
        lease.release()
        found = [one for few in pool.map(lambda _: give_back_for_the_dead(migrated_url), range(20)) for one in few]
    while audited(database) == [SET]:  # the released lock takes its moment; nobody but us is left to ask
        found += give_back_for_the_dead(migrated_url)
    assert found == [(loan, Ending.GIVEN_BACK)]
    assert audited(database) == [SET, GIVEN_BACK]
    assert standing(database) == before


def test_where_no_lock_can_be_had_the_lease_alone_decides(migrated_url: str, database: Database) -> None:
    """Behind a pooler nothing shows that a run lives, so its row stays until the lease ends."""
    before = standing(database)
    lent(migrated_url, FLAG, OFF, lease=f"{TIMED}{int(time.time()) + 60}")
    assert give_back_for_the_dead(migrated_url) == []
    database.execute(
        "update feature_flags set description = replace(description, %s, %s) where key like 'drill.loan.%%'",
        (f"{TIMED}1", f"{TIMED}0"),
    )
    assert [ending for _, ending in give_back_for_the_dead(migrated_url)] == [Ending.GIVEN_BACK]
    assert standing(database) == before


def test_a_row_is_lent_once_at_a_time(migrated_url: str, database: Database) -> None:
    """A second drill would take the first one's value for the original."""
    loan = lent(migrated_url, FLAG, OFF)
    with pytest.raises(Changed, match="another drill"):
        lent(migrated_url, FLAG, {"rollout_percentage": 100})
    lent(migrated_url, FLEET, PAUSED)
    assert ended(migrated_url, loan) is Ending.GIVEN_BACK


def test_a_flag_without_a_row_has_none_afterwards(migrated_url: str, database: Database) -> None:
    """The drill's new row is deleted, unless somebody changed it meanwhile."""
    switch, values = LiveRow("security.signing_v2_required"), {"enabled": True, "rollout_percentage": 100}
    before = standing(database)
    assert ended(migrated_url, lent(migrated_url, switch, values)) is Ending.GIVEN_BACK
    assert standing(database) == before
    loan = lent(migrated_url, switch, values)
    database.execute("update feature_flags set enabled = true where key = %s", (switch.key,))
    assert ended(migrated_url, loan) is Ending.KEPT
    assert [r["key"] for r in standing(database)[:-1]] == ["outbox.enabled", switch.key]


def test_the_zone_of_a_session_makes_no_difference(migrated_url: str, database: Database) -> None:
    """The run that restores a row may have another time zone than the one that borrowed it."""
    with connect(migrated_url) as connection:
        connection.execute("set timezone to 'Asia/Kathmandu'")
        loan = lend(connection, FLAG, OFF, run="ab12", lease=DEAD)
    assert ended(migrated_url, loan) is Ending.GIVEN_BACK


@pytest.mark.parametrize("record", [None, "", "{}", "[]", "null", '{"id": 1}', "\x00bad".replace("\x00", "")])
def test_a_record_that_is_none_of_ours_is_left_alone(record: str | None, migrated_url: str, database: Database) -> None:
    """A malformed record changes nothing and raises no error."""
    database.execute("insert into feature_flags (key, description) values ('drill.loan.x', %s)", (record,))
    before = standing(database)
    assert give_back_for_the_dead(migrated_url) == []
    assert standing(database) == before


def test_a_rollback_that_comes_meanwhile_is_not_undone(either_url: str, database: Database) -> None:
    """The drill does not restore what an operator's emergency stop left."""
    off, paused = lent(either_url, FLAG, OFF), lent(either_url, FLEET, PAUSED)
    order = Order(RolloutPlan(settle_s=0, drain_timeout_s=1), "r1", "test", "an incident")
    action = emergency(either_url, order, time.monotonic, lambda _text: None)
    assert (action.kind, action.result, action.flag) == ("emergency", "done", "off")
    assert {"flag_rolled_back", "agents_paused"} <= set(audited(database))
    left = standing(database)
    assert [ended(either_url, loan) for loan in (off, paused)] == [Ending.BEFORE, Ending.BEFORE]
    assert give_back_for_the_dead(either_url) == []
    assert standing(database) == left
    assert (left[0]["enabled"], left[-1]["agents_paused"]) == (False, True)


def test_a_rollback_in_the_moment_a_drill_sets_the_flag_is_not_undone(migrated_url: str, database: Database) -> None:
    """The rollback waits for the drill's open transaction, and the flag stays off."""
    order = Order(RolloutPlan(settle_s=0, drain_timeout_s=1), "r1", "test", "an incident")
    with ThreadPoolExecutor(1) as pool, connect(migrated_url) as drill:
        with drill.transaction():
            loan = lend(drill, FLAG, OFF, run="ab12", lease=DEAD)
            rolling = pool.submit(roll_back, migrated_url, order, time.monotonic, lambda _text: None)
            _waited_for(database, rolling.done)
        assert rolling.result(timeout=30).flag == "off"
    assert ended(migrated_url, loan) is Ending.BEFORE
    assert standing(database)[0]["enabled"] is False
