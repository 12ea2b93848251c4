"""Adapts parallelism and time limits to the target's distance and free connections, as the preflight saw them. A
distant target is not worse, but could not be examined completely within the limits of a near one.
"""

from gates.evidence import Outcome
from gates.stages.context import Context
from gates.stages.preflight.database import DATABASE, ROOM, SKEW
from gates.stages.preflight.endpoints import REACHABLE
from gates.stages.preflight.looks import TRIP_MS

LONGER_BY_MS = 125.0
"""A round trip of this length doubles the limit of a stage."""
MOST_TRIP_MS = 500.0
"""A longer round trip means slow, not distant: the work is more parallel, but no stage gets more time for it."""


def trip_ms(context: Context) -> float:
    """The longer round trip to HTTP and database; 0 if none was seen."""
    return min(MOST_TRIP_MS, max(_trips_ms(context), default=0.0))


def _trips_ms(context: Context) -> list[float]:
    """The round trips that were seen, at most one each of HTTP and database."""
    lines = [e for e in context.lines() if e.outcome is Outcome.PASS]
    last = {e.check: float(str(e.details.get(TRIP_MS, 0))) for e in lines if e.check in {REACHABLE.id, SKEW.id}}
    return [*last.values()]


def free_connections(context: Context) -> int | None:
    """How many sessions the server had left for the gate; None if unknown."""
    lines = [e for e in context.lines() if e.check == DATABASE.id and e.outcome is Outcome.PASS]
    found = lines[-1].details.get(ROOM) if lines else None
    return found if isinstance(found, int) else None


def stretched(context: Context, limit_s: float) -> float:
    """The limit of a stage, extended for the distance of this target."""
    far_ms = max((ms for ms in _trips_ms(context) if ms <= MOST_TRIP_MS), default=0.0)
    return round(limit_s * (1 + far_ms / LONGER_BY_MS))
