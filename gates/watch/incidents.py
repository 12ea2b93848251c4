"""From the readings of a round to open incidents and changes. Pure: no clock, no I/O.

Only an observation closes an incident: what is unknown, or was not looked at, leaves it open. Only failures in
consecutive rounds cause a rollback: an unknown restarts the count.
"""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from gates.evidence import Outcome, stamp
from gates.text.quantity import span
from gates.watch.rounds import Change, Incident, Reading, Round

LEVELS = ("note", "warn", "page")
COMPARING = ("preflight/", "sql/manifest/")
"""Checks that compare a deployment with a written document, which may describe another release than the running one. A
watch runs for weeks: such a difference is reported, but a release must not be rolled back for it.
"""
ITSELF = "preflight/pipeline"
LEAST_PATIENCE_S = 30.0
"""A scheduler is not punctual: a round may be half an interval late, and at least this much."""


@dataclass(frozen=True, slots=True)
class Patience:
    """confirm: rounds in a row before a rollback, and before a notification that a check cannot be seen. remind_s: how
    often ongoing failures are notified again.
    """

    confirm: int = 2
    remind_s: float = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class IncidentUpdate:
    """What is open after a round, and what changed in it."""

    incidents: tuple[Incident, ...]
    changes: tuple[Change, ...]


def fold(
    before: Sequence[Incident],
    earlier: Mapping[str, Reading],
    readings: Mapping[str, Reading],
    at: dt.datetime,
    patience: Patience,
    *,
    in_a_row: bool = True,
    known: Collection[str] = (),
) -> IncidentUpdate:
    """The incidents after this round.

    before, earlier: the incidents and readings of the round before. in_a_row: whether no round is missing since then.
    known: all existing checks (empty: not given), to close incidents of removed checks.
    """
    old = {i.check: i for i in before}
    incidents: list[Incident] = []
    changes: list[Change] = []
    for check in sorted({*old, *readings}):
        incident, reading = old.get(check), readings.get(check)
        if incident is not None and not in_a_row:
            incident = replace(incident, harm=0)
        if reading is None:
            after, change = _not_looked_at(incident, at, known)
        elif reading.outcome is Outcome.PASS:
            after, change = _good(incident, at)
        elif reading.outcome is Outcome.FAIL:
            after, change = _failing(incident, reading, at, patience)
        else:
            after, change = _unknown(incident, reading, earlier.get(check), at, patience)
        incidents += [after] if after else []
        changes += [change] if change else []
    return IncidentUpdate(tuple(incidents), tuple(changes))


def harmful(incidents: Sequence[Incident], readings: Mapping[str, Reading], confirm: int) -> list[Incident]:
    """The incidents that require a rollback: harm seen in this round and in `confirm` rounds in a row, for at least the
    rule's `for`. One rollback per incident: a person who switches the flag on again meanwhile has decided so.
    """
    itself = readings.get(ITSELF)
    if itself is not None and itself.outcome is not Outcome.PASS:
        return []  # a gate that does not tell red from green acts on nothing
    lasting = [i for i in incidents if i.harm >= confirm and i.firing and not i.acted]
    lasting = [i for i in lasting if not i.check.startswith(COMPARING)]
    return [i for i in lasting if i.check in readings and readings[i.check].harmful]


def acted(incidents: Sequence[Incident], because: Collection[str]) -> tuple[Incident, ...]:
    """The incidents, marked with the rollback that some of them caused."""
    return tuple(replace(i, acted=i.acted or i.check in because) for i in incidents)


def _not_looked_at(
    incident: Incident | None, at: dt.datetime, known: Collection[str]
) -> tuple[Incident | None, Change | None]:
    if incident is None or not known or incident.check in known:
        return incident, None
    said = "this check is no longer in the catalogue; it was not seen good again"
    return None, Change("no longer checked", incident.check, incident.level, said, stamp(at))


def _good(incident: Incident | None, at: dt.datetime) -> tuple[None, Change | None]:
    if incident is None or not incident.firing:
        return None, None
    kind = "recovered" if incident.kind == "failing" else "seen again"
    lasted = span(seconds_between(incident.since, at))
    return None, Change(kind, incident.check, incident.level, f"seen good after {lasted}", stamp(at))


def _failing(
    old: Incident | None, reading: Reading, at: dt.datetime, patience: Patience
) -> tuple[Incident, Change | None]:
    known = old if old is not None and old.kind == "failing" else None
    since = stamp(at) if known is None or seconds_between(known.since, at) < 0 else known.since
    harm = (known.harm if known else 0) + 1 if reading.harmful else 0
    fires = (known is not None and known.firing) or seconds_between(since, at) >= reading.for_s
    incident = Incident(
        reading.check,
        "failing",
        reading.level,
        since,
        stamp(at),
        known.rounds + 1 if known else 1,
        harm,
        fires,
        known.told_at if known else "",
        "",
        known.acted if known else False,
        reading.message,
    )
    kind = ""
    if known is None or not known.firing:
        kind = "failing" if fires else "" if known else "pending"
    elif LEVELS.index(reading.level) > LEVELS.index(known.level):
        kind = "worse"
    elif reading.level != "note" and _is_due(incident, at, patience):
        kind = "still failing"
    return _told(incident, kind, at)


