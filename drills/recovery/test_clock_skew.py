"""Processes under a wrong wall clock: what is due, whose a claim is, when it is tried again and who has called too
often, the database decides.
"""

from dataclasses import dataclass

from drills.recovery.breakage import assert_recovered, delivery_drill, named, processes, work
from drills.workbench.scene import Scene
from drills.workbench.tenant_data import as_jsonb
from gates.deployment.control import Control
from gates.evidence import Where

SKEW_S = 600.0
"""Ten minutes: more than any lease and any first backoff, and what a machine without time service drifts to."""
NEAR_S = SKEW_S / 2
"""What is decided by the database's clock is off by seconds, what is decided by the worker's by SKEW_S."""
AGENT_MS = 1000
FAR = "1 minute"
"""Not due, or somebody else's, by the database's clock; long past or long to come by the worker's."""

STAMPS = """
select o.event_id::text as event, extract(epoch from o.processed_at - o.inserted_at)::float8 as processed_s,
       extract(epoch from o.next_attempt_at - o.inserted_at)::float8 as due_s
from public.event_outbox o where o.event_id = any(%s::uuid[])
"""
LEASE = """
select extract(epoch from max(claimed_until) - clock_timestamp())::float8
from public.event_outbox where company_id = %s and processed_at is null and dead_at is null and payload
  -> 'drill' ? 'delay_ms'
"""
"""Of the slow events alone: a claim that was put in by hand is not a worker's."""


HIT = "select extract(epoch from max(window_start) - now())::float8 from public.edge_rate_limits where key like %s"


@dataclass(frozen=True)
class Work:
    """What is given to a worker: `keyed` must come in order, `all` must come, `kept_back` must not come yet."""

    keyed: list[str]
    all: list[str]
    kept_back: list[str]


@delivery_drill("drill/recovery/worker-clock-skewed", covers=("K05", "K08", "K15"), where=Where.REFERENCE)
def test_worker_clock_skewed(scene: Scene) -> None:
    """Workers whose clock is ten minutes fast or slow deliver what is due once, in order, and nothing else; a service
    with such a clock selects what is due, and counts calls, by the database's clock.

    A claim timed by the worker's clock is stolen while its owner works, or held for minutes after its owner died.
    """
    with processes(scene) as control:
        for skew_s in (SKEW_S, -SKEW_S):
            company, other = scene.company(), scene.company(items=5)
            scene.tenants.add_items(other, 1, payload='{"drill": {"fail_times": -1}}')
            scene.tenants.add_items(other, 1, retry_after=scene.value("select now() + %s::interval", FAR))
            _set_clocks(scene, control, skew_s)
            given = _give(scene, company)
            lease_s = _lease(scene, company)
            scene.delivered(given.all, when=f" with the workers' clock {skew_s:+g} s wrong")
            _judge_events(scene, given, skew_s)
            _judge_replay(scene, other, skew_s)
            _judge_lease(scene, lease_s, skew_s)
            # what was kept back is due now, and still delivered by the same workers
            scene.rows(
                "update public.event_outbox set claimed_until = null, next_attempt_at = now()"
                " where event_id = any(%s::uuid[])",
                given.kept_back,
            )
            assert_recovered(scene, company, [*given.all, *given.kept_back])


def _set_clocks(scene: Scene, control: Control, skew_s: float) -> None:
    """Start every worker and service with a wrong clock; the second, where there is one, is wrong the other way."""
    names = [*named(control, "worker"), *named(control, "service")]
    for index, name in enumerate(names):
        control.restart(name, clock_s=skew_s if index % 2 == 0 else -skew_s)
    control.wait_ready()
    wrong = [p.clock_s for p in control.processes() if p.name in names and p.pid]
    scene.seen.require(wrong and all(wrong), "the processes could not be started with a wrong clock")
    scene.seen.details["clocks"] = [*wrong]


def _give(scene: Scene, company: str) -> Work:
    """Events of all kinds, one claimed by another, one not due; the slow ones last, as their claims are to be seen."""
    far = scene.value("select now() + %s::interval", FAR)
    kept_back = scene.write_outbox(company, 1, claimed_until=far) + scene.write_outbox(company, 1, next_attempt_at=far)
    retried = scene.write_outbox(company, 2, payload=as_jsonb({"drill": {"fail_times": 1}}))
    keyed = scene.write_outbox(company, 6, aggregate_key="in-order")
    return Work(keyed, [*retried, *keyed, *work(scene, company, AGENT_MS)], kept_back)


def _lease(scene: Scene, company: str) -> float | None:
    """How long, by the database's clock, those claims of a worker last that are seen first; None: none was seen."""
    found: list[float] = []

    def probe() -> bool:
        left_s = scene.value(LEASE, company)
        found.extend([] if left_s is None else [float(left_s)])
        return bool(found)

    scene.until_true(probe, within_s=3)
    return found[0] if found else None


def _judge_events(scene: Scene, given: Work, skew_s: float) -> None:
    """Nothing early, in order, and stamped by the database's clock."""
    early = scene.effects(given.kept_back)
    assert not early, (
        f"with the workers' clock {skew_s:+g} s wrong, {len(early)} of 2 events had their effect that were another's"
        " claim or not yet due by the database's clock"
    )
    scene.in_order(given.keyed)
    stamps = scene.rows(STAMPS, given.all)
    off = [s for s in stamps if not -1 < s["processed_s"] < NEAR_S or not -NEAR_S < (s["due_s"] or 0) < NEAR_S]
    if off:
        scene.seen.witness = [*off[:3]]
    assert not off, (
        f"with the workers' clock {skew_s:+g} s wrong, {len(off)} of {len(stamps)} events have times of processing or"
        " of their next attempt that the database's clock does not give"
    )
    scene.seen.count(len(stamps))


def _judge_replay(scene: Scene, company: str, skew_s: float) -> None:
    """A run of 6 items, of which one fails, ends as it should; the failed one is due again by the database's clock. The
    seventh is not due by it, and the call is counted by it.
    """
    run = str(scene.run(company, max=7)["replay_run_id"])
    row = scene.ended(run)
    if scene.claims("rate-limit"):
        off_s = float(scene.value(HIT, f"replay:{company}:%") or 0)
        assert abs(off_s) < NEAR_S, f"with the clock {skew_s:+g} s wrong, a call is counted {off_s:.0f} s from now"
    counts = (row["status"], row["success_count"], row["failure_count"])
    assert counts == ("completed", 5, 1), f"with the clock {skew_s:+g} s wrong, 5 good items and a bad one: {counts}"
    retry_s = scene.value(
        "select extract(epoch from retry_after - now())::float8 from public.dead_letter_queue"
        " where company_id = %s and status = 'pending' and retry_count > 0",
        company,
    )
    assert retry_s is not None, f"with the clock {skew_s:+g} s wrong, the item that failed is not pending again"
    assert retry_s < NEAR_S, f"with the clock {skew_s:+g} s wrong, a failed item is due again in {retry_s:.0f} s"
    scene.seen.count(6)


def _judge_lease(scene: Scene, lease_s: float | None, skew_s: float) -> None:
    """A claim ends in the near future by the database's clock."""
    if lease_s is None:
        scene.seen.unmet("no claim of a worker was seen: it does not hold events while its agent works")
    assert 0 < lease_s < NEAR_S, (
        f"with its clock {skew_s:+g} s wrong a worker's claim ends in {lease_s:.0f} s by the database's clock;"
        f" allowed: after now, and within {NEAR_S:g} s"
    )
