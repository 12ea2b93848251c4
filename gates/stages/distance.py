"""How far the target is, and how much room it has: what the preflight saw decides how many work at once, and for how
long.

A target at a distance is no worse for it, and would never be seen whole within the limits of a near one.
"""

from gates.evidence import Outcome
from gates.stages.context import Context
from gates.stages.preflight.database import DATABASE, ROOM, SKEW, TRIP_MS
from gates.stages.preflight.endpoints import REACHABLE

LONGER_BY_MS = 125.0
"""So long a round trip doubles the limit of a stage."""
MOST_TRIP_MS = 500.0
"""What takes longer is slow, and not far: more work on it at once, and no stage waits longer for it."""


def trip_ms(context: Context) -> float:
    """A round trip to the farther door; 0 where nothing was seen."""
    return min(MOST_TRIP_MS, max(_trips_ms(context), default=0.0))


def _trips_ms(context: Context) -> list[float]:
    """One to each door that was seen."""
    lines = [e for e in context.lines() if e.outcome is Outcome.PASS]
    answers_ms = [e.duration_ms / 2 for e in lines if e.check == REACHABLE.id][-1:]
    trips_ms = [float(str(e.details.get(TRIP_MS, 0))) for e in lines if e.check == SKEW.id][-1:]
    return answers_ms + trips_ms


def free_connections(context: Context) -> int | None:
    """How many sessions the server had left for the gate; None where that was not seen."""
    lines = [e for e in context.lines() if e.check == DATABASE.id and e.outcome is Outcome.PASS]
    found = lines[-1].details.get(ROOM) if lines else None
    return found if isinstance(found, int) else None


def stretched(context: Context, limit_s: float) -> float:
    """The limit of a stage, for a target that is as far as this one."""
    far_ms = max((ms for ms in _trips_ms(context) if ms <= MOST_TRIP_MS), default=0.0)
    return round(limit_s * (1 + far_ms / LONGER_BY_MS))
