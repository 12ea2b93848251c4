"""Pause: a paused tenant's events and items wait, nobody else's do, and nothing is lost or reordered."""

import json
import uuid
from functools import partial

import pytest

from drills.workbench.audit_chain import REFUSED
from drills.workbench.checks import DELIVERS, SIGNED, SQL
from drills.workbench.scene import Scene
from drills.workbench.tenant_data import SCRIPTED
from drills.workbench.waiting import PATIENCE_S
from gates.checks.observation import Busy
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.ids import new_id
from gates.deployment.tenants.loans import LiveRow
from gates.deployment.tenants.tenants import OUTBOX_FLAG
from gates.evidence import Where

drill = partial(check, needs=SQL)

MANY = 96


@drill("drill/pause/refuses-replay", after=SIGNED, covers=("E03",))
def test_refuses_replay(scene: Scene) -> None:
    """A paused tenant's replay is 409 agents_paused and touches no item and no budget, however long ago it was paused;
    unpaused, it is admitted.

    A pause that is not read leaves no way to stop a harmful replay; one that lapses lets it go on unasked.
    """
    company = scene.company(items=2)
    before = scene.items(company)
    scene.pause(company)
    scene.replay(company, 409, "agents_paused", max=2)
    scene.rows(
        "update public.agent_controls set updated_at = now() - interval '2 years' where company_id = %s", company
    )
    scene.replay(company, 409, "agents_paused", label="paused two years ago", max=2)
    assert scene.items(company) == before, "the refused replay changed the tenant's items"
    scene.charged(company, 0)
    scene.pause(company, on=False)
    scene.run(company, max=1)


@drill("drill/pause/counts-from-the-next-request", after=SIGNED, covers=("E03",))
def test_counts_from_the_next_request(scene: Scene) -> None:
    """A tenant that is paused between two requests is refused at the second, and admitted once it is not paused,
    also where its row is gone.

    A pause that is kept in memory for a minute comes a minute late, and ends a minute late.
    """
    company, other = scene.company(items=2), scene.company("b")
    scene.everywhere(company, control=True, max=1, dry_run=True)
    scene.pause(company)
    scene.everywhere(company, 409, "agents_paused", max=1)
    scene.pause(company, on=False)
    scene.run(other, max=1, dry_run=True)
    scene.everywhere(company, max=1)
    scene.pause(other)
    scene.replay(other, 409, "agents_paused", max=1)
    scene.rows("delete from public.agent_controls where company_id = %s", other)
    scene.replay(other, label="with its own row gone", max=1)


@drill("drill/pause/force-does-not-ignore-it", after=SIGNED, covers=("E03",))
def test_force_does_not_ignore_it(scene: Scene) -> None:
    """`force` does not get past a pause.

    It is meant for retry_after alone; an operator in a hurry must not undo another operator's stop.
    """
    company = scene.company(items=1)
    scene.pause(company)
    scene.replay(company, 409, "agents_paused", max=1, force=True)
    scene.pause(company, on=False)
    scene.run(company, max=1, force=True)


@drill("drill/pause/dry-run-refused-too", after=SIGNED, covers=("E03", "F09"))
def test_dry_run_refused_too(scene: Scene) -> None:
    """A dry run of a paused tenant is refused like the real run.

    A preview that shows what the real run would refuse misleads the operator.
    """
    company = scene.company(items=1)
    scene.pause(company)
    scene.replay(company, 409, "agents_paused", max=1, dry_run=True)
    scene.pause(company, on=False)
    scene.run(company, max=1, dry_run=True)


@drill("drill/pause/touches-only-its-tenant", after=SIGNED, covers=("E03",))
def test_touches_only_its_tenant(scene: Scene) -> None:
    """One tenant's pause stops no other tenant, and is not told to one that is paused, too.

    One customer's incident stops all customers, or is known to them.
    """
    paused, other = scene.company("a", items=1), scene.company("b", items=1)
    scene.pause(paused)
    if current().has("agent_controls", "pause_reason"):
        scene.rows("update public.agent_controls set pause_reason = company_id::text where company_id = %s", paused)
    scene.replay(paused, 409, "agents_paused", max=1)
    scene.seen.control("the pause is in force for its own tenant")
    scene.replay(other, max=1).json()
    scene.pause(other)
    told = scene.replay(other, 409, "agents_paused", max=1).body
    assert paused.lower().encode() not in told.lower(), (
        f"the refusal of a paused tenant tells of another: {told[:400]!r}"
    )


