"""Flags: every switch is wired, both ways, per tenant, and the rollout is the formula of the contract."""

import uuid
from contextlib import nullcontext
from functools import partial

import pytest

from drills.workbench.checks import AGENT, DELIVERS, SIGNED, SQL
from drills.workbench.credentials import REPLAY
from drills.workbench.scene import Scene
from drills.workbench.tenant_data import BUDGET_FLAG, as_jsonb, large_payload
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.http.client import HttpDoor
from gates.deployment.ids import new_id
from gates.deployment.requests import encode_body, replay_fields
from gates.deployment.sql.database import execute, value
from gates.deployment.tenants.loans import LiveRow
from gates.deployment.tenants.tenants import OUTBOX_FLAG, REPLAY_FLAG
from gates.evidence import Severity, Where

pytestmark = pytest.mark.beside_load

drill = partial(check, needs=SQL, after=SIGNED)

V2_FLAG = "security.signing_v2_required"
SAME_EFFECT = """
insert into public.agent_tasks (company_id, agent_name, event_id, status) values (%s, 'drill', %s, 'completed')
"""
FAILED_TASK = SAME_EFFECT.replace("completed", "failed")
SLOW, SLOW_S = "drill.slow", 5
"""The type and the delay of an event that a proxy may lose patience with."""
OF_TYPE = "select count(*) from public.events where company_id = %s and event_type = %s"
EVENTS = "select count(*) from public.events e where e.id = %s"
HALF_AN_EVENT = f"""
{EVENTS} and not exists (select from public.agent_tasks t where t.event_id = e.id and t.status = 'completed')
"""


def _stops_replays(scene: Scene, flag: str) -> None:
    """Off for a tenant, the flag has its replays refused, by name, without an effect; on again, they are admitted. So
    they are when the row that switched it off is gone, where that leaves the flag on.

    It is on at first: what any process read then must not count afterwards.
    """
    company = scene.company()
    scene.everywhere(company, label="switched on", control=True, max=1)
    scene.add_items(company, 2)
    scene.set_flag(company, flag, enabled=False)
    scene.everywhere(company, 403, "feature_disabled", label="switched off", max=1)
    answer = scene.replay(company, 403, "feature_disabled", label="switched off", max=1)
    assert answer.says(real := current().flag_keys.get(flag, flag)), f"the refusal does not name the flag {real}"
    states = [r["status"] for r in scene.items(company)]
    assert set(states) == {"pending"}, f"the refused replay left items {states}; due: pending"
    scene.set_flag(company, flag, enabled=True)
    scene.everywhere(company, label="switched on again", max=1)
    gone = scene.company("gone")
    scene.set_flag(gone, flag, enabled=False)
    scene.replay(gone, 403, "feature_disabled", label="switched off", max=1)
    scene.rows("delete from public.feature_flags where company_id = %s and key = %s", gone, flag)
    if scene.value("select public.is_feature_enabled(%s, %s::uuid)", flag, gone):
        scene.replay(gone, label="with its own row gone", max=1)


@drill("drill/flags/replay-switch-is-wired", covers=("H01",))
def test_replay_switch_is_wired(scene: Scene) -> None:
    """With `dlq.replay.enabled` off for a tenant its replays are 403 feature_disabled; on again, they are admitted. Its
    events are accepted all the same, by the outbox, and have their effects.

    A switch that is not wired, or wired the wrong way round, fails on the night it is needed; one that is wired to
    more stops the tenant's business.
    """
    _stops_replays(scene, REPLAY_FLAG)
    if not current().takes_events:
        return
    company = scene.company("events")
    scene.set_flag(company, REPLAY_FLAG, enabled=False)
    scene.replay(company, 403, "feature_disabled", label="switched off", max=1)
    sent = scene.emit(company)
    path = sent.get("path", "outbox")
    assert path == "outbox", f"an event takes the path {path!r} where replays, and not the outbox, are switched off"
    scene.delivered([str(sent["event_id"])])


@drill("drill/flags/outbox-switch-stops-replays", covers=("H01",))
def test_outbox_switch_stops_replays(scene: Scene) -> None:
    """With `outbox.enabled` off for a tenant its replays are refused, too; on again, they are admitted.

    Replayed items wait in an outbox that is switched off.
    """
    _stops_replays(scene, OUTBOX_FLAG)


