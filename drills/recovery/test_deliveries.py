"""Deliveries under fire: workers killed, frozen and cut off in each phase lose nothing and double nothing."""

import time

from drills.recovery.breakage import (
    assert_recovered,
    delivery_drill,
    kill_all,
    let_claims_run_out,
    named,
    processes,
    reconnect,
    terminate_backends,
    work,
)
from drills.workbench.database import SqlDoor
from drills.workbench.scene import Scene
from drills.workbench.tenant_data import POISON
from gates.evidence import Where

TAKEN = ("in_flight", "processed")
"""Whether a worker marks an event while its agent works, or (wrongly) before, it has taken it up."""

PHASES = (
    ((), 0, 60, "SIGKILL"),  # before a claim
    (TAKEN, 0, 1500, "SIGKILL"),  # just after one
    (TAKEN, 100, 1500, "SIGKILL"),  # while the agent works
    (TAKEN, 60, 60, "SIGKILL"),  # about when it is acknowledged
    (("processed",), 0, 1500, "SIGKILL"),  # some are acknowledged; nothing may be that the agent still works at
    (TAKEN, 0, 5000, "SIGTERM"),  # asked to end while the agent takes longer than it may be waited for
)
"""What is seen of the events before the end, how long is waited then, how long the agent takes for some of them, and
the signal. The longer times are longer than any look at the database on a busy machine.
"""
STANDS_S = 0.5
"""Who is at work on events of 60 ms finishes one within that time."""
TAKEN_S = 10.0
"""So long a worker that was just started may take to begin: others' signs of life do not tell that it has."""
WAKES_MS = 1500
"""The agent of a worker that is frozen is still at it when the worker wakes, and sees its events claimed again."""


def _half_way(scene: Scene, company: str, total: int) -> bool:
    """Whether some events are marked as processed, be it too early, and not all have their effect."""
    done = scene.count("event_outbox", company, "processed_at is not null")
    effects = "select count(*) from public.agent_tasks where company_id = %s and status = 'completed'"
    return done > 0 and scene.number(effects, company) < total


def _rest_is_claimed(scene: Scene, company: str) -> None:
    """Wait until workers are back at work, and get no further with this tenant.

    What is left then was claimed by the workers that were killed. A worker finds it only if it looks again by itself:
    one that starts later would find it when it first looks.
    """
    scene.delivered([str(scene.emit(scene.company("other"))["event_id"])], within_s=TAKEN_S)
    done, since = -1, 0.0

    def probe() -> bool:
        nonlocal done, since
        now = scene.number("select count(processed_at) from public.event_outbox where company_id = %s", company)
        if now != done:
            done, since = now, time.monotonic()
        return time.monotonic() - since > STANDS_S

    scene.until_true(probe, within_s=TAKEN_S)


def _any_is(scene: Scene, company: str, events: list[str], *states: str) -> bool:
    return any(r["state"] in states for r in scene.outbox(company) if r["event"] in events)


@delivery_drill("drill/recovery/worker-killed-in-each-phase", covers=("K06", "K07"), where=Where.REFERENCE)
def test_worker_killed_in_each_phase(scene: Scene) -> None:
    """Workers killed while they claim, while the agent works or while they acknowledge lose no event and double none;
    nor do workers that are asked to end. Those that start again leave alone what is dead, and what is not due.

    Every ordinary deployment kills workers like this.
    """
    company, beside = scene.company(), scene.company("beside")
    (dead,) = scene.write_outbox(beside, dead_at=scene.value("select now()"))
    scene.add_items(beside, 1, event_id=dead)
    later = scene.write_outbox(beside, next_attempt_at=scene.value("select now() + interval '1 hour'"))
    events: list[str] = []
    reached = 0
    with processes(scene) as control:
        for states, wait_ms, delay_ms, signal in PHASES:
            fresh = work(scene, company, delay_ms)
            events += fresh
            reached += not states or _reached(scene, company, fresh, states)
            time.sleep(wait_ms / 1000)
            kill_all(control, "worker", signal)
            control.mend()
            let_claims_run_out(scene, company)
    assert_recovered(scene, company, events)
    left = [(r["state"], r["event"] in scene.effects([dead, *later])) for r in scene.outbox(beside)]
    due = [("dead", False), ("pending", False)]
    assert left == due, f"after a start of the workers a dead and a postponed row (state, has effect) are {left}"
    scene.seen.require(reached == len(PHASES), f"only {reached} of {len(PHASES)} phases were seen before the kill")


