"""The watch as text: a round for a terminal, the history as Markdown, a Slack message, a JSON object. Pure."""

import json
from collections.abc import Sequence

from gates.evidence import JsonValue, members_of, shown_time
from gates.reports.formats.markdown import EMPTY, head
from gates.reports.formats.slack import MOST_PART, context, message, section
from gates.text.characters import log
from gates.text.inert import Markdown, Slack, Terminal
from gates.text.quantity import shown, with_unit
from gates.watch.incidents import WatcherHealth
from gates.watch.rounds import EXIT_CODES, Change, Incident, Round
from gates.watch.trends import Trend
from gates.watch.view import (
    WatchView,
    ago,
    counts_text,
    forecast_text,
    grouped_changes,
    grouped_incidents,
    limits_text,
    nearing,
    slope_text,
    with_numbers,
)

SIGNS = {"good": Markdown("🟢"), "doubtful": Markdown("🟡"), "failing": Markdown("🔴")}
SLACK_SIGNS = {
    "failing": Slack(":red_circle:"),
    "worse": Slack(":red_circle:"),
    "recovered": Slack(":large_green_circle:"),
    "seen again": Slack(":large_green_circle:"),
    "rolled back": Slack(":rewind:"),
}
OTHER_SIGN = Slack(":large_yellow_circle:")
MOST_LINES = 15
MOST_TOLD = 10


def slack(made: Round, changes: Sequence[Change]) -> str:
    """The body of a POST to an incoming webhook: what changed, and the overall state."""
    groups = grouped_changes(changes)
    lines = [_told(first, len(others)) for first, *others in groups[:MOST_TOLD]]
    lines += [Slack("… and {} more").format(len(groups) - MOST_TOLD)] * (len(groups) > MOST_TOLD)
    foot = Slack("watch: {}, {}, {}, round {} at {}").format(
        made.state,
        made.release[:MOST_PART] or "release not said",
        counts_text(made.counts),
        made.number,
        shown_time(made.at),
    )
    first = changes[0]
    more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
    text = Slack.escape(f"watch: {first.kind} {first.check[:MOST_PART]}{more}")
    return message(text, [section(Slack("\n").join(lines)), context(foot)])


def _told(first: Change, others: int) -> Slack:
    level = Slack(" ({})").format(first.level) if first.level in {"page", "warn"} else ""
    more = Slack(" and {} more").format(others) if others else ""
    sign = SLACK_SIGNS.get(first.kind, OTHER_SIGN)
    return Slack("{} *{}*{} {}{}: {}").format(
        sign, first.kind, level, first.check[:MOST_PART], more, first.message[:150]
    )


