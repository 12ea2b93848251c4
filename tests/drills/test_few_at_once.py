"""The drills pass on workers with little concurrency: the contract promises no number."""

import dataclasses
import os
from pathlib import Path

from faults.altered import altered_worker
from gates.stack.plan import StackOptions
from gates.stack.stack import reference_stack
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings
from tests.drills.examination import examine, not_passed

CLAIMED_BY_OTHERS = (
    "drill/outbox/claimed-by-another",
    "drill/outbox/follower-of-a-claimed-row",
    "drill/outbox/replay-waits-for-its-key",
    "drill/dlq/event-still-in-the-outbox",
)
IN_FLIGHT = """(SELECT count(*) FROM public.event_outbox f WHERE f.company_id = {} AND f.claimed_until > now()
    AND f.processed_at IS NULL AND f.dead_at IS NULL)"""


def one_of_a_tenant(settings: WorkerSettings) -> WorkerParts:
    """A worker that takes a tenant's event only while no other of that tenant is claimed."""
    of_events = f"WHERE NOT a.is_item AND 0 = {IN_FLIGHT.format('a.company_id')}"
    of_run = "(SELECT r.company_id FROM public.replay_runs r WHERE r.id = e.replay_run_id)"
    of_items = f"WHERE 0 = {IN_FLIGHT.format(of_run)} AND e.replay_run_id BETWEEN r.id AND r.id"
    parts = altered_worker(
        settings,
        ("claim_events", "WHERE NOT a.is_item", of_events),
        ("claim_events", "LIMIT %(slots)s", "LIMIT least(%(slots)s, 1)"),
        ("claim_items", "WHERE e.replay_run_id BETWEEN r.id AND r.id", of_items),
        ("claim_items", "LIMIT %(slots)s", "LIMIT least(%(slots)s, 1)"),
    )
    return dataclasses.replace(parts, has_fast_path=False)


def test_one_event_of_a_tenant_at_once(tmp_path: Path) -> None:
    """A worker may wait for events of the tenant that other relays have claimed."""
    own = ("--parts", f"tests.drills.{Path(__file__).stem}:{one_of_a_tenant.__name__}")
    with reference_stack(StackOptions(history=False, work_arguments=own), os.environ) as stack:
        told = {"GATE_TARGET": "reference", "GATE_STACK_CONTROL": stack.info.control}
        found = examine({**stack.info.variables(), **told}, CLAIMED_BY_OTHERS, tmp_path)
    assert set(found) == set(CLAIMED_BY_OTHERS)
    assert not_passed(found) == {}
