"""Compares the tenants that have the flag on with those that have it off. All checks judge one look.

What is compared is what happened since the flag's last step, with a past as long as its bake: docs/decision.md.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from gates.checks.observation import Observer
from gates.contract.fragments import expand
from gates.decision.cohorts import (
    BAKE_SHARE,
    DRAW_RISK,
    LEAST_BAKE_MINUTES,
    SHARE_RISK,
    SINCE_SHARE,
    CohortComparison,
    CohortLimits,
    TenantCounts,
    compare,
    growth,
    is_as_planned,
    silent_by_chance,
)
from gates.deployment.sql.database import sql
from gates.evidence import JsonValue, Outcome
from gates.text.foreign import count
from gates.text.quantity import span, with_unit
from sql_checks.rules.file import ALERTS
from sql_checks.sqlsession import SqlSession

FOLDER = Path(__file__).parent
FRAGMENTS = (FOLDER / "fragments", ALERTS / "fragments")
LEAST_MARGIN = 0.001
"""The margin of a wait where the others' share is already at its limit."""
TOO_YOUNG_S = 60
"""Younger events may still get their effect (step.sql), so a look at the end of a bake judges only older ones."""
OUTBOX_FLAG = "outbox.enabled"
"""Only of this flag the path of an event shows what the service decided."""
Row = dict[str, object]


def statement(name: str) -> str:
    """The statement of a file, with its fragments."""
    return expand(sql(FOLDER / f"{name}.sql"), FRAGMENTS).rstrip().rstrip(";")


def cohort_statements() -> tuple[str, str]:
    """The statements of a look, for one snapshot; the first prepares the session for the second."""
    return statement("step"), statement("events")


def told(flag: str, steps: str, limits: CohortLimits, bake_minutes: int = 60) -> dict[str, str]:
    """The rollout as session settings for the queries. steps: percentages, separated by commas."""
    numbers = {
        "lag_floor_s": limits.lag_floor_s,
        "lag_ratio": 1.0 + limits.margin_percent / 100.0,
        "most_events": limits.most_events,
        "bake_s": max(LEAST_BAKE_MINUTES, bake_minutes) * 60 - TOO_YOUNG_S,
    }
    return {"flag": flag, "steps": steps, **{name: f"{number}" for name, number in numbers.items()}}


@dataclass(frozen=True, slots=True)
class Metric:
    """What counts as a bad event: the name of its number in events.sql.

    percentile: of a wait, how many percent of the events may be over it, else 0.
    """

    column: str
    said: str
    percentile: float = 0.0


METRICS = {
    "success": Metric("without_effect", "events without an effect within a minute"),
    "dead-letters": Metric("dead", "events with a dead letter"),
    "duplicates": Metric("doubled", "events with more than one effect"),
    "lag-p50": Metric("over_p50", "events that wait for more than", percentile=50.0),
    "lag-p95": Metric("over_p95", "events that wait for more than", percentile=95.0),
    "agent-success": Metric("failed", "events whose agent's task failed"),
}


NUMBERS = ("events", "via_outbox", "without_effect", "doubled", "failed", "dead", "over_p50", "over_p95")
"""The numbers of a tenant, in the order of events.sql."""
NOTHING = dict.fromkeys(NUMBERS, 0)


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """Where the flag stands, since when, up to when its bake is judged, and what time it is by the database."""

    percent: int
    since: dt.datetime | None
    planned: dt.datetime | None
    is_over: bool
    at: dt.datetime

    @property
    def age_s(self) -> float:
        return (self.at - self.since).total_seconds() if self.since else 0.0

    @property
    def planned_s(self) -> float:
        """The age of the step at the end of its bake."""
        return (self.planned - self.since).total_seconds() + TOO_YOUNG_S if self.since and self.planned else 0.0


BEFORE, BAKE, AFTER = range(3)
"""The phases of events.sql."""


@dataclass(slots=True)
class SeenTenant:
    """Whether a tenant is on, was on before the step, and its numbers: before the step, in its bake, and since it."""

    name: str
    is_on: bool
    was_on: bool
    before: Mapping[str, int] = field(default_factory=lambda: NOTHING)
    bake: Mapping[str, int] = field(default_factory=lambda: NOTHING)
    since: Mapping[str, int] = field(default_factory=lambda: NOTHING)

    def add(self, phase: int, numbers: Sequence[int]) -> None:
        found = dict(zip(NUMBERS, numbers, strict=True))
        if phase == BEFORE:
            self.before = found
            return
        if phase == BAKE:
            self.bake = found
        self.since = {name: found[name] + self.since[name] for name in NUMBERS} if self.since["events"] else found

    def counts(self, column: str, *, bake: bool) -> TenantCounts:
        """Its bad events and all its events, since the step or in its bake, and before it."""
        seen, before = self.bake if bake else self.since, self.before
        return TenantCounts(self.name, self.is_on, seen[column], seen["events"], before[column], before["events"])