def round_text(made: Round, alive: WatcherHealth, found: Sequence[Trend] = ()) -> Terminal:
    """A round for a terminal: one sentence, changes, open incidents, numbers near a limit. Not coloured."""
    lines = [
        f"{made.state.upper()}: {made.reason}",
        f"  {shown_time(made.at)}, round {made.number}, {counts_text(made.counts)}",
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
        lines.append(f"  open since {shown_time(one.since)}: {one.check}{more} ({one.level}): {one.message}"[:240])
    lines += [f"  … and {len(left) - MOST_LINES} more open"] * (len(left) > MOST_LINES)
    lines += [f"  nears its limit: {t.check}: {forecast_text(t)} at {slope_text(t)}" for t in found[:5]]
    lines += [f"  not due in this round: {with_unit(len(made.not_due), 'checks')}"] * bool(made.not_due)
    return Terminal.of_lines(lines)


def markdown(view: WatchView) -> Markdown:
    """history.md: the state, open incidents, numbers near a limit, all numbers, events."""
    last = view.last
    title = Markdown("## {} watch: {}").format(SIGNS[view.state], view.state)
    lines = [title, EMPTY, Markdown.escape(view.reason), EMPTY]
    if last is not None:
        told = Markdown("Last round {} ({}), release {}: {}. {} in 24 h.")
        counts = counts_text(last.counts)
        when = (shown_time(last.at), ago(last.at, view.now))
        lines.append(told.format(*when, last.release or "not said", counts, with_unit(len(view.recent), "rounds")))
    lines += [EMPTY, Markdown.escape(view.odd)] if view.odd else []
    lines += _open(view.open)
    found = view.trends()
    near = [Markdown("- {}: {} at {}").format(t.check, forecast_text(t), slope_text(t)) for t in nearing(found)]
    lines += [EMPTY, Markdown("Near a limit:"), EMPTY, *near] if near else []
    rows = with_numbers(found)
    if rows:
        lines += [EMPTY, *head("check", "now", "24 h least", "median", "most", "slope", "limits", "reached")]
        lines += [Markdown.row(_numbers(t)) for t in rows]
    flapping = [t for t in found.values() if t.flapping]
    if flapping:
        changes = (Markdown("- {}: {} changes in 24 h").format(t.check, t.changes) for t in flapping)
        lines += [EMPTY, Markdown("Flapping:"), EMPTY, *changes]
    if view.events:
        lines += [EMPTY, *head("when", "what", "check", "")]
        lines += [Markdown.row((shown_time(c.at), c.kind, c.check, c.message[:200])) for c in view.events[:30]]
    return Markdown.of_lines(lines)


def _open(incidents: Sequence[Incident]) -> list[Markdown]:
    if not incidents:
        return [EMPTY, Markdown("Nothing is open.")]
    lines = [EMPTY, *head("open", "level", "since", "seen last", "")]
    for one, *others in grouped_incidents(incidents)[:30]:
        seen = f"not seen since {shown_time(one.unseen_since)}" if one.unseen_since else shown_time(one.seen_at)
        level = one.level if one.firing else f"{one.level}, not certain yet"
        names = Markdown("{} and {} more").format(one.check, len(others)) if others else one.check
        lines.append(Markdown.row((names, level, shown_time(one.since), seen, one.message[:300])))
    return lines


def _numbers(trend: Trend) -> list[str]:
    unit = trend.reading.unit
    now = trend.reading.value if trend.reading.value is not None else trend.points[-1][1]
    values = (trend.low, trend.middle, trend.high)
    texts = [with_unit(now, unit), *map(shown, values)]
    return [trend.check, *texts, slope_text(trend), limits_text(trend), forecast_text(trend)]


def to_json(
    view: WatchView, made: Round | None = None, alive: WatcherHealth | None = None, slack_error: str = ""
) -> str:
    """One JSON object on one line, for machines. made: the round that was just made. alive: the watcher until then.
    Without them, the last round, and now.
    """
    last, health = made or view.last, alive or view.health
    state = made.state if made else view.state
    data: dict[str, JsonValue] = {
        "state": state,
        "exit_code": made.exit_code if made else EXIT_CODES[state],
        "reason": made.reason if made else view.reason,
        "now": view.now.isoformat(timespec="seconds"),
        "round": last.number if last else None,
        "at": last.at if last else None,
        "release": last.release if last else None,
        "counts": dict(last.counts) if last else None,
        "not_due": list(last.not_due) if last else [],
        "changes": [members_of(c) for c in last.changes] if last else [],
        "open": [members_of(i) for i in view.open],
        "action": dict(last.action) if last else {},
        "watcher": {
            "down_s": health.down_s,
            "blind_s": health.blind_s,
            "clock": health.clock,
            "said": health.said,
            "rounds_24h": len(view.recent),
            "from_the_future": view.future,
            "history": view.odd,
            "slack_error": slack_error,
        },
        "trends": {name: _trend(t) for name, t in view.trends().items() if t.points or t.changes},
    }
    return log(json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)) + "\n"


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
        "limit_reached_in_s": trend.forecast.in_s if trend.forecast else None,
        "limit_reached": trend.forecast.severity if trend.forecast else None,
        "unknown_because": trend.doubt or None,
        "changes_24h": trend.changes,
        "flapping": trend.flapping,
    }
