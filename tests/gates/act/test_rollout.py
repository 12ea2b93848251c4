"""The flag's steps: planned without I/O, then done on a real database, alone and in races."""

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gates.act.emergency import emergency
from gates.act.flag import FlagState, Order, Override, look_at
from gates.act.rollout import AuditTrail, act, next_step, promote
from gates.decision.rules import RolloutPlan
from gates.verdict import Decision, Verdict
from tests.gates.act.flagged import Database
from tests.postgres_fixture import PgServer

PLAN = RolloutPlan(settle_s=0, drain_timeout_s=2, rollback_patience_s=2)
ON_10 = FlagState(True, 10, 5)
PROMOTE, ROLLBACK = Verdict(Decision.PROMOTE, "all passed"), Verdict(Decision.ROLLBACK, "harm")


def order(seen: FlagState | None = ON_10, **more: Any) -> Order:
    return Order(**{"plan": PLAN, "release": "r1", "actor": "test", "reason": "why", "seen": seen, **more})


@pytest.mark.parametrize(
    ("now", "seen", "kind", "result", "to"),
    [
        (ON_10, ON_10, "promote", "done", 50),
        (FlagState(True, 50, 6), FlagState(True, 50, 6), "promote", "done", 100),
        (FlagState(True, 25, 6), FlagState(True, 25, 6), "promote", "done", 50),
        (FlagState(True, 100, 7), FlagState(True, 100, 7), "none", "nothing_to_do", 100),
        (FlagState(False, 10, 6), ON_10, "none", "off", 0),
        (FlagState(False, 10, 5), FlagState(False, 10, 5), "none", "off", 0),
        (ON_10, FlagState(False, 10, 4), "none", "changed", 10),
        (FlagState(True, 50, 6), ON_10, "none", "changed", 50),
        (FlagState(True, 10, 6), ON_10, "none", "changed", 10),
        (FlagState(True, 0, 5), FlagState(True, 0, 5), "none", "off", 0),
        (None, ON_10, "none", "off", None),
        (ON_10, None, "none", "off", 10),
        (FlagState(True, 10, 5, (Override("c", False, 100),)), ON_10, "none", "override", 10),
        (FlagState(True, 10, 5, (Override("c", True, 10),)), ON_10, "none", "override", 10),
        (FlagState(True, 10, 5, (Override("c", True, 100),)), ON_10, "promote", "done", 50),
    ],
)
def test_a_step_is_taken_only_from_what_was_seen_on(
    now: FlagState | None, seen: FlagState | None, kind: str, result: str, to: int | None
) -> None:
    """Every state of the flag has one answer: a step, a hold, or at the last step nothing to do."""
    step = next_step(now, order(seen), AuditTrail(str(now.percent if now else "")))
    assert (step.kind, step.result, step.to_percent) == (kind, result, to)
    assert step.holds is (kind == "none" and result != "nothing_to_do")


def test_where_our_own_drills_touch_the_flag_only_its_state_counts() -> None:
    """A drill switches the flag off and on, so the version grows and the state stays."""
    step = next_step(FlagState(True, 10, 9), order(same_version=False), AuditTrail())
    assert step.kind == "promote"


def test_a_flag_that_is_baking_takes_no_step() -> None:
    """It is no hold: the step was already taken."""
    step = next_step(ON_10, order(), AuditTrail(baking_s=60.0))
    assert (step.kind, step.result, step.holds) == ("none", "baking", False)
    assert next_step(ON_10, order(), AuditTrail(baking_s=-1.0)).kind == "promote"


@pytest.mark.parametrize(
    ("percent", "told", "result"),
    [
        (5, "", "done"),
        (10, "", "done"),
        (10, "50", "done"),
        (10, "0", "done"),
        (50, "50", "done"),
        (25, "25", "done"),
        (100, "100", "nothing_to_do"),
        (50, "", "unexplained"),
        (50, "10", "unexplained"),
        (50, "0", "unexplained"),
        (50, "100", "unexplained"),
        (11, "", "unexplained"),
        (100, "", "unexplained"),
        (100, "50", "unexplained"),
    ],
)
def test_a_flag_is_believed_where_its_last_audit_row_put_it_or_at_its_first_step(
    percent: int, told: str, result: str
) -> None:
    """Anywhere else somebody bypassed the gate: the promotion holds and says what to do."""
    at = FlagState(True, percent, 5)
    step = next_step(at, order(at), AuditTrail(told))
    assert step.result == result
    assert step.holds is (result == "unexplained")
    if result == "unexplained":
        assert f"at {percent} %, which no audit row explains" in step.message
        assert f"Put it back to {told if told not in {'', '0'} else 10} %" in step.message