class CohortLook:
    """One look at the cohorts of a run, made at first use. Raise psycopg.Error."""

    def __init__(self, session: SqlSession, flag: str, limits: CohortLimits) -> None:
        self._session, self.flag, self.limits = session, flag, limits

    @cached_property
    def _seen(self) -> list[Row]:
        return [next(iter(one.fetchall()), {}) for one in self._session.ask(*cohort_statements())]

    def require_step(self, observer: Observer) -> RolloutStep:
        """The step. End the check as unknown where there is none to judge."""
        if self._session.blindness:
            observer.unmet(self._session.blindness)
        row = self._seen[0]
        at, since = row.get("at"), row.get("since")
        if not isinstance(at, dt.datetime):
            observer.unmet(f"the flag {self.flag} has no global row")
        since, planned = (one if isinstance(one, dt.datetime) else None for one in (since, row.get("planned")))
        step = RolloutStep(count(row["percent"]), since, planned, row.get("is_over") is True, at)
        if step.since is None or step.age_s < 0.0:
            observer.unmet(f"the row of {self.flag} does not say when it was changed (updated_at: {step.since})")
        return step

    @cached_property
    def tenants(self) -> list[SeenTenant]:
        """Every tenant whose flag follows the percentage and that had events before or after the step."""
        found: dict[str | int, SeenTenant] = {}
        counts = self._seen[1].get("counts")
        for name, is_on, was_on, phase, *numbers in counts if isinstance(counts, list) else ():
            found.setdefault(name, SeenTenant(str(name), is_on, was_on)).add(phase, numbers)
        return list(found.values())

    def counts(self, metric: Metric, *, bake: bool = False) -> list[TenantCounts]:
        """Tenants that got the flag by its last step, and those with it off: their events since, or in its bake."""
        return [t.counts(metric.column, bake=bake) for t in self.tenants if not t.was_on]

    def room(self, share: float) -> float:
        """How many times as many events the look could have read: at most this share of `most_events`."""
        return self.limits.most_events * share / max(1, count(self._seen[1].get("sampled")))

    def allowed_s(self, metric: Metric, phase: int) -> float:
        """The wait that the others' percentile allows in a phase."""
        allowed = self._seen[1].get("allowed_s")
        return float(allowed[phase - BAKE][metric.percentile > 50.0]) if isinstance(allowed, list) else 0.0


def judge_cohorts(metric: Metric, look: CohortLook, observer: Observer) -> None:
    """Raise AssertionError where tenants with the flag on are proved to do worse; unknown where nothing is proved."""
    step = look.require_step(observer)
    tenants = look.counts(metric)
    planned = look.counts(metric, bake=True) if step.is_over else None
    margin = look.limits.margin_points / 100.0
    allowed_s = None
    if metric.percentile:
        allowed_s = look.allowed_s(metric, AFTER if step.is_over and planned != tenants else BAKE)
        margin = _more_may_wait(metric, planned or tenants)
    found = compare(tenants, margin, look.limits.fewest_tenants, planned)
    observer.count(found.on.events + found.off.events)
    is_seen = found.on.tenants and found.off.tenants
    observer.value(round(100.0 * found.difference, 4) if is_seen else None, round(100.0 * margin, 4), "points")
    bad = f"{metric.said}{'' if allowed_s is None else f' {allowed_s:.3g} s'}"
    observer.details.update({**_shown(found, step, allowed_s), "bad": bad})
    if found.outcome is Outcome.UNKNOWN:
        observer.unmet(_undecided(found, margin, look, step, observer, bad))
    if found.outcome is Outcome.FAIL:
        observer.witness = [_tenant(one) for one in found.worst]
        first = found.worst[0] if found.worst else None
        named = f"; the worst is {first.tenant}: {first.bad} of {first.events}" if first else ""
        raise AssertionError(
            f"{bad}: {_sides(found)}; that is {_points(found.difference)} more, at least {_points(found.low)}; allowed:"
            f" {_points(margin)}{named}. Take {look.flag} back from {step.percent} %"
        )
    observer.control(f"{with_unit(found.on.tenants, 'tenants')} with {look.flag} on, {found.off.tenants} with it off")


def _more_may_wait(metric: Metric, tenants: Sequence[TenantCounts]) -> float:
    """The margin of a wait: by how much the share of events that wait too long may exceed the others' share."""
    shares = [t.bad / t.events for t in tenants if not t.is_on and t.events]
    usual = sum(shares) / len(shares) if shares else 0.0
    return max(LEAST_MARGIN, 1.0 - metric.percentile / 100.0 - usual)