@drill("drill/flags/outbox-off-takes-direct-path", covers=("H01",))
def test_outbox_off_takes_direct_path(scene: Scene) -> None:
    """With `outbox.enabled` off, an event takes the direct path, be it of sixty kilobytes: its effect is there with the
    answer, and its state says so. Sent again, it is a duplicate.

    A rollback that leaves events in a switched-off outbox loses them.
    """
    company = scene.company()
    on = scene.emit(company, control=True)
    scene.seen.require(on["path"] == "outbox", "with the flag on, the event did not take the outbox")
    scene.write_outbox(company, aggregate_key="k", next_attempt_at=scene.value("select now() + interval '1 hour'"))
    waiting = str(scene.emit(company, key="k")["event_id"])
    waits = scene.event_status(waiting, company).get("status")
    scene.set_flag(company, OUTBOX_FLAG, enabled=False)
    event, payload = new_id("event"), large_payload()
    off = scene.emit(company, event_id=event, payload=payload)
    assert off["path"] == "direct", f"the event took the path {off['path']!r} with the outbox switched off"
    again = scene.emit(company, event_id=event, payload=payload)["duplicate"]
    assert again is True, f"a direct event that is sent again: duplicate is {again!r}"
    kept = "select count(*) from public.events where id = %s and payload = %s::jsonb"
    assert scene.number(kept, event, as_jsonb(payload)), "the payload of a large direct event is not what was sent"
    assert scene.effects([event]) == {event: 1}, "the direct event had no effect when its answer was there"
    queued = scene.number("select count(*) from public.event_outbox where event_id = %s", event)
    assert queued == 0, f"the direct event has {queued} outbox rows"
    shown = scene.event_status(event, company, done=True)
    unsaid = [name for name in ("committed_at", "effect_at") if not shown.get(name)]
    assert not unsaid, f"a direct event had its effect, and its state shows no {' and no '.join(unsaid)}"
    same = shown.get("status") == waits and waiting not in scene.effects([waiting])
    assert not same, f"the status of a direct event that had its effect is {waits!r}, as of one that waits"
    scene.seen.count(2)


@pytest.mark.waits(0.5)
@drill("drill/flags/direct-effect-with-its-event", covers=("K03",))
def test_direct_effect_with_its_event(scene: Scene) -> None:
    """An event on the direct path is stored together with its effect or not at all, even while the effect must wait, or
    where a failed attempt left a task of the event.

    With two transactions, a crash in between leaves an event without its effect.
    """
    company = scene.company()
    scene.set_flag(company, OUTBOX_FLAG, enabled=False)
    path = scene.emit(company, control=True)["path"]
    scene.seen.require(path == "direct", f"switched off, an event took the path {path!r}")
    event = new_id("event")
    with scene.transaction() as held:
        execute(held, SAME_EFFECT, company, event)
        answer = scene.in_background(scene.event_request(company, event_id=event))
        waits = scene.somebody_waits(held, within_s=3)
        half = scene.until_true(lambda: scene.number(HALF_AN_EVENT, event) > 0, within_s=0.5)
        early = answer.done() and answer.result().status == 202 and not scene.number(EVENTS, event)
    scene.until_true(answer.done, within_s=5)
    assert not half, "an event of the direct path was there before its effect"
    assert not early, "an event was accepted before it was written: whoever is killed in between loses it"
    written = scene.number(EVENTS, event)
    scene.seen.require(waits or written, "the event neither waited for the effect's row nor was it written")
    failed = new_id("event")
    if scene.leaves_tasks(scene.company("b")):
        scene.rows(FAILED_TASK, company, failed)
    scene.emit(company, event_id=failed)
    assert scene.effects([failed]), "an accepted event of the direct path, whose task had failed before, has no effect"
    scene.seen.count(2)


