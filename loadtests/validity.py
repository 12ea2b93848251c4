"""Whether a run measured the target at all. Pure. A run that did not is no verdict, whatever its numbers say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about a run apart from its samples; the validity of the run is decided on these alone."""

    requests: int
    answers: int
    dropped_iterations: int
    users_wanted: int
    users_spawned: int
    workers_wanted: int
    workers_lost: tuple[str, ...]
    cpu_percent: Mapping[str, float]
    lateness_ms: float
    elapsed_s: float
    errors: tuple[str, ...] = ()


CPU_LIMIT_PERCENT = 85.0
LATENESS_LIMIT_MS = 100.0


def invalid_reasons(facts: Facts) -> tuple[str, ...]:
    """Why the run is no measurement of the target, one sentence each; empty where it is one."""
    found: list[str] = []
    if facts.workers_lost:
        lost = ", ".join(facts.workers_lost)
        found.append(f"{len(facts.workers_lost)} of {facts.workers_wanted} load workers were lost ({lost})")
    if facts.requests == 0:
        found.append("not one request was made")
    elif facts.answers == 0:
        seen = f" ({', '.join(facts.errors)})" if facts.errors else ""
        found.append(f"the target gave not one answer to {facts.requests} requests{seen}; is the address right?")
    if facts.dropped_iterations:
        found.append(
            f"{facts.dropped_iterations} arrivals were dropped because too many requests were still open;"
            " lower the rate, or look why the target answers none of them"
        )
    if facts.users_spawned < facts.users_wanted:
        found.append(f"{facts.users_spawned} of {facts.users_wanted} users started")
    for name, percent in sorted(facts.cpu_percent.items()):
        if percent > CPU_LIMIT_PERCENT:
            found.append(
                f"the load generator {name} used {percent:.0f} % of a core, {CPU_LIMIT_PERCENT:.0f} % are allowed;"
                " spread the load (--workers 2) or lower the rate"
            )
    if facts.lateness_ms > LATENESS_LIMIT_MS:
        found.append(
            f"the schedule ran {facts.lateness_ms:.0f} ms late (p95), {LATENESS_LIMIT_MS:.0f} ms are allowed:"
            " this machine is too busy to load anything; run again when it is idle, or from another one"
        )
    return tuple(found)
