"""How near a limit a number came. Pure; standard library only."""

from __future__ import annotations

from collections.abc import Iterable

from gates.decision.assessment import number
from gates.evidence import Evidence
from gates.verdict import Margin

LIMITED = ("load/", "alert/")
"""Checks whose number can be near its limit. For all others, `limit` is the value that is expected."""


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
    """The nearest limit of some evidence."""
    found = (margin_of(line.check, line.observed, line.limit, line.unit) for line in lines)
    return min((m for m in found if m), key=lambda m: (m.room, m.check), default=None)
