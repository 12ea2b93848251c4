"""Deliveries under fire: workers killed, frozen and cut off in each phase lose nothing and double nothing."""

from __future__ import annotations

import time

from drills.recovery.faults import (
    SqlDoor,
    assert_recovered,
    let_claims_run_out,
    named,
    processes,
    reconnect,
    terminate_backends,
    work,
)
from drills.scene import Scene
from gates.evidence import Where
from gates.recorder import check

SQL = ("database",)
AGENT = ("database", "drill-agent")
DELIVERS = ("drill/outbox/delivered-once",)


def _some_but_not_all(scene: Scene, company: str, total: int) -> bool:
    done = scene.number("select count(*) from event_outbox where company_id = %s and processed_at is not null", company)
    return 0 < done < total


def _any_is(scene: Scene, company: str, events: list[str], state: str) -> bool:
    return any(r["state"] == state for r in scene.outbox(company) if r["event"] in events)


@check(
    "drill/recovery/worker-killed-in-each-phase",
    needs=AGENT,
    after=DELIVERS,
    covers=("K06", "K07"),
    where=Where.REFERENCE,
    phase="last",
    deep=True,
)
def test_worker_killed_in_each_phase(scene: Scene) -> None:
    """Workers killed while they claim, while the agent works and while they acknowledge lose no event and double none.

    A kill is an ordinary deployment, seen from inside.
    """
    company = scene.company()
    events: list[str] = []
    with processes(scene) as control:
        # before a claim, just after one, while the agent works, and when some are acknowledged and others not
        for state, wait_ms in ((None, 0), ("in_flight", 0), ("in_flight", 40), ("in_flight", 60), ("processed", 0)):
            fresh = work(scene, company, 9, 60)
            events += fresh
            if state:
                scene.until_true(lambda s=state, f=fresh: _any_is(scene, company, f, s), within_s=3)  # type: ignore[misc]
            time.sleep(wait_ms / 1000)
            for worker in named(control, "worker"):
                control.kill(worker)
            control.mend()
            let_claims_run_out(scene, company)
    assert_recovered(scene, company, events)


@check(
    "drill/recovery/worker-killed-in-a-replay",
    needs=AGENT,
    after=DELIVERS,
    covers=("L11", "K06"),
    where=Where.REFERENCE,
    phase="last",
    deep=True,
)
def test_worker_killed_in_a_replay(scene: Scene) -> None:
    """A replay whose workers are killed half-way goes on where it was: every item once, counts and budget exact.

    A run that is stuck half-way keeps its items as replaying for good.
    """
    company = scene.company(items=20, payload='{"drill": {"delay_ms": 60}}')
    with processes(scene) as control:
        run = str(scene.run(company, max=20)["replay_run_id"])
        scene.until_true(lambda: _some_but_not_all(scene, company, 20), within_s=5)
        for worker in named(control, "worker"):
            control.kill(worker)
    let_claims_run_out(scene, company)
    row = scene.ended(run, within_s=15)
    counts = (row["status"], row["success_count"], row["failure_count"], scene.used(company))
    assert counts == ("completed", 20, 0, (20, 20)), f"after the kill the run is {counts}"
    states = {r["status"] for r in scene.items(company)}
    assert states == {"resolved"}, f"after the kill the items are {sorted(states)}"
    twice = scene.rows("select event_id from agent_tasks where company_id = %s group by 1 having count(*) > 1", company)
    assert not twice, f"{len(twice)} items have more than one effect"
    ends = [r["action"] for r in scene.audit(company, "dlq_replay_completed", "dlq_replay")]
    assert sorted(ends) == ["dlq_replay", "dlq_replay_completed"], f"the end of the run is audited as {ends}"
    scene.seen.count(20)


@check(
    "drill/recovery/worker-frozen-past-its-claim",
    needs=AGENT,
    after=DELIVERS,
    covers=("K05", "K08"),
    where=Where.REFERENCE,
    phase="last",
    deep=True,
)
def test_worker_frozen_past_its_claim(scene: Scene) -> None:
    """A worker that stood still until its claims ran out, and then goes on, makes no second effect.

    A pause of the machine is longer than any lease; the one who wakes must not act on what it believed before.
    """
    company = scene.company()
    events = work(scene, company, 9, 150)
    with processes(scene) as control:
        time.sleep(0.1)
        workers = named(control, "worker")
        for worker in workers:
            control.freeze(worker)
        let_claims_run_out(scene, company)
        for worker in workers:
            control.thaw(worker)
        assert_recovered(scene, company, events)


@check(
    "drill/recovery/worker-sessions-ended",
    needs=AGENT,
    after=DELIVERS,
    covers=("K06", "K20"),
    where=Where.STAGING,
    phase="last",
    deep=True,
)
def test_worker_sessions_ended(scene: Scene) -> None:
    """Workers whose database sessions are ended, again and again, come back and deliver everything once.

    A failover ends every session; a worker that does not come back is found out by its backlog. The session that
    listens is ended, too: notices are lost.
    """
    company = scene.company()
    events: list[str] = []
    for wait_ms in (0, 30, 100):
        events += work(scene, company, 9, 50)
        time.sleep(wait_ms / 1000)
        ended = scene.until_true(lambda: terminate_backends(scene, "replay_worker") > 0, within_s=5)
        scene.seen.require(ended, "no session of replay_worker was found to end")
        let_claims_run_out(scene, company)
    assert_recovered(scene, company, events)


@check(
    "drill/recovery/database-restarted",
    needs=AGENT,
    after=DELIVERS,
    covers=("K06", "K18"),
    where=Where.REFERENCE,
    phase="last",
    deep=True,
)
def test_database_restarted(scene: Scene, sql_door: SqlDoor) -> None:
    """After the database was killed and started again, the workers and the service go on and nothing is lost.

    What was acknowledged to the producer must be there after a crash.
    """
    company = scene.company(items=6, payload='{"drill": {"delay_ms": 60}}')
    run = str(scene.run(company, max=6)["replay_run_id"])
    events = work(scene, company, 9, 100)
    with processes(scene) as control:
        try:
            control.kill("postgres")
            control.restart("postgres")
        finally:
            control.mend()
            reconnect(scene, sql_door)
    let_claims_run_out(scene, company)
    row = scene.ended(run, within_s=15)
    assert (row["success_count"], row["failure_count"]) == (6, 0), f"after the restart the run counts {row}"
    replayed = [str(r["event_id"]) for r in scene.items(company)]
    assert_recovered(scene, company, events + replayed)


@check(
    "drill/recovery/long-transaction-held-open",
    needs=SQL,
    after=DELIVERS,
    covers=("K09",),
    where=Where.STAGING,
    phase="last",
    deep=True,
)
def test_long_transaction_held_open(scene: Scene) -> None:
    """While a transaction with an old snapshot and rows of its own stays open, its tenant's work goes on.

    A report that runs for an hour must not stop the shop.
    """
    company = scene.company(items=4)
    with scene.transaction() as slow:
        slow.execute("set transaction isolation level repeatable read")
        slow.execute("select count(*) from event_outbox")
        late = scene.write_outbox(company, 3, connection=slow)
        events = scene.write_outbox(company, 12)
        scene.delivered(events)
        run = str(scene.run(company, max=4)["replay_run_id"])
        row = scene.ended(run)
        assert row["success_count"] == 4, f"beside an open transaction a run of 4 items counts {row['success_count']}"
        slow.commit()
    scene.delivered(late)