@pytest.mark.waits(SLOW_S)
@drill("drill/flags/direct-path-fails-as-a-whole", needs=AGENT, covers=("K03", "H01"), severity=Severity.WARN)
def test_direct_path_fails_as_a_whole(scene: Scene) -> None:
    """If the agent of an event on the direct path fails, the event is not accepted as done and leaves nothing: no
    event, no effect. If the agent takes five seconds, there is one event.

    Without an outbox nobody tries it again: who is told 202 never sends it again, and the work is not done. A proxy
    that sends a slow POST again does the work twice.
    """
    scene.claims_drill_agent()
    company, event = scene.company(), new_id("event")
    scene.set_flag(company, OUTBOX_FLAG, enabled=False)
    always = {"drill": {"fail_times": -1}}
    answer = scene.http.send(scene.event_request(company, event_id=event, event_type="drill.direct", payload=always))
    accepted = answer.status == 202 and answer.json().get("path") == "direct"
    assert not accepted, "an event whose agent always fails was accepted on the direct path"
    left = scene.number(EVENTS, event) + scene.effects([event]).get(event, 0)
    assert answer.status == 202 or not left, f"a refused event of the direct path left {left} rows"
    told = scene.emit(company, control=True, event_type="drill.direct", payload={"drill": {}})
    scene.seen.require(told["path"] == "direct", f"switched off, an event took the path {told['path']!r}")
    slow = scene.in_background(
        scene.event_request(company, event_type=SLOW, payload={"drill": {"delay_ms": SLOW_S * 1000}})
    )
    scene.until_true(lambda: slow.done() and not slow.exception() and slow.result().status == 202, within_s=2 * SLOW_S)
    scene.seen.require(slow.done(), "an event whose agent is slow has no answer")
    found = scene.number(OF_TYPE, company, SLOW)
    assert found <= 1, f"one event whose agent is slow is {found} events: something sends a POST again"
    lost = not found and not slow.exception() and slow.result().status == 202
    assert not lost, "an event whose agent is slow was accepted and is not there"
    scene.seen.count(2)


@drill("drill/flags/outbox-on-takes-outbox", covers=("H01",))
def test_outbox_on_takes_outbox(scene: Scene) -> None:
    """With `outbox.enabled` on, an event is written to the outbox; the same tenant switched off is the twin.

    An inverted flag sends the canary down the old path, and the canary proves nothing.
    """
    company = scene.company()
    scene.set_flag(company, OUTBOX_FLAG, enabled=True)
    on = scene.emit(company)
    assert on["path"] == "outbox", f"the event took the path {on['path']!r} with the outbox switched on"
    rows = scene.number("select count(*) from public.event_outbox where event_id = %s", on["event_id"])
    assert rows == 1, f"the event has {rows} outbox rows"
    scene.set_flag(company, OUTBOX_FLAG, enabled=False)
    off = scene.emit(company)
    scene.seen.require(off["path"] == "direct", "the twin with the flag off did not take the direct path")
    scene.seen.control("the same tenant, switched off, takes the direct path")


@drill("drill/flags/sent-again-on-the-other-path", after=DELIVERS, covers=("H01", "K01", "K10"))
def test_sent_again_on_the_other_path(scene: Scene) -> None:
    """An event that is sent again after its tenant was switched to the other path, or paused, is a duplicate, and done
    once; and not yet where it is held.

    Producers retry during every step of a rollout: an event that is known on one path only is done on both.
    """
    company, events = scene.company(), [new_id("event"), new_id("event")]
    for event, is_on in zip(events, (False, True), strict=True):
        scene.set_flag(company, OUTBOX_FLAG, enabled=is_on)
        scene.emit(company, event_id=event, control=True)
        scene.delivered([event])
        scene.set_flag(company, OUTBOX_FLAG, enabled=not is_on)
        said = scene.emit(company, event_id=event)["duplicate"]
        assert said is True, f"an event that was sent again on the other path: duplicate is {said!r}"
    if scene.claims("pause"):
        scene.pause(company)
        scene.emit(company, event_id=events[0])
        events.append(str(scene.emit(company)["event_id"]))
        scene.pause(company, on=False)
        scene.emit(company, event_id=events[-1])
        assert not scene.effects(events[-1:]), "an event that is held has its effect when it is sent again"
        scene.set_flag(company, OUTBOX_FLAG, enabled=True)
    scene.delivered(events)
    rows = [str(r["event"]) for r in scene.outbox(company)]
    due = f"of an event of the direct path and {len(events) - 1} of the outbox"
    assert rows == events[1:], f"{due}, {len(rows)} outbox rows are left"


