"""How near a number came to its limit, and which limits the policy widened. Pure; standard library only."""

import dataclasses
from collections.abc import Iterable

from gates.decision.assessment import number
from gates.decision.cohorts import CohortLimits
from gates.decision.rules import Policy
from gates.evidence import Evidence
from gates.verdict import Margin

LIMITED = ("load/", "alert/")
"""Checks with a limit to be near to. For all others, `limit` is the expected value."""

LOAD = {"stages.load.slower_percent": 25.0, "stages.load.failed_percent": 2.0}
"""Default margins against BASELINE_URL."""


def margin_of(check: str, observed: object, limit: object, unit: str) -> Margin | None:
    """The distance to the limit, relative to it; None without such a limit. For a least ratio (98 % of successes) it is
    relative to the allowed rest.
    """
    seen, most = number(observed), number(limit)
    if not check.startswith(LIMITED) or seen is None or not most:
        return None
    scale = 1 - most if seen > most and 0 < most < 1 and seen <= 1 else abs(most)
    return Margin(check, seen, most, unit, round(min(abs(most - seen) / scale, 1.0), 4))


def nearest(lines: Iterable[Evidence]) -> Margin | None:
    found = (margin_of(line.check, line.observed, line.limit, line.unit) for line in lines)
    return min((m for m in found if m), key=lambda m: (m.room, m.check), default=None)


def wider(policy: Policy) -> str:
    """Which margins the policy made wider than the default; empty if none."""
    given, usual = policy.rollout.cohorts, dataclasses.asdict(CohortLimits())
    told = {name: value for name, value in dataclasses.asdict(given).items() if value > usual[name]}
    told.pop("most_events", None)
    told |= {"most_events": given.most_events} if given.most_events < usual["most_events"] else {}
    names = {f"rollout.cohorts.{name}": value for name, value in told.items()}
    names |= {name: value for name, value in policy.settings.items() if name in LOAD and value > LOAD[name]}
    return f"wider margins: {', '.join(f'{name} {value:g}' for name, value in names.items())}" if names else ""