def _undecided(
    found: CohortComparison, margin: float, look: CohortLook, step: RolloutStep, observer: Observer, bad: str
) -> str:
    """Why nothing is proved, and when it may be."""
    fewest, worth = look.limits.fewest_tenants, min(found.on.worth, found.off.worth)
    if worth < fewest:
        observer.details["samples_needed"] = fewest - int(worth)
        observer.details["ends_when"] = f"{fewest} tenants with events have {look.flag} on, and {fewest} have it off"
        on = f"{with_unit(found.on.tenants, 'tenants')} with {look.flag} on had events"
        weight = f" (worth {worth:.1f} of equal weight)" if worth else ""
        return (
            f"{span(step.age_s)} after the step to {step.percent} %, {on}, and {found.off.tenants} with it off{weight};"
            f" at least {fewest} are needed of each"
        )
    told = f"{bad}: {_sides(found)}; the difference is between {_points(found.low)} and {_points(found.high)}"
    times = growth(found, margin, _until_planned(look, step))
    if times is None or times > look.room(SINCE_SHARE):
        observer.details["samples_needed"] = found.on.tenants
        return (
            f"{told}, which decides nothing; more time would not tell: a larger step would, or more events a look"
            " (rollout.cohorts.most_events)"
        )
    more = times - 1.0
    observer.details["samples_needed"] = round(more * (found.on.events + found.off.events))
    observer.details["time_needed_s"] = round(more * step.age_s)
    return f"{told}, which decides nothing; about {span(more * step.age_s)} more would tell"


def _until_planned(look: CohortLook, step: RolloutStep) -> float | None:
    """By what factor the number of events will have grown at the end of the bake; None where it is over."""
    if step.is_over or not step.age_s:
        return None
    return max(1.0, min(step.planned_s / step.age_s, look.room(BAKE_SHARE)))


def judge_share(look: CohortLook, observer: Observer) -> None:
    """Raise AssertionError where the share of tenants that are on is not the planned one, or those on fell silent."""
    step = look.require_step(observer)
    _require_heard(look, observer)
    tenants = [t for t in look.tenants if t.since["events"]]
    is_shown = look.flag == OUTBOX_FLAG
    is_on = [2 * t.since["via_outbox"] > t.since["events"] if is_shown else t.is_on for t in tenants]
    on, total = sum(is_on), len(tenants)
    observer.count(total)
    observer.value(round(100.0 * on / total, 2) if total else None, step.percent, "%")
    fewest = 2 * look.limits.fewest_tenants
    if total < fewest:
        observer.details["samples_needed"] = fewest - total
        had = with_unit(total, "tenants")
        observer.unmet(f"{had} had events since the step, at least {fewest} are needed to judge a share")
    other = [t.name for t, seen in zip(tenants, is_on, strict=True) if seen is not t.is_on]
    if not is_as_planned(on, total, step.percent, SHARE_RISK if other else DRAW_RISK):
        observer.witness = [*other[:10]]
        by = "their events show it" if is_shown else "the flag's function says so"
        why = (
            f"{len(other)} are not as the function has it. Who is compared was not drawn: correct that first"
            if other
            else "each is as the function has it: it draws another share, or events of one side are missing"
        )
        raise AssertionError(
            f"{on} of {total} tenants with events have {look.flag} on ({by}), the plan says {step.percent} %; {why}"
        )
    observer.control(f"{on} of {total} tenants are on, {step.percent} % planned")


def _require_heard(look: CohortLook, observer: Observer) -> None:
    """Raise AssertionError where more tenants fell silent with the step than of those that have the flag off: what is
    no longer written down has no effect that could be missing, and no tenant that could be compared.
    """
    known = [[t for t in look.tenants if t.before["events"] and t.is_on is on and not t.was_on] for on in (True, False)]
    silent = [[t for t in side if not t.since["events"]] for side in known]
    on, off = ((len(some), len(side)) for some, side in zip(silent, known, strict=True))
    if silent_by_chance(on, off):
        return
    observer.count(on[1] + off[1])
    observer.value(round(100.0 * on[0] / on[1], 2), round(100.0 * off[0] / off[1], 2) if off[1] else 0.0, "%")
    observer.witness = [t.name for t in silent[0][:10]]
    raise AssertionError(
        f"{on[0]} of {on[1]} tenants that got {look.flag} had events before the step and none since, and {off[0]} of"
        f" {off[1]} without it: their events are refused or lost. Take it back, and look where they went"
    )


def _shown(found: CohortComparison, step: RolloutStep, allowed_s: float | None) -> dict[str, JsonValue]:
    return {
        "on": found.on.to_json(),
        "off": found.off.to_json(),
        "difference": [round(found.low, 6), round(found.difference, 6), round(found.high, 6)],
        "slope": round(found.slope, 4),
        "decided": found.look,
        "step": {"percent": step.percent, "age_s": round(step.age_s)},
        "worst": [_tenant(one) for one in found.worst],
        **({} if allowed_s is None else {"allowed_s": round(allowed_s, 4)}),
    }


def _tenant(one: TenantCounts) -> JsonValue:
    return {
        "tenant": one.tenant,
        "bad": one.bad,
        "events": one.events,
        "bad_before": one.bad_before,
        "events_before": one.events_before,
    }


def _sides(found: CohortComparison) -> str:
    return (
        f"{100 * found.on.mean:.3g} % of the events of {found.on.tenants} tenants with the flag on,"
        f" {100 * found.off.mean:.3g} % of {found.off.tenants} with it off"
    )


def _points(share: float) -> str:
    return f"{100 * share:.2f} points"