@drill("drill/flags/budget-switch-is-wired", covers=("H01",))
def test_budget_switch_is_wired(scene: Scene) -> None:
    """With `dlq.replay.budget_control` off a spent budget refuses nothing; on, and on again, it refuses.

    An operator who lifts the budget in an emergency cannot replay, or the budget stays lifted.
    """
    company = scene.company(items=2)
    scene.budget(company, daily_limit=1, daily_used=1, monthly_used=1)
    refused = (429, "budget_exhausted")
    for label, due in (("on", refused), ("off", (200,)), ("on again", refused)):
        scene.set_flag(company, BUDGET_FLAG, enabled=due == refused)
        taken = scene.replay(company, *due, label=f"budget control switched {label}", max=1).json().get("target_count")
        scene.seen.control("with the switch on, the spent budget refuses")
        assert due == refused or taken == 1, f"{taken} items taken with budget control switched off"


@drill("drill/flags/service-asks-the-function", covers=("H01", "H06"))
def test_service_asks_the_function(scene: Scene) -> None:
    """Where a tenant's row has a percentage, the service does what `is_feature_enabled` says, on either side of it.

    A service that reads the table by itself, and only `enabled`, gives the canary to everybody.
    """
    company = scene.company(items=1)
    for percentage, is_in in scene.both_sides(company, OUTBOX_FLAG):
        path = "outbox" if is_in else "direct"
        got = scene.emit(company)["path"]
        assert got == path, f"at {percentage} % the function says the path {path!r}, and the event took {got!r}"
        due = (200, None) if is_in else (403, "feature_disabled")
        scene.replay(company, *due, label=f"the outbox at {percentage} %", dry_run=True)
    scene.reset_limit(company)
    for percentage, is_in in scene.both_sides(company, REPLAY_FLAG):
        due = (200, None) if is_in else (403, "feature_disabled")
        scene.replay(company, *due, label=f"replays at {percentage} %", dry_run=True)
    if scene.claims("budgets"):
        scene.budget(company, daily_limit=1, daily_used=1, monthly_used=1)
        scene.reset_limit(company)
        for percentage, is_in in scene.both_sides(company, BUDGET_FLAG):
            due = (429, "budget_exhausted") if is_in else (200, None)
            scene.replay(company, *due, label=f"budget control at {percentage} %", dry_run=True)
    scene.seen.control("each flag was asked for on both sides of a percentage")


@drill("drill/flags/override-touches-only-its-tenant", covers=("H06",))
def test_override_touches_only_its_tenant(scene: Scene) -> None:
    """A tenant's override changes that tenant alone.

    A leak switches a feature for customers who were never meant to have, or lose, it.
    """
    one, other = scene.company("a", items=1), scene.company("b", items=1)
    scene.set_flag(one, REPLAY_FLAG, enabled=False)
    scene.set_flag(one, OUTBOX_FLAG, enabled=False)
    scene.replay(one, 403, "feature_disabled", max=1)
    scene.seen.control("the override is in force for its own tenant")
    scene.replay(other, max=1).json()
    assert scene.emit(other)["path"] == "outbox", "another tenant's override sent this tenant down the direct path"


@drill("drill/flags/refused-before-anything-else", covers=("H01",))
def test_refused_before_anything_else(scene: Scene) -> None:
    """A replay refused by a flag stores no key, starts no run and charges nothing. The flag comes first: neither a used
    key nor a pause has another answer.

    A key is burnt, and the retry after switching on does nothing.
    """
    company = scene.company(items=1)
    key = str(uuid.uuid4())
    scene.set_flag(company, REPLAY_FLAG, enabled=False)
    scene.replay(company, 403, "feature_disabled", max=1, idempotency_key=key)
    runs = scene.count("replay_runs", company)
    assert runs == 0, f"the refused replay left {runs} runs"
    scene.charged(company, 0)
    scene.set_flag(company, REPLAY_FLAG, enabled=True)
    answer = scene.replay(company, control=True, max=1, idempotency_key=key).json()
    assert answer["duplicate"] is False, "the refused request's key is taken: its retry was a duplicate"
    scene.set_flag(company, REPLAY_FLAG, enabled=False)
    what = "a key that was used"
    if scene.claims("pause"):
        scene.pause(company)
        what += ", of a paused tenant"
    again = scene.replay(company, (200, 403, 409), label=what, max=1, idempotency_key=key)
    assert again.status == 403, f"with the flag off, {what} is answered {again.status} {again.code}; due: 403"


