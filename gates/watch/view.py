"""What the reports of the watch show: the history of one target as one value. Pure."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gates.contract.scope import WHOLE, Scope
from gates.evidence import CheckSpec, Outcome
from gates.text.quantity import shown, span, with_unit
from gates.watch.incidents import WatcherHealth
from gates.watch.rounds import Change, Incident, Round
from gates.watch.trends import WINDOW, Before, Trend, from_the_future, trends

MOST_EVENTS = 100
SOON_S = 7 * 86_400.0
"""A limit that is reached later than this at a day's slope needs no action."""


@dataclass(frozen=True, slots=True)
class WatchView:
    """All that a report needs. rounds: those of the window. last: the last one of all, however old. place: the two
    addresses without secrets. before: the checks as they were before the window. odd: what is odd about the file.
    """

    rounds: tuple[Round, ...]
    last: Round | None
    now: dt.datetime
    health: WatcherHealth
    place: str = ""
    before: Mapping[str, Before] = field(default_factory=dict)
    total: int = 0
    odd: str = ""
    dropped: int = 0
    others: int = 0
    specs: Mapping[str, CheckSpec] = field(default_factory=dict)
    contract: Scope = WHOLE

    @property
    def state(self) -> str:
        """The last round's state; `doubtful` if there is none, or the watcher is down, or saw nothing."""
        if self.last is None:
            return "doubtful"
        dead = self.health.down_s or self.health.blind_s
        return "doubtful" if dead and self.last.state == "good" else self.last.state

    @property
    def reason(self) -> str:
        if self.last is None:
            return "there is no round in this history"
        return "; ".join(part for part in (self.health.said, self.last.reason) if part)

    @property
    def recent(self) -> list[Round]:
        return [r for r in self.rounds if r.started >= self.now - WINDOW]

    @property
    def future(self) -> int:
        return from_the_future(self.rounds, self.now)

    @property
    def open(self) -> list[Incident]:
        """What is not known to be good again, the gravest first, among these what the round cites; what is only noted
        or not yet certain comes last.
        """
        incidents, cited = (self.last.incidents, self.last.reason) if self.last else ((), "")
        order = ("page", "warn", "blind", "note")
        return sorted(
            incidents,
            key=lambda i: (not i.firing, order.index(i.level), not cited.startswith(f"{i.check} "), i.since, i.check),
        )

    @property
    def events(self) -> list[Change]:
        """What changed in the window, the newest first."""
        found = [c for r in self.recent for c in r.changes]
        return found[::-1][:MOST_EVENTS]

    def trends(self) -> dict[str, Trend]:
        return trends(self.rounds, self.now, self.before)


def nearing(found: Mapping[str, Trend]) -> list[Trend]:
    """The checks that soon reach a limit at their slope, the soonest first."""
    near = [t for t in found.values() if t.forecast is not None and t.forecast.in_s <= SOON_S]
    return sorted(near, key=lambda t: (t.forecast.in_s if t.forecast else 0.0, t.check))


def with_numbers(found: Mapping[str, Trend]) -> list[Trend]:
    """The checks whose number has a limit and can move."""
    graded = [t for t in found.values() if t.points and t.reading.limits]
    return [t for t in graded if t.check.startswith("alert/") or t.low != t.high]


def slope_text(trend: Trend) -> str:
    """The slope per hour, `steady` if its interval includes zero, or why it is unknown."""
    if trend.slope is None:
        return f"unknown: {trend.doubt}" if trend.doubt else "unknown"
    if not trend.slope.certain:
        return "steady"
    per_h = trend.slope.per_s * 3600
    return f"{'+' if per_h > 0 else ''}{with_unit(per_h, trend.reading.unit)}/h"


def forecast_text(trend: Trend) -> str:
    """When the next limit is reached."""
    if trend.forecast is None:
        return "no" if trend.slope is not None and trend.doubt == "it does not move towards its limit" else "unknown"
    if trend.forecast.in_s <= 0:
        return f"beyond {trend.forecast.severity} {shown(trend.forecast.limit)}"
    limit = with_unit(trend.forecast.limit, trend.reading.unit)
    return f"{trend.forecast.severity} {limit} in {span(trend.forecast.in_s)}"


def limits_text(trend: Trend) -> str:
    return ", ".join(f"{name} {shown(limit)}" for name, limit in trend.reading.limits)


def counts_text(counts: Mapping[str, int]) -> str:
    return f"{counts[Outcome.PASS]} passed, {counts[Outcome.FAIL]} failed, {counts[Outcome.UNKNOWN]} unknown"


def ago(at: str, now: dt.datetime) -> str:
    """How long ago a time of the history was."""
    if not at:
        return "never"
    return f"{span(max((now - dt.datetime.fromisoformat(at)).total_seconds(), 0.0))} ago"


def grouped_changes(changes: Sequence[Change]) -> list[tuple[Change, ...]]:
    """Changes in order; those of one time, kind and reason are grouped."""
    groups: dict[tuple[str, str, str], list[Change]] = {}
    for one in changes:
        alike = one.message if one.kind in {"blind", "newly unknown", "seen again"} and one.message else one.check
        groups.setdefault((one.at, one.kind, alike), []).append(one)
    return [tuple(g) for g in groups.values()]


def grouped_incidents(incidents: Sequence[Incident]) -> list[tuple[Incident, ...]]:
    """Incidents in order; checks that cannot be seen for the same reason are grouped."""
    groups: dict[tuple[str, str], list[Incident]] = {}
    for one in incidents:
        alike = one.message if one.kind == "blind" and one.message else one.check
        groups.setdefault((one.kind, alike), []).append(one)
    return [tuple(g) for g in groups.values()]
