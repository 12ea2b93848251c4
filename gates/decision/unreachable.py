"""What still counts of a target that stopped answering: what was seen before. Pure; standard library only.

"Door" means BASE_URL or DATABASE_URL. The evidence of a shut door says until when it was open. A failure that ended
later may only show that the door had shut: unknown, blocked by it. What was seen through the other door stands.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace

from gates.evidence import Evidence, Outcome, moment

REACHABLE, DATABASE = "preflight/target-reachable", "preflight/database"
ANSWERED_UNTIL = "answered_until"
BEHIND = {REACHABLE: ("drill/", "load/"), DATABASE: ("drill/", "load/", "sql/", "alert/", "cohort/")}
"""Door -> what is looked at through it."""


def cause(evidence: Sequence[Evidence]) -> Evidence | None:
    """The shut door that ended the run, if one did."""
    shut = [e for e in evidence if e.check in BEHIND and e.details.get("unreachable") is True]
    return min(shut, key=lambda e: (bool(e.blocked_by), e.check), default=None)


def excused(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The evidence, in which nothing seen after a door had shut is a failure or a cause of its own."""
    found = list(evidence)
    first = cause(found)
    for door in found:
        until = _time(door.details.get(ANSWERED_UNTIL)) if door.check in BEHIND else None
        if first is None or until is None:
            continue
        for index, one in enumerate(found):
            if (
                one.outcome is not Outcome.PASS
                and one.check.startswith(BEHIND[door.check])
                and _ended_after(one, until)
            ):
                said = f"{one.message} (seen after the target had stopped answering)"
                found[index] = replace(one, outcome=Outcome.UNKNOWN, message=said, blocked_by=first.check)
    return found


def _ended_after(one: Evidence, until: dt.datetime) -> bool:
    began = _time(one.started_at)
    return not one.blocked_by and began is not None and one.duration_ms / 1000 > (until - began).total_seconds()


def _time(text: object) -> dt.datetime | None:
    try:
        return moment(text)
    except ValueError:
        return None