def _unknown(
    old: Incident | None, reading: Reading, earlier: Reading | None, at: dt.datetime, patience: Patience
) -> tuple[Incident | None, Change | None]:
    if old is not None and old.kind == "failing":
        kept = replace(old, harm=0, unseen_since=old.unseen_since or stamp(at))
        return _told(
            kept, "still failing" if kept.firing and kept.level != "note" and _is_due(kept, at, patience) else "", at
        )
    new = earlier is not None and earlier.outcome is not Outcome.UNKNOWN
    first = Change("newly unknown", reading.check, "note", reading.message, stamp(at)) if new else None
    if reading.level != "blind" or reading.lacking or reading.blocked_by:
        return old, first
    rounds = old.rounds + 1 if old else 1
    since = old.since if old and seconds_between(old.since, at) >= 0 else stamp(at)
    fires = rounds >= patience.confirm
    told_at = old.told_at if old else ""
    blind = Incident(
        reading.check, "blind", "blind", since, stamp(at), rounds, 0, fires, told_at, message=reading.message
    )
    if fires and not (old and old.firing):
        return _told(blind, "blind", at)
    return blind, first


def _told(incident: Incident, kind: str, at: dt.datetime) -> tuple[Incident, Change | None]:
    if not kind:
        return incident, None
    message = incident.message
    if kind == "still failing" and incident.unseen_since:
        message = f"not seen since {incident.unseen_since}, and not seen good; before: {message}"
    change = Change(kind, incident.check, incident.level, message, stamp(at))
    return (replace(incident, told_at=stamp(at)) if change.told else incident), change


def _is_due(incident: Incident, at: dt.datetime, patience: Patience) -> bool:
    if not incident.told_at:
        return True
    passed = seconds_between(incident.told_at, at)
    return passed >= patience.remind_s or passed < -patience.remind_s


# --- the watcher itself ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WatcherHealth:
    """Whether the watch itself was running.

    down_s: how long no round was made, beyond what was due, else 0. blind_s: how long nothing was seen, likewise.
    clock: what is odd about the clock. said: all that in words, empty if all is well.
    """

    down_s: float = 0.0
    blind_s: float = 0.0
    clock: str = ""
    said: str = ""


def health_of(last: Round | None, good: Round | None, now: dt.datetime, jump_s: float = 0.0) -> WatcherHealth:
    """The dead man's switch. last, good: the last round, and the last that saw anything. jump_s: how far the clock
    moved against a monotonic one since then, 0 if unknown.
    """
    if last is None:
        return WatcherHealth()
    since_s = (now - last.started).total_seconds()
    clock = ""
    if since_s < 0:
        clock = f"the clock went back: the last round is stamped {span(-since_s)} from now"
    elif abs(jump_s) > LEAST_PATIENCE_S:
        clock = f"the clock jumped by {jump_s:+.0f} s since the last round, or the machine slept"
    due_s = allowed_s(last)
    down_s = since_s if since_s > due_s else 0.0
    blind_since = good.started if good is not None else last.started
    blind_s = (now - blind_since).total_seconds()
    blind_s = blind_s if blind_s > due_s and (good is None or good.number != last.number) else 0.0
    said = []
    if down_s:
        missed = max(1, round(since_s / last.interval_s) - 1) if last.interval_s else 1
        said.append(
            f"the watcher was down: no round since {last.at} ({span(down_s)}); one was due every "
            f"{span(last.interval_s)}, about {missed} missed"
        )
    if blind_s:
        said.append(f"the watcher has seen nothing of the target since {blind_since.isoformat(timespec='seconds')}")
    said += [clock] * bool(clock)
    return WatcherHealth(round(down_s, 1), round(blind_s, 1), clock, "; ".join(said))


def allowed_s(last: Round) -> float:
    """The age of the last round beyond which the watcher counts as down: one and a half intervals, and its duration."""
    took = max((dt.datetime.fromisoformat(last.finished_at) - last.started).total_seconds(), 0.0)
    return last.interval_s + max(last.interval_s / 2, LEAST_PATIENCE_S) + took


def seconds_between(earlier: str, later: dt.datetime) -> float:
    """Seconds from a time in the history until `later`; negative if the clock went back."""
    return (later - dt.datetime.fromisoformat(earlier)).total_seconds()