def test_a_person_answers_for_where_the_flag_is() -> None:
    """By hand the step starts from the current percentage; the last one is taken again if no audit row has it."""
    for percent, to in ((50, 100), (100, 100)):
        at = FlagState(True, percent, 5)
        step = next_step(at, order(at, by_hand=True), AuditTrail())
        assert (step.kind, step.to_percent, step.holds) == ("promote", to, False)
    at = FlagState(True, 100, 5)
    assert next_step(at, order(at, by_hand=True), AuditTrail("100")).result == "nothing_to_do"


# --- on a database -----------------------------------------------------------------------------------------------


def audited(database: Database, action: str) -> list[dict[str, Any]]:
    return database.execute("select * from public.audit_logs where action = %s order by id", (action,)).fetchall()


@pytest.mark.parametrize("role", [None, "replay_gate"])
def test_a_promotion_is_one_transaction_with_its_audit_row(
    role: str | None, pg_server: PgServer, migrated_db: str, database: Database
) -> None:
    """From 10 to 50 with one audit row, for both logins. The next step waits for the bake, and at 100 none is left."""
    url = pg_server.url(migrated_db, role)
    seen = look_at(url, PLAN.flag)
    action = act(PROMOTE, order(seen), url)
    assert (action.kind, action.from_percent, action.to_percent, action.result) == ("promote", 10, 50, "done")
    (row,) = audited(database, "flag_promoted")
    both = "select 1 from public.feature_flags f join public.audit_logs a on a.xmin = f.xmin where a.id = %s"
    assert database.execute(both, (row["id"],)).fetchone(), "the step and its audit row have one transaction id"
    assert row["metadata"] == {"key": "outbox.enabled", "release": "r1", "reason": "why", "from": 10, "to": 50}
    assert row["scope"] == "all"
    again = act(PROMOTE, order(look_at(url, PLAN.flag)), url)
    assert (again.kind, again.result, again.holds) == ("none", "baking", False)
    other = act(PROMOTE, order(look_at(url, PLAN.flag), release="r2"), url)
    assert (other.kind, other.result) == ("none", "baking")
    quick = dataclasses.replace(PLAN, bake_minutes=0)
    baked = act(PROMOTE, order(look_at(url, PLAN.flag), release="r2", plan=quick), url)
    assert (baked.kind, baked.to_percent) == ("promote", 100)
    last = act(PROMOTE, order(look_at(url, PLAN.flag), release="r3"), url)
    assert (last.kind, last.result, last.to_percent, last.holds) == ("none", "nothing_to_do", 100, False)


def test_a_dry_run_writes_nothing(migrated_url: str, database: Database) -> None:
    """It only says what it would do."""
    seen = look_at(migrated_url, PLAN.flag)
    step = act(PROMOTE, order(seen, dry_run=True), migrated_url)
    assert (step.kind, step.to_percent, step.result) == ("promote", 50, "dry_run")
    off = act(ROLLBACK, order(seen, dry_run=True), migrated_url)
    assert (off.kind, off.to_percent, off.result) == ("rollback", 0, "dry_run")
    assert look_at(migrated_url, PLAN.flag) == seen
    assert not audited(database, "flag_promoted")
    assert not audited(database, "flag_rolled_back")


def test_of_gates_that_race_one_acts(migrated_url: str, database: Database) -> None:
    """The others hold, because of the lock or because the flag has changed."""
    seen = look_at(migrated_url, PLAN.flag)
    with ThreadPoolExecutor(8) as pool:
        orders = [order(seen, release=f"r{n}") for n in range(8)]
        actions = list(pool.map(lambda o: act(PROMOTE, o, migrated_url), orders))
    assert [a.kind for a in actions].count("promote") == 1
    assert all(a.holds and a.result in {"busy", "changed"} for a in actions if a.kind != "promote")
    assert len(audited(database, "flag_promoted")) == 1