@drill("drill/pause/a-row-that-says-no-is-no-pause", after=SIGNED, covers=("E03",))
def test_a_row_that_says_no_is_no_pause(scene: Scene) -> None:
    """A tenant with a row that says it is not paused is not paused, nor are its events without the outbox.

    A service that checks only for the row keeps a tenant stopped after its first pause.
    """
    company, paused = scene.company("a", items=1), scene.company("b", items=1)
    scene.pause(company, on=False)
    scene.pause(paused)
    scene.replay(paused, 409, "agents_paused", max=1)
    scene.seen.control("a row that says paused pauses")
    scene.replay(company, max=1).json()
    event = str(scene.emit(company)["event_id"])
    scene.delivered([event])
    if scene.claims("flags"):
        scene.set_flag(company, OUTBOX_FLAG, enabled=False)
        path = scene.emit(company)["path"]
        assert path == "direct", f"an event of a tenant that is not paused, and has no outbox, took the path {path!r}"


@drill("drill/pause/burns-no-key", after=SIGNED, covers=("E03", "D10"))
def test_burns_no_key(scene: Scene) -> None:
    """A replay refused by a pause stores no key: the same request works once the tenant is unpaused.

    The retry after the incident silently does nothing.
    """
    company = scene.company(items=1)
    key = str(uuid.uuid4())
    scene.pause(company)
    scene.replay(company, 409, "agents_paused", max=1, idempotency_key=key)
    scene.pause(company, on=False)
    answer = scene.replay(company, max=1, idempotency_key=key, control=True).json()
    assert answer["duplicate"] is False, "the retry is called a duplicate of the refused request"
    assert answer["target_count"] == 1, f"the retry took {answer['target_count']} items; 1 was due"


@drill("drill/pause/events-go-to-the-outbox", after=DELIVERS, covers=("E03",))
def test_events_go_to_the_outbox(scene: Scene) -> None:
    """While a tenant is paused its events are accepted into the outbox and wait there, while others are delivered.

    A pause that drops or delivers events is an outage, or no pause.
    """
    paused, other = scene.company("a"), scene.company("b")
    scene.delivered([str(scene.emit(paused, control=True)["event_id"])])  # a relay knows it, as one that is not paused
    scene.pause(paused)
    scene.passes_by(other, 1)
    answers = [scene.emit(paused, key="k", payload={"n": n}) for n in range(3)]
    paths = {a["path"] for a in answers}
    assert paths == {"outbox"}, f"events of a paused tenant took the paths {sorted(paths)}"
    tried = scene.write_each_kind(paused, attempts=1)  # before the pause, once
    # so many that one is taken together with that of the paused tenant, however a relay divides them
    scene.delivered(scene.write_outbox(other, MANY, payload=SCRIPTED))
    scene.passes_by(other)
    events = [*(str(a["event_id"]) for a in answers), *tried]
    early = scene.effects(events)
    assert not early, f"{len(early)} of 5 events of a paused tenant had their effect"
    rows = scene.count("event_outbox", paused, "processed_at is null")
    assert rows == 5, f"{rows} of the 5 events wait in the outbox"
    scene.seen.count(5)


@drill("drill/pause/switched-off-and-paused-go-to-the-outbox", after=DELIVERS, covers=("E03", "H01"))
def test_switched_off_and_paused_go_to_the_outbox(scene: Scene) -> None:
    """A tenant that is paused and has `outbox.enabled` off has no effect while it is paused: its events wait.

    The contract says that a paused tenant's events go to the outbox; the direct path would work through the pause.
    """
    company, other = scene.company("a"), scene.company("b")
    scene.set_flag(company, "outbox.enabled", enabled=False)
    direct = scene.emit(company, control=True)
    scene.seen.require(direct["path"] == "direct", "the twin that is not paused did not take the direct path")
    scene.pause(company)
    answer = scene.emit(company)
    assert answer["path"] == "outbox", f"an event of a paused tenant took the path {answer['path']!r}"
    scene.passes_by(other, 2)
    assert not scene.effects([str(answer["event_id"])]), "an event of a paused tenant had its effect"


