"""What changes for everybody during a run: switches, and the day, with which budgets begin anew."""

import datetime as dt
from dataclasses import dataclass
from functools import lru_cache

import psycopg

from gates.deployment.sql.connection import Answering
from gates.deployment.sql.database import execute
from gates.deployment.sql.kept import borrowed
from gates.deployment.tenants.loans import LiveRow
from gates.deployment.tenants.tenants import OUTBOX_FLAG, REPLAY_FLAG
from gates.evidence import CheckSpec, Outcome

KEYS = (OUTBOX_FLAG, REPLAY_FLAG)
_LENT = "exists (select from public.feature_flags l where l.key = %s)"
_FLAG = f"""
select case when f.enabled then f.rollout_percentage else 0 end as percent, {_LENT} as lent
from public.feature_flags f where f.key = %s and f.company_id is null
"""
_PAUSE = f"select c.agents_paused as paused, {_LENT} as lent from public.agent_controls c where c.company_id is null"
_DAY = "select (now() at time zone 'UTC')::date as day"


@dataclass(frozen=True, slots=True)
class Standing:
    """The rows for everybody: percentages of flags, 0 for off, and whether all are paused; and the day (UTC). Rows set
    by a drill are left out.
    """

    percents: tuple[tuple[str, int], ...] = ()
    paused: bool | None = None
    day: dt.date | None = None

    def lowered_since(self, before: "Standing") -> str:
        """What was switched off or lowered since, and whether a day began; empty if nothing did."""
        was = dict(before.percents)
        less = [f"switched {key} off, or to less" for key, percent in self.percents if percent < was.get(key, 0)]
        paused = ["paused everybody's agents"] if self.paused and before.paused is False else []
        begun = ["a day began (UTC), with whole budgets,"] if self.day and before.day and self.day > before.day else []
        return " and ".join([*(f"somebody {one}" for one in less + paused), *begun])


def standing(url: str) -> Standing:
    """The switches and the day now. What cannot be read is left out: it excuses nothing."""
    try:
        with borrowed(url, read_only=True) as connection:
            flags = [(key, row) for key in KEYS for row in _read(connection, _FLAG, LiveRow(key).record, key)]
            pauses, days = _read(connection, _PAUSE, LiveRow().record), _read(connection, _DAY)
    except psycopg.Error:
        return Standing()
    return Standing(
        tuple((key, int(str(row["percent"]))) for key, row in flags if not row["lent"]),
        next((row["paused"] is True for row in pauses if not row["lent"]), None),
        next((row["day"] for row in days if isinstance(row["day"], dt.date)), None),
    )


def _read(connection: Answering, query: str, *values: str) -> list[dict[str, object]]:
    """The rows; none where the deployment lacks the table."""
    try:
        return execute(connection, query, *values)
    except psycopg.Error:
        return []


@lru_cache(maxsize=1)
def found(url: str) -> Standing:
    """The switches when this process first asked. Call it before anything is asked of the service."""
    return standing(url) if url else Standing()


def excused(outcome: Outcome, message: str, spec: CheckSpec, url: str) -> tuple[Outcome, str]:
    """Make a failed drill unknown if what it needs was switched off, or ended with the day: it says nothing then."""
    if outcome is not Outcome.FAIL or not url or not spec.id.startswith("drill/"):
        return outcome, message
    less = standing(url).lowered_since(found(url))
    return (Outcome.UNKNOWN, f"{less} while the gate looked: {message}") if less else (outcome, message)
