"""Faults of the brake of a run: whose runs it stops, and which."""

import json
from typing import Any

from faults.altered import altered_worker
from faults.catalogue import worker
from faults.lifecycle import FAILS, LIFE
from faults.probe import Probe
from replay_service.worker.parts import WorkerParts
from replay_service.worker.settings import WorkerSettings

FAILED = "RETURNING r.success_count, r.failure_count"


def _unbraked(settings: WorkerSettings, which: str) -> WorkerParts:
    """The worker that counts no failure of such runs where it looks whether they must stop."""
    seen = f"RETURNING r.success_count, CASE WHEN {which} THEN 0 ELSE r.failure_count END"
    return altered_worker(settings, ("settle_item", FAILED, seen))


def _ends_completed(probe: Probe, count: int = 20, token: bool = False, named: bool = False) -> bool:
    """Whether a run of so many items that all fail is called completed."""
    with probe.tenant() as company:
        ids = probe.letters(company, count, **FAILS)
        fields: dict[str, Any] = {"company_id": company, "max": count, **({"dlq_ids": ids} if named else {})}
        headers = probe.as_token(probe.token({})) if token else None
        run = probe.send(json.dumps(fields).encode(), headers).json()["replay_run_id"]
        probe.settled(run)
        return bool(probe.value("SELECT status FROM replay_runs WHERE id = %s", run) == "completed")


@worker(
    "A run of ten items or fewer is never stopped: all of them are taken for under way.",
    lambda p: _ends_completed(p, 7),
    (f"{LIFE}/stops-above-twenty-percent",),
    names=("seven items",),
)
def small_runs_are_not_stopped(settings: WorkerSettings) -> WorkerParts:
    return _unbraked(settings, "r.target_count <= 10")


@worker(
    "A run that is over as its brake grips is called completed: nothing is left that could be given back.",
    lambda p: _ends_completed(p, 5),
    (f"{LIFE}/stops-above-twenty-percent",),
    names=("five items",),
)
def stopped_at_its_end_is_completed(settings: WorkerSettings) -> WorkerParts:
    over = "CASE WHEN r.success_count + r.failure_count = r.target_count THEN 'completed' ELSE %(status)s END,"
    return altered_worker(settings, ("finish_run", "SET status = %(status)s,", f"SET status = {over}"))


@worker(
    "A run that a token started is never stopped: an administrator is taken to know.",
    lambda p: _ends_completed(p, token=True),
    (f"{LIFE}/stops-soon-above-a-fifth",),
    names=("failed is 'completed'",),
)
def runs_of_tokens_are_not_stopped(settings: WorkerSettings) -> WorkerParts:
    return _unbraked(settings, "r.actor <> 'signature'")