@drill("drill/pause/held-events-follow-in-order", after=DELIVERS, covers=("E03", "K11"))
def test_held_events_follow_in_order(scene: Scene) -> None:
    """After a pause, the events held are delivered, each once and in order within their key, new ones after them, and
    none before it is due.

    A pause that loses or reorders events turns every maintenance into an incident.
    """
    company, other = scene.company("a"), scene.company("b")
    scene.pause(company)
    events = [str(scene.emit(company, key="k", payload={"n": n})["event_id"]) for n in range(6)]
    put_off = scene.write_outbox(company, next_attempt_at=scene.value("select now() + interval '1 hour'"))
    scene.passes_by(other, 2)
    scene.seen.require(not scene.effects(events), "the events were not held: drill/pause/events-go-to-the-outbox")
    scene.pause(company, on=False)
    events.append(str(scene.emit(company, key="k", payload={"n": 6})["event_id"]))
    scene.delivered(events)
    scene.in_order(events)
    assert not scene.effects(put_off), "after the pause an event was delivered an hour before it is due"


@pytest.mark.waits(1)
@drill("drill/pause/stops-a-running-replay", needs=("database", "drill-agent"), after=DELIVERS, covers=("E03", "E04"))
def test_stops_a_running_replay(scene: Scene) -> None:
    """A pause during a replay, even a forced one, lets at most the ten items in flight finish and holds the rest;
    unpaused, even after two days, all is done. Meanwhile the run is read as ever. Where what is in flight fails, the
    run is stopped, and the rest is refunded.

    A pause that is read only at the start does not stop the replay that does harm.
    """
    scene.claims_drill_agent()
    delay_ms = round(150 + 3000 * scene.trip_s)  # of each ten: from afar the pause comes later
    company = scene.company("a", items=30, payload=json.dumps({"drill": {"delay_ms": delay_ms}}))
    other = scene.company("b", items=2)
    failing = scene.company("c", items=30, payload=json.dumps({"drill": {"fail_times": -1, "delay_ms": 1000}}))
    stopped = str(scene.run(failing, max=30)["replay_run_id"])
    run = str(scene.run(company, max=30, **scene.known(force=True))["replay_run_id"])
    done = "select count(*) as items from public.event_outbox where replay_run_id = %s and processed_at is not null"
    scene.until(lambda: scene.number(done, run) >= 1, "the first item of the run")
    with scene.db.at_once() as commit:
        scene.pause(company)
        scene.pause(failing)
        commit()  # which may wait for a standby: until it is done nobody can know of the pause
        counted = scene.db.execute(done.encode(), (run,))
    at_pause = int(str((counted.fetchone() or {}).get("items", 30)))
    scene.seen.require(at_pause < 20, f"{at_pause} of 30 items were done when the pause came: none was left to hold")
    scene.quiet(company)
    scene.passes_by(other)
    after = scene.number(done, run)
    scene.seen.value(after - at_pause, 10, "items")
    said = f"{after - at_pause} items were delivered after the pause; at most 10 are in flight"
    if after - at_pause > 10 and scene.crowd.others_drill():
        raise Busy(f"{said}. Beside other drills, a worker that had begun to claim before the pause may end after it")
    assert after - at_pause <= 10, said
    status = scene.value("select status from public.replay_runs where id = %s", run)
    assert status == "started", f"the paused run is {status!r} with {30 - after} items to go"
    if current().has("replay_runs", "completed_at"):
        ended_at = scene.value("select completed_at from public.replay_runs where id = %s", run)
        assert ended_at is None, f"the paused run has completed_at {ended_at} with {30 - after} items to go"
    if current().has("replay_runs", "requested_at"):
        scene.rows("update public.replay_runs set requested_at = requested_at - interval '2 days' where id = %s", run)
    _is_held(scene, run, company, other)
    assert scene.number(done, run) == after, "the paused run went on, beside another tenant's"
    if scene.claims("flags"):
        scene.set_flag(company, OUTBOX_FLAG, enabled=False)
        scene.pause(company, on=False)
        _is_held(scene, run, company, other)
        assert scene.number(done, run) == after, "the run went on, not paused, but switched off"
        scene.set_flag(company, OUTBOX_FLAG, enabled=True)
    scene.pause(company, on=False)
    row = scene.ended(run, within_s=12 + 0.03 * delay_ms)  # a worker may take the items one after another
    assert (row["success_count"], row["failure_count"]) == (30, 0), f"after the pause the run counts {row}"
    _is_stopped(scene, failing, stopped)
    scene.seen.count(30)


