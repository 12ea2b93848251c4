"""How near a limit a number came, and which limits the policy made wider. Pure; standard library only."""

import dataclasses
from collections.abc import Iterable

from gates.decision.assessment import number
from gates.decision.cohorts import CohortLimits
from gates.decision.rules import Policy
from gates.evidence import Evidence
from gates.verdict import Margin

LIMITED = ("load/", "alert/")
"""Checks whose number can be near its limit. For all others, `limit` is the value that is expected."""

LOAD = {"stages.load.slower_percent": 25.0, "stages.load.failed_percent": 2.0}
"""Margins against BASELINE_URL, by default."""


def margin_of(check: str, observed: object, limit: object, unit: str) -> Margin | None:
    """The distance to the limit, relative to it; None where there is no limit to be near to.

    For a least ratio (98 % of successes) it is relative to what may be missing.
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
    """By which margins the policy lets more pass than by default; empty where by none."""
    given, usual = policy.rollout.cohorts, dataclasses.asdict(CohortLimits())
    told = {name: value for name, value in dataclasses.asdict(given).items() if value > usual[name]}
    told.pop("most_events", None)
    told |= {"most_events": given.most_events} if given.most_events < usual["most_events"] else {}
    names = {f"rollout.cohorts.{name}": value for name, value in told.items()}
    names |= {name: value for name, value in policy.settings.items() if name in LOAD and value > LOAD[name]}
    return f"wider margins: {', '.join(f'{name} {value:g}' for name, value in names.items())}" if names else ""
