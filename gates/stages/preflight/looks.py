"""One look of the preflight, and its evidence. Every look ends within its limit."""

import datetime as dt
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from psycopg.errors import LockNotAvailable

from gates.deployment.http.limits import within
from gates.deployment.sql.failures import in_words
from gates.deployment.target import Target
from gates.evidence import CheckSpec, Evidence, JsonValue, Outcome, Severity, Where, members_of, stamp

LOOK_S = 10.0
"""The longest that one look may take: a name lookup has no limit of its own, and an answer may drip for ever."""
TRIP_MS = "round_trip_ms"
"""Detail of the checks of reachability and clocks: the round trip to the service, and to the database."""


def spec(name: str, claim: str, cost: str, severity: Severity, *covers: str, after: tuple[str, ...] = ()) -> CheckSpec:
    return CheckSpec(f"preflight/{name}", claim, cost, severity, Where.READ_ONLY, (), after, covers, phase="first")


@dataclass(frozen=True, slots=True)
class LookResult:
    """The result of one preflight check. `unreachable`: nothing answers at the address, so nothing behind it shows."""

    outcome: Outcome
    message: str = ""
    observed: JsonValue = None
    limit: JsonValue = None
    unit: str = ""
    samples: int = 0
    details: dict[str, JsonValue] = field(default_factory=dict)
    unreachable: bool = False


def timed(check: CheckSpec, target: Target, look: Callable[[], LookResult], limit_s: float = LOOK_S) -> Evidence:
    """The evidence of one look; unknown on any error."""
    at, started = dt.datetime.now(dt.UTC), time.monotonic()
    try:
        seen = within(look, limit_s)
    except Exception as error:  # noqa: BLE001  -- no answer of a target may end the gate
        advice = ". See that the target can be reached from here" * (not isinstance(error, LockNotAvailable))
        seen = LookResult(Outcome.UNKNOWN, f"{in_words(error)}{advice}")
    seen_as = {name: value for name, value in members_of(seen).items() if name != "unreachable"}
    details = {**seen.details, "unreachable": True} if seen.unreachable else seen.details
    took = {"started_at": stamp(at), "duration_ms": round((time.monotonic() - started) * 1000, 1)}
    return Evidence(check.id, release=target.release, **{**seen_as, "details": details, **took})


def after(
    lines: Sequence[Evidence], check: CheckSpec, target: Target, look: Callable[[], LookResult], limit_s: float = LOOK_S
) -> Evidence:
    """Run the check; if one that it needs (`after`) did not pass, it is unknown and blocked by that one."""
    failed = [e.check for e in lines if e.check in check.after and e.outcome is not Outcome.PASS]
    if not failed:
        return timed(check, target, look, limit_s)
    blocked = timed(check, target, lambda: LookResult(Outcome.UNKNOWN, f"blocked by {failed[0]}"))
    return replace(blocked, blocked_by=failed[0])