def test_twenty_gates_with_twenty_releases_take_one_step(migrated_url: str, database: Database) -> None:
    """The bake time belongs to the flag, whoever asks."""

    def insists(release: str) -> list[str]:
        looks = (look_at(migrated_url, PLAN.flag) for _ in range(3))
        return [act(PROMOTE, order(seen, release=release), migrated_url).result for seen in looks]

    with ThreadPoolExecutor(20) as pool:
        results = [r for found in pool.map(insists, [f"r{n}" for n in range(20)]) for r in found]
    assert results.count("done") == 1
    assert set(results) <= {"done", "busy", "changed", "baking"}
    assert database.execute("select rollout_percentage from feature_flags").fetchall() == [{"rollout_percentage": 50}]


def test_a_step_past_the_gate_holds_until_a_person_answers_for_it(migrated_url: str, database: Database) -> None:
    """A bare UPDATE to 100 % is not the gate's step, and a drill's audit rows do not explain it."""
    database.execute("update feature_flags set rollout_percentage = 100 where key = 'outbox.enabled'")
    database.execute(
        """insert into audit_logs (action, actor, scope, metadata) values
        ('drill_switch_set', 'drill', 'all', '{"key": "outbox.enabled", "written": {"rollout_percentage": 100}}'),
        ('flag_promoted', 'gate', 'all', '{"key": "other", "to": 100}'),
        ('flag_promoted', 'gate', 'all', '{"key": "outbox.enabled", "to": 50}')"""
    )
    held = act(PROMOTE, order(look_at(migrated_url, PLAN.flag)), migrated_url)
    assert (held.kind, held.result, held.holds) == ("none", "unexplained", True)
    assert "the last one about it says 50 %" in held.message
    by_hand = order(look_at(migrated_url, PLAN.flag), by_hand=True)
    assert act(PROMOTE, by_hand, migrated_url).result == "done"
    after = act(PROMOTE, order(look_at(migrated_url, PLAN.flag)), migrated_url)
    assert (after.result, after.holds) == ("nothing_to_do", False)


def test_a_gate_that_meets_another_one_is_busy(migrated_url: str, database: Database) -> None:
    """A promotion holds at once and names who has the lock; a rollback needs no lock."""
    seen = look_at(migrated_url, PLAN.flag)
    lock = "select pg_advisory_xact_lock(hashtextextended('replaygate:outbox.enabled', 0))"
    with database.transaction():
        database.execute(lock)
        action = act(PROMOTE, order(seen), migrated_url)
        assert (action.result, action.holds) == ("busy", True)
        assert f"pid {database.info.backend_pid} " in action.message
        assert act(ROLLBACK, order(seen), migrated_url).result == "done"


def test_a_flag_that_a_human_switched_off_stays_off(migrated_url: str, database: Database) -> None:
    """It was switched off during the run: a promote holds, and a rollback has nothing to do."""
    seen = look_at(migrated_url, PLAN.flag)
    database.execute("update public.feature_flags set enabled = false where key = 'outbox.enabled'")
    action = act(PROMOTE, order(seen), migrated_url)
    assert (action.result, action.holds, action.to_percent) == ("off", True, 0)
    off = act(ROLLBACK, order(seen), migrated_url)
    assert (off.kind, off.result) == ("none", "nothing_to_do")
    now = look_at(migrated_url, PLAN.flag)
    assert now is not None
    assert not now.enabled


def test_a_hold_tells_where_the_flag_is_now(migrated_url: str, database: Database) -> None:
    """It shows the current state, or if that cannot be read, the state that was seen."""
    asked = dataclasses.replace(order(), seen=look_at(migrated_url, PLAN.flag))
    database.execute("update public.feature_flags set enabled = false where key = %s", (PLAN.flag,))
    held = act(Verdict(Decision.HOLD, "unknown"), asked, migrated_url)
    assert (held.kind, held.from_percent, held.to_percent) == ("none", 0, 0)
    assert act(Verdict(Decision.HOLD, "unknown"), asked, "").from_percent == 10


