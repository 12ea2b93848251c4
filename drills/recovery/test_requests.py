"""Requests under fire: a service killed, or cut off, in the middle of a request leaves all of it or nothing."""

import time
from concurrent.futures import Future
from functools import partial

from drills.recovery.breakage import (
    kill_all,
    processes,
    request_drill,
    terminate_backends,
    terminate_once_there,
    terminate_waiting_for,
)
from drills.workbench.scene import Scene, new_key
from gates.deployment.http.client import NoAnswer
from gates.deployment.ids import new_id
from gates.deployment.requests import Answer
from gates.deployment.sql.database import Connection, backend_of, execute
from gates.evidence import Where

HELD_S = 3.0
SERVICE = "replay_service"
AFTER_S, SESSIONS = 0.5, 8
"""Sessions are ended for so long after the run is there. None is left once so many requests in a row are accepted."""
ENDINGS_S, MOST_SESSIONS, BACK_S = 10.0, 60, 15.0
"""For so long, and so many, sessions of the service are ended; after so long it must have new ones."""


def _outcome(future: Future[Answer]) -> int:
    """The status of a request that was disturbed; 0 where it has no answer."""
    try:
        return future.result().status
    except NoAnswer:
        return 0


def _whole_or_nothing(scene: Scene, company: str, key: str, status: int) -> None:
    """A disturbed replay moved all of its items under one run, or none; its repetition gives one effect."""
    runs = scene.count("replay_runs", company)
    moved = scene.count("event_outbox", company)
    assert (runs, moved) in {(0, 0), (1, 3)}, f"the disturbed replay ({status}) left {runs} runs and {moved} of 3 items"
    scene.charged(company, moved)
    assert status != 200 or runs == 1, "the replay was answered 200 and left no run"
    scene.reset_limit(company)
    answer = scene.replay(company, max=3, idempotency_key=key).json()
    assert answer["duplicate"] is (runs == 1), f"the repetition says duplicate {answer['duplicate']} after {runs} runs"
    told, due = sorted(answer.get("items") or []), sorted(str(r["id"]) for r in scene.items(company))
    assert told == due, f"the repetition names {len(told)} of 3 items: the answer is not stored with the effect"
    scene.ended(str(answer["replay_run_id"]))
    rows = scene.count("event_outbox", company)
    states = {str(r["status"]) for r in scene.items(company)}
    assert (rows, states) == (3, {"resolved"}), f"after the repetition: {rows} outbox rows of 3, items {sorted(states)}"
    scene.seen.control("the repetition with the same key was accepted")
    scene.seen.count(3)


@request_drill("drill/recovery/replay-session-ended", covers=("D11", "L11"), where=Where.STAGING)
def test_replay_session_ended(scene: Scene) -> None:
    """A replay whose database session is ended in one of its phases, or right after its run was written, leaves all
    or nothing, its key and its answer included.

    A key without an effect makes the retry do nothing; an effect without a key makes it do everything again; without
    the answer nobody learns what was moved.
    """
    phases = []
    if scene.claims("budgets"):
        phases.append(("replay_budgets", "company_id = %s"))
    if scene.claims("audit"):
        phases.append(("audit_heads", "scope = %s"))
    scene.seen.require(phases, "a replay waits for neither a budget nor the head of a trail: it cannot be held")
    for table, where in phases:
        company = scene.company(items=3)
        scene.budget(company, daily_limit=50)
        # so that the scope has a head to be waited for
        scene.run(company, max=3, dry_run=True)
        key = new_key()
        with scene.transaction() as held:
            execute(held, f"select from public.{table} where {where} for update", company)
            running = scene.in_background(scene.replay_request(company, max=3, idempotency_key=key))
            if scene.somebody_waits(held, within_s=HELD_S):
                terminate_waiting_for(scene, backend_of(held))
            held.rollback()
        _whole_or_nothing(scene, company, key, _outcome(running))
    company, beside, key = scene.company(items=3), scene.company("beside"), new_key()
    running = scene.in_background(scene.replay_request(company, max=3, idempotency_key=key))
    any_ended, deadline = False, time.monotonic() + HELD_S
    while time.monotonic() < deadline:  # no sleep: a commit that follows the run must be caught
        if terminate_once_there(scene, SERVICE, company) and not any_ended:
            any_ended, deadline = True, time.monotonic() + AFTER_S
    status = _outcome(running)
    scene.seen.require(any_ended, f"no session of the service was ended within {HELD_S:g} s of the replay")
    if not scene.until_true(lambda: _back(scene, beside), within_s=BACK_S):
        _answers_again(scene, beside, "some")
    _whole_or_nothing(scene, company, key, status)


def _back(scene: Scene, company: str) -> bool:
    """Whether the service has found out which of its sessions were ended."""
    return all(scene.http.send(scene.event_request(company)).status == 202 for _ in range(SESSIONS))


def _answers_again(scene: Scene, company: str, ended: str) -> None:
    answers = partial(scene.http.send, scene.event_request(company))
    assert scene.until_true(lambda: answers().status == 202, within_s=BACK_S), (
        f"after {ended} of its database sessions were ended the service answers {answers().status}; due: 202"
    )


