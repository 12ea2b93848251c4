"""Faults of the outbox: events that are lost, doubled, reordered, held or let through."""

from __future__ import annotations

from faults.altered import altered_worker
from faults.catalogue import worker
from faults.probe import Probe
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings


def _delivers_to_the_paused(probe: Probe) -> bool:
    with probe.tenant() as company:
        probe.rows("INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, true)", company)
        event_id = probe.event(company).json()["event_id"]
        found = "SELECT 1 FROM agent_tasks WHERE event_id = %s"
        return probe.within(3, lambda: bool(probe.rows(found, event_id)))


_PAUSE = " AND NOT public.is_company_paused(t.company_id)"


@worker(
    "The worker delivers events of a paused company.",
    _delivers_to_the_paused,
    ("drill/pause/*", "drill/held/*"),
    names=("pause",),
)
def pause_ignored(settings: WorkerSettings) -> WorkerParts:
    return altered_worker(settings, ("drain_lane", _PAUSE, ""), ("claim_events", _PAUSE, ""))