def _is_stopped(scene: Scene, company: str, run: str) -> None:
    """The claim: a run whose items failed in a pause is stopped, and its tenant charged for what was attempted."""
    scene.pause(company, on=False)
    end = scene.ended(run)
    assert end["status"] == "stopped", f"a run whose items all failed, some in a pause, is {end['status']!r}"
    scene.charged(company, end["success_count"] + end["failure_count"], "a run that was stopped in a pause")


def _is_held(scene: Scene, run: str, company: str, other: str) -> None:
    """The claim: a run is found, whatever holds it, where runs can be read; beside another tenant's run, what of it
    waits stays `replaying`: nobody may take it a second time.
    """
    if "/dlq-replay/{replay_run_id}" not in current().lacking:
        scene.seen.expect(*scene.get_run(run, company), 200)
    scene.ended(str(scene.run(other, max=1)["replay_run_id"]))
    scene.quiet(company)
    held, open_ = scene.unfinished(run), scene.count("dead_letter_queue", company, "status = 'replaying'")
    assert open_ == held, (
        f"{held} outbox rows of a run that is held are waiting, and {open_} of its items are replaying"
    )


def _waiting_in_a_run(scene: Scene, company: str) -> list[str]:
    """The event of an item that a run has taken and that waits for an older one of its key; empty where it does not."""
    event = new_id("event")
    scene.write_outbox(company, 1, aggregate_key="k", next_attempt_at=scene.value("select now() + interval '1 hour'"))
    scene.add_items(company, 1, event_id=event, aggregate_key="k")
    scene.run(company, max=1)
    scene.passes_by(company, 1)
    return [] if scene.effects([event]) else [event]


@drill("drill/pause/fleet", after=DELIVERS, covers=("E03", "E09"), where=Where.DISRUPTIVE, phase="last")
def test_fleet(scene: Scene) -> None:
    """The emergency statement, which pauses all agents, stops replays and deliveries of every tenant until it is
    undone: forced and dry ones, what a run has to go, also of a tenant whose own row says that it is not paused, and
    the direct path of one whose outbox is off. A tenant that was paused before stays paused afterwards.

    It is the last brake of the checklist's emergency procedure.
    """
    company, own, direct = scene.company("a", items=1), scene.company("b", items=1), scene.company("c")
    waiting = _waiting_in_a_run(scene, under_way := scene.company("d"))
    scene.pause(own, on=False)
    scene.pause(direct, on=False)
    scene.pause(kept := scene.company("e", items=1))
    if scene.claims("flags"):
        scene.set_flag(direct, OUTBOX_FLAG, enabled=False)
    scene.seen.require(
        scene.number("select count(*) from public.agent_controls where company_id is null") == 1,
        "agent_controls has no row for everybody",
    )
    with scene.lent(LiveRow(), agents_paused=True, pause_reason="a drill of the gate"):
        scene.replay(company, 409, "agents_paused", max=1)
        scene.replay(company, 409, "agents_paused", max=1, force=True)
        spared = scene.replay_request(own, max=1).labelled("pause of everybody, own row without one")
        scene.expect(spared, 409, "agents_paused")
        scene.replay(company, 409, "agents_paused", max=1, dry_run=True)
        scene.rows("update public.event_outbox set aggregate_key = null where company_id = %s", under_way)
        event = str(scene.emit(company)["event_id"])
        path = scene.emit(direct)["path"]
        assert path == "outbox", f"while the fleet is paused an event of a tenant without outbox took the path {path!r}"
        written = [*scene.write_outbox(company, 2), *scene.write_outbox(own, 1), *waiting]
        scene.quiet(company, within_s=1.0)
        early = scene.effects([event, *written])
        assert not early, f"{len(early)} of {1 + len(written)} events were delivered while the fleet was paused"
    scene.delivered([event, *written])
    if scene.claims("audit"):
        told = scene.until_true(lambda: len(scene.audit(company, REFUSED)) == 3, within_s=PATIENCE_S)
        assert told, f"three refusals by the pause of everybody left {len(scene.audit(company, REFUSED))} audit rows"
    scene.replay(kept, 409, "agents_paused", label="paused before everybody was", max=1)
    scene.reset_limit(company)
    scene.run(company, max=1)