@drill("drill/flags/change-seen-by-every-instance", covers=("H05",), severity=Severity.WARN)
def test_change_seen_by_every_instance(scene: Scene) -> None:
    """A flag changed by SQL counts from the next request on, whichever instance answers it.

    A stuck cache keeps a rolled-back feature alive on some instances.
    """
    company = scene.company()
    for enabled, path in ((True, "outbox"), (False, "direct"), (True, "outbox"), (False, "direct")):
        scene.set_flag(company, OUTBOX_FLAG, enabled=enabled)
        for _ in range(4):
            request = scene.event_request(company)
            with HttpDoor(scene.target.base_url) as door:  # a new connection may reach another instance
                answer = scene.seen.expect(request, door.send(request), 202)
            got = answer.json().get("path")
            assert got == path, f"after the change to enabled={enabled} an event took the path {got!r}; due: {path!r}"
    scene.seen.control("both paths were taken, each when it was due")


@drill("drill/flags/signing-v2-required", covers=("H01",), where=Where.DISRUPTIVE, phase="last")
def test_signing_v2_required(scene: Scene) -> None:
    """With the global flag `security.signing_v2_required` on, v1 signatures are refused and v2 ones accepted: of a dry
    run, a real and a forced replay, and an event.

    Without it, signatures that never expire stay valid for ever.
    """
    company = scene.company(items=1)
    body, event = encode_body(replay_fields(company, dry_run=True)), scene.event_request(company).body
    v1, event_v1 = scene.signer.v1(REPLAY, body, "signed by v1"), scene.signer.v1("/events", event, "event by v1")
    v2, event_v2 = scene.signer.v2(REPLAY, body, "signed by v2"), scene.signer.v2("/events", event, "event by v2")
    found_on = scene.is_on_for_everybody(V2_FLAG)
    if not found_on:
        scene.expect(v1, 200, control=True)
    with nullcontext() if found_on else scene.lent(LiveRow(V2_FLAG), enabled=True, rollout_percentage=100):
        scene.expect(v1, 401)
        for fields in ({}, scene.known(max=1, force=True, dlq_ids=scene.add_items(company, 1), error_type="timeout")):
            scene.expect(scene.signer.v1(REPLAY, encode_body(replay_fields(company, **fields)), f"v1 {fields}"), 401)
        scene.expect(v2, 200, control=True)
        if current().takes_events:
            scene.expect(event_v1, 401)
            scene.expect(event_v2, 202, control=True)


@drill("drill/flags/unreadable-starts-nothing", covers=("H04",), where=Where.REFERENCE, phase="last", deep=True)
def test_unreadable_starts_nothing(scene: Scene) -> None:
    """While the flags cannot be read, no replay moves an item.

    If unreadable flags count as on, replays run that an operator has switched off.
    """
    company = scene.company(items=2)
    with scene.transaction() as held:
        execute(held, "lock table public.feature_flags in access exclusive mode")
        scene.moves_nothing_while(held, company, within_s=1.0, what="the flags were")
    scene.reset_limit(company)
    scene.replay(company, control=True, dry_run=True)


@check("drill/flags/tenants-cannot-write", needs=SQL, covers=("H07",))
def test_tenants_cannot_write(scene: Scene) -> None:
    """A tenant can change no flag, not even its own override.

    A tenant that switches itself on needs no rollout.
    """
    company = scene.company()
    scene.set_flag(company, REPLAY_FLAG, enabled=False)
    with scene.as_tenant(company) as tenant:
        visible = value(tenant, "select count(*) from public.companies where id = %s", company)
    scene.seen.require(visible == 1, "as role authenticated with its claims, the tenant does not see its own company")
    scene.seen.control("the same role sees its own company")
    for statement in (
        "update public.feature_flags set enabled = true where company_id = %s",
        (
            "insert into public.feature_flags (key, company_id, enabled, rollout_percentage) values"
            " ('drill.own', %s, true, 100)"
        ),
        "delete from public.feature_flags where company_id = %s",
    ):
        changed = scene.changed_as_tenant(company, statement, company)
        assert changed == 0, f"as the tenant, {statement.split(' ', 2)[0]} of its own flag changed {changed} rows"
        scene.seen.count()
