"""What the answers about an event say of its lag. Pure."""

import datetime as dt
import math
from typing import Any


def lag_ms(committed_at: Any, effect_at: Any, least_s: float, most_s: float) -> float:
    """The lag in milliseconds: what the server says, held within what we saw ourselves.

    least_s: from the answer to the POST until the last question that found no effect; most_s: from the sending of the
    POST until the answer that showed the effect. A server whose times do not fit gets the nearer end.
    """
    claimed = _seconds_between(committed_at, effect_at)
    least_s = max(0.0, least_s)
    most_s = max(least_s, most_s)
    return (most_s if math.isnan(claimed) else min(max(claimed, least_s), most_s)) * 1000.0


SAME_S = 0.025
"""A service may take an event's commit from one row of it or another, which were written one after the other."""


def differ(first: str, second: str) -> bool | None:
    """Whether two times are not the same, as far as the coarser of them tells; None where one is no time."""
    apart_s = abs(_seconds_between(first, second))
    is_whole = any("." not in one for one in (first, second))
    return None if math.isnan(apart_s) else apart_s > (1.0 if is_whole else SAME_S)


def _seconds_between(first: Any, second: Any) -> float:
    try:
        return (dt.datetime.fromisoformat(str(second)) - dt.datetime.fromisoformat(str(first))).total_seconds()
    except (ValueError, TypeError):
        return math.nan