def test_a_rollback_switches_off_every_row_and_proves_recovery(migrated_url: str, database: Database) -> None:
    """Overrides go off, pending events count as held, nothing is in flight, and times are measured."""
    company = database.execute("insert into public.companies (name) values ('a') returning id").fetchone()
    assert company
    database.execute(
        "insert into public.feature_flags (key, company_id, enabled, rollout_percentage)"
        " values ('outbox.enabled', %s, true, 100)",
        (company["id"],),
    )
    database.execute(
        "insert into public.event_outbox (company_id, event_type, payload) values (%s, 'x', '{}')", (company["id"],)
    )
    action = act(ROLLBACK, order(look_at(migrated_url, PLAN.flag)), migrated_url)
    assert (action.kind, action.from_percent, action.to_percent, action.result) == ("rollback", 10, 0, "done")
    assert action.recovery["held"] == 1
    assert action.recovery["in_flight"] == 0
    assert action.recovery["half_replayed"] == 0
    assert action.recovery["proved"] is True
    assert isinstance(action.recovery["decision_to_off_s"], float)
    (row,) = audited(database, "flag_rolled_back")
    assert row["target_count"] == 2


def test_a_recovery_that_does_not_come_is_said(migrated_url: str, database: Database) -> None:
    """If something stays in flight, the flag is off but no recovery is claimed."""
    company = database.execute("insert into public.companies (name) values ('a') returning id").fetchone()
    assert company
    database.execute(
        "insert into public.event_outbox (company_id, event_type, payload, claimed_until)"
        " values (%s, 'x', '{}', now() + interval '1 hour')",
        (company["id"],),
    )
    quick = dataclasses.replace(PLAN, drain_timeout_s=1)
    action = act(ROLLBACK, order(look_at(migrated_url, PLAN.flag), plan=quick), migrated_url)
    assert action.result == "done"
    assert action.recovery["in_flight"] == 1
    assert action.recovery["proved"] is False
    assert action.recovery["decision_to_drained_s"] is None


def test_an_emergency_pauses_everybody_and_clears_the_limits(either_url: str, database: Database) -> None:
    """The flag is off, agents are paused, limits are cleared, and each is audited."""
    database.execute(
        "insert into public.edge_rate_limits (key, hits) values ('replay:x:1', array[now()]), ('other', array[now()])"
    )
    action = emergency(either_url, order(), time.monotonic, print)
    assert (action.kind, action.result) == ("emergency", "done")
    for name in ("flag_rolled_back", "agents_paused", "rate_limits_cleared"):
        assert len(audited(database, name)) == 1, name
    rows = database.execute("select agents_paused, pause_reason from public.agent_controls").fetchall()
    assert rows
    assert all(r["agents_paused"] and r["pause_reason"] == "why" for r in rows)
    assert [r["key"] for r in database.execute("select key from public.edge_rate_limits").fetchall()] == ["other"]


def test_without_a_database_nothing_is_possible_and_a_promotion_holds() -> None:
    """If the database does not answer, a rollback has failed and holds, and the flag is not known."""
    assert act(PROMOTE, order(), "").result == "not_possible"
    assert act(PROMOTE, order(), "").holds
    broken = act(ROLLBACK, order(), "postgresql://127.0.0.1:1/none")
    assert (broken.kind, broken.result, broken.holds) == ("none", "failed", True)
    assert look_at("postgresql://127.0.0.1:1/none", PLAN.flag) is None


def test_a_flag_row_that_is_locked_is_not_waited_for_for_ever(migrated_url: str, database: Database) -> None:
    """A person's open transaction makes the promotion hold within the lock timeout."""
    seen = look_at(migrated_url, PLAN.flag)
    with database.transaction():
        database.execute("update public.feature_flags set description = 'x' where key = 'outbox.enabled'")
        action = act(PROMOTE, order(seen), migrated_url)
    assert (action.result, action.holds) == ("failed", True)


@pytest.mark.parametrize("dry_run", [False, True])
def test_step_by_hand_needs_a_login_that_sees_every_override(dry_run: bool, gate_url: str, database: Database) -> None:
    """If the login cannot see a tenant's override, it takes no step."""
    database.execute(
        "insert into public.feature_flags (key, company_id, enabled) values (%s, gen_random_uuid(), false)",
        (PLAN.flag,),
    )
    asked = order(look_at(gate_url, PLAN.flag), by_hand=True, dry_run=dry_run)
    assert "by an override" in promote(gate_url, asked).message
    database.execute(
        "create policy hide on public.feature_flags as restrictive to replay_gate using (company_id is null)"
    )
    held = promote(gate_url, asked)
    assert (held.result, held.holds) == ("override", True)
    assert "row-level security may hide overrides" in held.message