@request_drill("drill/recovery/service-sessions-ended", covers=("D11", "K18"), where=Where.STAGING)
def test_service_sessions_ended(scene: Scene) -> None:
    """A service whose idle database sessions are ended, again and again, answers as before.

    Each failover ends all sessions; a pool that counts them as lent is soon empty, until somebody restarts the service.
    """
    company, ended = scene.company(), 0
    scene.emit(company, control=True)
    deadline = time.monotonic() + ENDINGS_S
    while ended < MOST_SESSIONS and time.monotonic() < deadline:
        ended += scene.until_true(lambda: _idle(scene) > 0, within_s=0.5) and terminate_backends(scene, SERVICE)
        scene.http.send(scene.event_request(company))  # whatever the answer is: it finds out
    scene.seen.require(ended, f"no session of {SERVICE} was found to end")
    scene.seen.details["sessions ended"] = ended
    _answers_again(scene, company, str(ended))
    scene.delivered([str(scene.emit(company)["event_id"])])
    scene.seen.count(ended)


def _idle(scene: Scene) -> int:
    # the state of another's session is null for a login that may not end it, which terminate_backends says
    idle = "select count(*) from pg_stat_activity where usename = %s and coalesce(state, 'idle') = 'idle'"
    return scene.number(idle, SERVICE)


@request_drill("drill/recovery/service-killed-in-a-replay", covers=("D11", "L11"), where=Where.REFERENCE)
def test_service_killed_in_a_replay(scene: Scene) -> None:
    """A service killed in the middle of a replay leaves all or nothing; the same request, sent again, has one effect.
    What was replayed before is charged, is answered as a duplicate, and counts for the limit; a run that is under way
    goes on.

    After a crash nobody knows whether the request was done; only its key can tell.
    """
    company, before, key = scene.company(items=3), scene.company("before", items=1), new_key()
    first = scene.run(before, max=1, idempotency_key=key)
    scene.budget(company, daily_limit=50)
    going = scene.company("going")
    scene.add_blocked(going)
    under_way = str(scene.run(going, max=1)["replay_run_id"])
    with processes(scene) as control:
        with scene.locked("replay_budgets", company) as held:
            running = scene.in_background(scene.replay_request(company, max=3, idempotency_key=key))
            scene.seen.require(
                scene.somebody_waits(held, within_s=HELD_S), "the replay does not wait for its budget row"
            )
            kill_all(control, "service")
            held.rollback()
        status = _outcome(running)
    scene.until_true(lambda: _settled(scene), within_s=5)
    _whole_or_nothing(scene, company, key, status)
    again = scene.replay(before, label="sent again after a restart", max=1, idempotency_key=key).json()
    told = (again["duplicate"], again["items"])
    assert told == (True, first["items"]), f"sent again after a restart, a replay is (duplicate, items) {told}"
    scene.charged(before, 1, "after a restart")
    scene.still_under_way(going, under_way, "a start of the service")
    if scene.claims("rate-limit"):
        scene.replay(before, label="the third call, two after a restart", max=1)
        scene.replay(before, 429, "rate_limited", label="the fourth call, three after a restart", max=1)


def _settled(scene: Scene) -> bool:
    """Whether no session of the service is in a transaction: PostgreSQL has seen that its client is gone."""
    ask = "select count(*) from pg_stat_activity where usename = %s and xact_start is not null"
    return scene.number(ask, SERVICE) == 0


@request_drill("drill/recovery/event-session-ended", covers=("K02", "K03"), where=Where.REFERENCE)
def test_event_session_ended(scene: Scene) -> None:
    """An event whose database session is ended while it waits for either table leaves both rows or neither.

    Half an event is a business row that nobody is told of, or news of one that does not exist.
    """
    for table in ("event_outbox", "events"):
        company, event = scene.company(), new_id("event")
        with scene.transaction() as held:
            execute(held, f"lock table public.{table} in exclusive mode")
            running = scene.in_background(scene.event_request(company, event_id=event))
            waits = scene.somebody_waits(held, within_s=HELD_S)
            deadline = time.monotonic() + 0.5
            while waits and time.monotonic() < deadline and not _ours_waits(scene, held):
                time.sleep(0.02)
            terminate_waiting_for(scene, backend_of(held))
            held.rollback()
        status = _outcome(running)
        business = scene.number("select count(*) from public.events where id = %s", event)
        rows = scene.number("select count(*) from public.event_outbox where event_id = %s", event)
        assert (business, rows) in {(0, 0), (1, 1)}, f"the event ({status}) left {business} and {rows} rows"
        assert status != 202 or business == 1, "the event was accepted and left no row"
        again = scene.emit(company, event_id=event, control=True)
        assert again["duplicate"] is (business == 1), f"sent again, it is called duplicate: {again['duplicate']}"
        scene.delivered([event])


def _ours_waits(scene: Scene, held: Connection) -> bool:
    ask = "select count(*) from pg_stat_activity where usename = 'replay_service' and %s = any(pg_blocking_pids(pid))"
    return scene.number(ask, backend_of(held)) > 0
