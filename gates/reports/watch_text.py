"""The watch as text: a round for a terminal, the history as Markdown, a Slack message, a JSON object. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from gates.evidence import JsonValue
from gates.incidents import Pulse
from gates.inert import Terminal
from gates.reports.markdown import cell
from gates.reports.slack import MOST_TEXT, escaped
from gates.reports.watch_view import (
    WatchView,
    ago,
    clock,
    counts_text,
    grouped_changes,
    grouped_incidents,
    limits_text,
    nearing,
    number,
    reach_text,
    slope_text,
    with_numbers,
)
from gates.rounds import EXIT_CODES, Change, Incident, Round
from gates.trends import Trend

SIGNS = {"good": "🟢", "doubtful": "🟡", "failing": "🔴"}
SLACK_SIGNS = {
    "failing": ":red_circle:",
    "worse": ":red_circle:",
    "recovered": ":large_green_circle:",
    "seen again": ":large_green_circle:",
    "rolled back": ":rewind:",
}
OTHER_SIGN = ":large_yellow_circle:"
MOST_LINES = 15
MOST_TOLD = 10


def slack(made: Round, changes: Sequence[Change]) -> str:
    """The body of a POST to an incoming webhook: what changed, and the state of all."""
    groups = grouped_changes(changes)
    lines = []
    for first, *others in groups[:MOST_TOLD]:
        more = f" and {len(others)} more" if others else ""
        sign = SLACK_SIGNS.get(first.kind, OTHER_SIGN)
        level = f" ({first.level})" if first.level in {"page", "warn"} else ""
        lines.append(f"{sign} *{first.kind}*{level} `{escaped(first.check)}`{more}: {escaped(first.message)[:150]}")
    lines += [f"… and {len(groups) - MOST_TOLD} more"] * (len(groups) > MOST_TOLD)
    release = made.release or "release not said"
    foot = f"watch: {made.state}, {release}, {counts_text(made.counts)}, round {made.number} at {clock(made.at)}"
    blocks: list[JsonValue] = [
        {"type": "section", "text": {"type": "mrkdwn", "text": "\n".join(lines)[:MOST_TEXT]}},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": escaped(foot)[:MOST_TEXT]}]},
    ]
    first = changes[0]
    text = f"watch: {first.kind} {first.check}" + (f" and {len(changes) - 1} more" if len(changes) > 1 else "")
    return json.dumps({"text": escaped(text)[:MOST_TEXT], "blocks": blocks}, ensure_ascii=False, indent=1) + "\n"


def round_text(made: Round, alive: Pulse, found: Sequence[Trend] = ()) -> Terminal:
    """A round for a terminal: one sentence, what changed, what is open, what nears its limit. Not coloured."""
    lines = [
        f"{made.state.upper()}: {made.reason}",
        f"  {clock(made.at)}, round {made.number}, {counts_text(made.counts)}",
    ]
    told = any(c.kind == "watcher down" for c in made.changes)
    lines += [f"  {alive.said}"] * bool(alive.said and not told)
    for first, *others in grouped_changes(made.changes):
        more = f" and {len(others)} more" if others else ""
        lines.append(f"  {first.kind}: {first.check}{more}: {first.message}"[:240])
    said = {c.check for c in made.changes}
    left = grouped_incidents([i for i in made.incidents if i.check not in said and i.level != "note"])
    for one, *alike in left[:MOST_LINES]:
        more = f" and {len(alike)} more" if alike else ""
        lines.append(f"  open since {clock(one.since)}: {one.check}{more} ({one.level}): {one.message}"[:240])
    lines += [f"  … and {len(left) - MOST_LINES} more open"] * (len(left) > MOST_LINES)
    lines += [f"  nears its limit: {t.check}: {reach_text(t)} at {slope_text(t)}" for t in found[:5]]
    lines += [f"  not due in this round: {len(made.not_due)} checks"] * bool(made.not_due)
    return Terminal.of_lines(lines)


def markdown(view: WatchView) -> str:
    """history.md: the state, what is open, what nears its limit, the numbers, what happened."""
    last = view.last
    lines = [f"## {SIGNS[view.state]} watch: {view.state}", "", cell(view.reason), ""]
    if last is not None:
        lines.append(
            f"Last round {clock(last.at)} ({ago(last.at, view.now)}), release `{cell(last.release) or 'not said'}`: "
            f"{counts_text(last.counts)}. {len(view.recent)} rounds in 24 h."
        )
    lines += ["", cell(view.odd)] if view.odd else []
    lines += _open(view.open)
    found = view.trends()
    near = nearing(found)
    if near:
        lines += ["", "Near a limit:", "", *(f"- `{t.check}`: {reach_text(t)} at {slope_text(t)}" for t in near)]
    rows = with_numbers(found)
    if rows:
        lines += ["", "| check | now | 24 h least | median | most | slope | limits | reached |"]
        lines.append("|---|---|---|---|---|---|---|---|")
        lines += [f"| {' | '.join(cell(c) for c in _numbers(t))} |" for t in rows]
    flapping = [t for t in found.values() if t.flapping]
    if flapping:
        lines += ["", "Flapping:", "", *(f"- `{t.check}`: {t.changes} changes in 24 h" for t in flapping)]
    if view.events:
        lines += ["", "| when | what | check | |", "|---|---|---|---|"]
        lines += [f"| {clock(c.at)} | {c.kind} | {cell(c.check)} | {cell(c.message)[:200]} |" for c in view.events[:30]]
    return "\n".join(lines) + "\n"


def _open(incidents: Sequence[Incident]) -> list[str]:
    if not incidents:
        return ["", "Nothing is open."]
    lines = ["", "| open | level | since | seen last | |", "|---|---|---|---|---|"]
    for one, *others in grouped_incidents(incidents)[:30]:
        seen = f"not seen since {clock(one.unseen_since)}" if one.unseen_since else clock(one.seen_at)
        level = one.level if one.firing else f"{one.level}, not certain yet"
        more = f" and {len(others)} more" if others else ""
        lines.append(f"| `{one.check}`{more} | {level} | {clock(one.since)} | {seen} | {cell(one.message)[:300]} |")
    return lines


def _numbers(trend: Trend) -> list[str]:
    unit = trend.reading.unit
    now = trend.reading.value if trend.reading.value is not None else trend.points[-1][1]
    values = (trend.low, trend.middle, trend.high)
    shown = [number(now, unit), *(number(v) for v in values)]
    return [trend.check, *shown, slope_text(trend), limits_text(trend), reach_text(trend)]


def to_json(view: WatchView, made: Round | None = None, alive: Pulse | None = None, slack_error: str = "") -> str:
    """One JSON object on one line, for machines.

    made: the round that was just made; alive: the watcher until then. Without them, the last round, and now.
    """
    last, pulse = made or view.last, alive or view.pulse
    state = made.state if made else view.state
    data: dict[str, JsonValue] = {
        "state": state,
        "exit_code": EXIT_CODES[state],
        "reason": made.reason if made else view.reason,
        "now": view.now.isoformat(timespec="seconds"),
        "round": last.number if last else None,
        "at": last.at if last else None,
        "release": last.release if last else None,
        "counts": dict(last.counts) if last else None,
        "not_due": list(last.not_due) if last else [],
        "changes": [_members(c) for c in last.changes] if last else [],
        "open": [_members(i) for i in view.open],
        "action": dict(last.action) if last else {},
        "watcher": {
            "down_s": pulse.down_s,
            "blind_s": pulse.blind_s,
            "clock": pulse.clock,
            "said": pulse.said,
            "rounds_24h": len(view.recent),
            "from_the_future": view.future,
            "history": view.odd,
            "slack_error": slack_error,
        },
        "trends": {name: _trend(t) for name, t in view.trends().items() if t.points or t.changes},
    }
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"


def _members(value: Change | Incident) -> dict[str, JsonValue]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _trend(trend: Trend) -> dict[str, JsonValue]:
    slope = trend.slope
    return {
        "outcome": trend.reading.outcome.value,
        "since": trend.since,
        "last_good": trend.last_good or None,
        "value": trend.reading.value,
        "unit": trend.reading.unit,
        "limits": dict(trend.reading.limits),
        "min": trend.low,
        "median": trend.middle,
        "max": trend.high,
        "values": len(trend.points),
        "slope_per_h": slope.per_s * 3600 if slope else None,
        "slope_certain": slope.certain if slope else None,
        "limit_reached_in_s": trend.reach.in_s if trend.reach else None,
        "limit_reached": trend.reach.severity if trend.reach else None,
        "unknown_because": trend.doubt or None,
        "changes_24h": trend.changes,
        "flapping": trend.flapping,
    }