def _reached(scene: Scene, company: str, fresh: list[str], states: tuple[str, ...]) -> bool:
    """Wait until a slow event has been taken up, and then until any is in one of the states."""
    slow = fresh[::3]
    taken = scene.until_true(lambda: _any_is(scene, company, slow, *TAKEN), within_s=TAKEN_S)
    return taken and scene.until_true(lambda: _any_is(scene, company, fresh, *states), within_s=TAKEN_S)


@delivery_drill("drill/recovery/worker-killed-in-a-replay", covers=("L11", "K06"), where=Where.REFERENCE)
def test_worker_killed_in_a_replay(scene: Scene) -> None:
    """A replay whose workers are killed half-way goes on where it was: every item once, counts and budget exact. One
    that was being stopped then ends as stopped.

    A run that is stuck half-way leaves its items `replaying` for ever.
    """
    company, failing = scene.company(), scene.company("failing")
    scene.add_items(failing, 5, payload=POISON)
    scene.add_last(failing, '{"drill": {"delay_ms": 5000}}', 20)
    # some take long, so that whenever the kill comes an agent is at work
    delays_ms = (400 if number % 3 == 0 else 60 for number in range(20))
    rows = [{"payload": f'{{"drill": {{"delay_ms": {delay_ms}}}}}'} for delay_ms in delays_ms]
    scene.tenants.add_rows(company, rows)
    going = scene.company("going")
    scene.add_blocked(going)
    waiting = str(scene.run(going, max=1)["replay_run_id"])
    with processes(scene) as control:
        stopped = str(scene.run(failing, max=25)["replay_run_id"])
        stops = scene.until_true(lambda: scene.count("event_outbox", failing) < 25, within_s=TAKEN_S)
        run = str(scene.run(company, max=20)["replay_run_id"])
        half_way = scene.until_true(lambda: _half_way(scene, company, 20), within_s=5)
        kill_all(control, "worker")
    _rest_is_claimed(scene, company)
    scene.still_under_way(going, waiting, "a start of the workers")
    for one in (company, failing):
        let_claims_run_out(scene, one)
    row, end = (scene.ended(one, within_s=15) for one in (run, stopped))
    assert end["status"] == "stopped", f"the run that was being stopped at the kill is {end['status']!r}"
    counts = (row["status"], row["success_count"], row["failure_count"])
    assert counts == ("completed", 20, 0), f"after the kill the run is {counts}"
    scene.charged(company, 20)
    states = {r["status"] for r in scene.items(company)}
    assert states == {"resolved"}, f"after the kill the items are {sorted(states)}"
    twice = scene.rows(
        "select event_id from public.agent_tasks where company_id = %s group by 1 having count(*) > 1", company
    )
    assert not twice, f"{len(twice)} items have more than one effect"
    if scene.claims("audit"):
        ends = [r["action"] for r in scene.audit(company, "dlq_replay_completed", "dlq_replay")]
        assert sorted(ends) == ["dlq_replay", "dlq_replay_completed"], f"the end of the run is audited as {ends}"
    scene.seen.require(half_way, "the replay was not seen half-way: its workers were killed before or after it")
    scene.seen.require(stops, "no run was seen that is being stopped, and its workers were killed before")
    scene.seen.count(20)


@delivery_drill("drill/recovery/worker-frozen-past-its-claim", covers=("K05", "K08"), where=Where.REFERENCE)
def test_worker_frozen_past_its_claim(scene: Scene) -> None:
    """A worker that was frozen until its claims expired, and then goes on, makes no second effect and counts no item of
    a run twice.

    A machine may pause for longer than any lease; a worker that wakes must not act on a claim that it has lost.
    """
    company = scene.company(items=3, payload=f'{{"drill": {{"delay_ms": {WAKES_MS}}}}}')
    with processes(scene) as control:
        run = str(scene.run(company, max=3)["replay_run_id"])
        items = [str(r["event"]) for r in scene.outbox(company)]
        events = work(scene, company, WAKES_MS)
        held = scene.until_true(
            lambda: all(_any_is(scene, company, some, "in_flight") for some in (items, events)), within_s=TAKEN_S
        )
        scene.seen.require(held, "no claim of a worker was seen: it cannot be frozen past it")
        workers = named(control, "worker")
        for worker in workers:
            control.freeze(worker)
        let_claims_run_out(scene, company)
        for worker in workers:
            control.thaw(worker)
        # what was claimed a second time ends later than what the worker was at when it was frozen
        assert_recovered(scene, company, events + items, settle_s=WAKES_MS / 1000)
    row = scene.ended(run)
    counts = (row["status"], row["success_count"], row["failure_count"])
    assert counts == ("completed", 3, 0), f"the run of 3 items, claimed twice, is {counts}"


@delivery_drill("drill/recovery/worker-sessions-ended", covers=("K06", "K20"), where=Where.STAGING)
def test_worker_sessions_ended(scene: Scene) -> None:
    """Workers whose database sessions are ended, again and again, come back and deliver everything once.

    A failover ends every session; if a worker does not reconnect, only its backlog shows it. The listening session is
    ended, too: notices are lost.
    """
    company = scene.company()
    events: list[str] = []
    for round_, wait_ms in enumerate((0, 30, 100)):
        events += work(scene, company, 100)
        time.sleep(wait_ms / 1000)
        ended = scene.until_true(lambda: terminate_backends(scene, "replay_worker") > 0, within_s=5)
        # in later rounds, workers without sessions are the defect: they did not reconnect
        scene.seen.require(ended or round_, "no session of replay_worker was found to end")
        let_claims_run_out(scene, company)
    assert_recovered(scene, company, events)


@delivery_drill("drill/recovery/database-restarted", covers=("K06", "K18"), where=Where.REFERENCE)
def test_database_restarted(scene: Scene, sql_door: SqlDoor) -> None:
    """After the database was killed and started again, the workers and the service go on and nothing is lost.

    A crash of the database loses events that producers were told are accepted.
    """
    company = scene.company(items=6, payload='{"drill": {"delay_ms": 60}}')
    run = str(scene.run(company, max=6)["replay_run_id"])
    events = work(scene, company, 300)
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


@delivery_drill("drill/recovery/long-transaction-held-open", needs=("database",), covers=("K09",), where=Where.STAGING)
def test_long_transaction_held_open(scene: Scene) -> None:
    """While a transaction with an old snapshot and rows of its own stays open, its tenant's work goes on.

    A report that runs for an hour stops the deliveries of its tenant.
    """
    company = scene.company(items=4)
    with scene.transaction() as slow:
        slow.execute("set transaction isolation level repeatable read")
        slow.execute("select count(*) from public.event_outbox")
        late = scene.write_outbox(company, 3, connection=slow)
        events = scene.write_outbox(company, 12)
        scene.delivered(events)
        run = str(scene.run(company, max=4)["replay_run_id"])
        row = scene.ended(run)
        assert row["success_count"] == 4, f"beside an open transaction a run of 4 items counts {row['success_count']}"
        slow.commit()
    scene.delivered(late)


@delivery_drill("drill/recovery/notice-lost", needs=("database",), covers=("K20",), where=Where.REFERENCE)
def test_notice_lost(scene: Scene) -> None:
    """Events that are committed without a notice are delivered all the same, once, as quickly as any other.

    A notice is lost with the session that listens; a worker that waits for the next one delays these events.
    """
    company = scene.company()
    with scene.transaction() as silent:
        # triggers do not fire for a replica's writes, so that nobody is told
        silent.execute("set local session_replication_role = replica")
        events = scene.write_outbox(company, 3, connection=silent)
        events += scene.write_outbox(company, 3, connection=silent, aggregate_key="k")
        silent.commit()
    scene.delivered(events)
    assert_recovered(scene, company, events)
