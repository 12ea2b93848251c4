"""history.html: the watch as one self-contained page in the style of report.html. Pure. The state first, then open
incidents, changes, numbers near a limit, all numbers, and every check as a strip of rounds.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from gates.contract.remedies import remedy_of
from gates.evidence import shown_time
from gates.reports.page import document, outcome, section, tools
from gates.reports.pictures import line, proportions, strip
from gates.text.inert import Html
from gates.text.quantity import shown, span, with_unit
from gates.watch.rounds import Change, Incident
from gates.watch.trends import FLAPS, WINDOW, Trend
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

STYLE = Path(__file__).with_name("watch.css")
CLASSES = {"good": "promote", "doubtful": "hold", "failing": "rollback"}
OUTCOMES = ("fail", "unknown", "pass")
MOST_OPEN = 60
MOST_NAMES = 12


def html(view: WatchView) -> Html:
    found = view.trends()
    parts = (_open(view, found), _changes(view), _near(found), _numbers(view, found), _checks(view, found))
    body = Html("").join([*parts, _events(view), _watcher(view)])
    title = f"watch: {view.state}"
    return document(title, _header(view, found), body, STYLE)


def _header(view: WatchView, found: Mapping[str, Trend]) -> Html:
    last = view.last
    counts = last.counts if last else {}
    facts = {"target": view.place or "not said"}
    if last is not None:
        facts |= {
            "release": last.release or "not said",
            "last round": f"{shown_time(last.at)} ({ago(last.at, view.now)})",
            "due every": span(last.interval_s) if last.interval_s else "not said",
            "rounds in 24 h": str(len(view.recent)),
            "passed": str(counts["pass"]),
            "failed": str(counts["fail"]),
            "unknown": str(counts["unknown"]),
            "flapping": str(sum(t.flapping for t in found.values())),
        }
    listed = Html("").join(Html("<span>{} <b>{}</b></span>").format(name, value) for name, value in facts.items())
    states = strip(
        [
            (r.started.timestamp(), {"good": "pass", "doubtful": "unknown", "failing": "fail"}[r.state])
            for r in view.recent
        ],
        *_window(view),
        "the state of every round in 24 hours",
    )
    return Html(
        '<header class="{}"><div><h1>{}<small>watch, 24 h</small></h1><p class="reason">{}</p>'
        '<div class="facts">{}</div>{}<div class="wide">{}</div></div></header>'
    ).format(CLASSES[view.state], view.state, view.reason, listed, proportions(counts), states)


def _open(view: WatchView, found: Mapping[str, Trend]) -> Html:
    incidents = view.open
    if not incidents:
        return Html("")
    groups = grouped_incidents(incidents)
    cards = Html("").join(_incident(g, found.get(g[0].check), view) for g in groups[:MOST_OPEN])
    more = Html("<p>… and {} more.</p>").format(len(groups) - MOST_OPEN) if len(groups) > MOST_OPEN else Html("")
    return Html("<h2>Open</h2>\n{}{}").format(cards, more)


def _incident(group: Sequence[Incident], trend: Trend | None, view: WatchView) -> Html:
    one = group[0]
    tint = "fail" if one.level == "page" else "not-applicable" if one.level == "note" else "unknown"
    seen = (
        f"not seen since {shown_time(one.unseen_since)}"
        if one.unseen_since
        else f"seen last {ago(one.seen_at, view.now)}"
    )
    facts = [one.level if one.firing else f"{one.level}, not certain yet", f"since {shown_time(one.since)}", seen]
    facts += [f"seen so in {one.rounds} round{('s' if one.rounds > 1 else Html(''))}"]
    facts += ["rolled back"] * one.acted
    spec = view.specs.get(one.check) if len(group) == 1 else None
    about = Html('<p class="claim">{}</p><p class="cost">{}</p>').format(spec.claim, spec.cost) if spec else Html("")
    remedy = remedy_of(one.check, "fail" if one.kind == "failing" else "unknown", view.contract, seen=one.message)
    do = Html('<p class="do"><b>What to do:</b> {}</p>').format(Html.prose(remedy)) if remedy else Html("")
    picture = _strip(trend, view) if trend else Html("")
    names = Html("<br>").join(i.check for i in group[:MOST_NAMES])
    names += Html("<br>and {} more").format(len(group) - MOST_NAMES) if len(group) > MOST_NAMES else Html("")
    return Html('<div class="finding {}"><h3>{}</h3><p class="numbers">{}</p><p>{}</p>{}{}{}</div>\n').format(
        tint, names, ", ".join(facts), one.message, do, about, picture
    )


def _changes(view: WatchView) -> Html:
    changes = view.last.changes if view.last else ()
    if not changes:
        return Html("")
    table = Html('<table class="rows">{}</table>\n').format(_change_rows(changes))
    return Html("<h2>Otherwise than in the round before</h2>\n{}").format(table)


def _change_rows(changes: Sequence[Change], *, when: bool = False) -> Html:
    rows = []
    for first, *others in grouped_changes(changes):
        more = f" and {len(others)} more" if others else Html("")
        at = Html("<td>{}</td>").format(shown_time(first.at)) if when else Html("")
        kind = Html('<td class="{}">{}</td>').format(_kind_class(first), first.kind)
        said = Html('<td class="id"><code>{}</code>{}</td><td>{}</td>').format(first.check, more, first.message[:220])
        rows.append(Html("<tr>{}{}{}</tr>").format(at, kind, said))
    return Html("").join(rows)


def _kind_class(change: Change) -> str:
    if change.kind in {"recovered", "seen again"}:
        return "said pass"
    return "said fail" if change.level == "page" else "said unknown"


def _near(found: Mapping[str, Trend]) -> Html:
    near = nearing(found)
    if not near:
        return Html("")
    items = Html("").join(
        Html("<li><code>{}</code>: {}, at {}</li>").format(t.check, forecast_text(t), slope_text(t)) for t in near
    )
    return Html("<h2>Near a limit</h2>\n<ul>{}</ul>\n").format(items)


def _numbers(view: WatchView, found: Mapping[str, Trend]) -> Html:
    rows = Html("").join(_number_row(t, view) for t in with_numbers(found))
    if not rows:
        return Html("")
    titles = ("check", "24 h", "now", "least", "median", "most", "slope", "limits", "limit reached")
    head = Html("").join(Html("<th>{}</th>").format(t) for t in titles)
    note = Html(
        '<p class="claim">Slope: Theil and Sen’s median of all pairs; “steady” where its 95 % interval has zero in it. '
        "The limit is reached from the last value on at that slope.</p>"
    )
    return Html('<h2>Numbers</h2>\n{}<table class="numbers"><tr>{}</tr>{}</table>\n').format(note, head, rows)


def _number_row(trend: Trend, view: WatchView) -> Html:
    unit = trend.reading.unit
    limits = [limit for _, limit in trend.reading.limits]
    said = f"{trend.check}: {shown(trend.low)} to {with_unit(trend.high, unit)}"
    picture = line(trend.points, *_window(view), limits, said)
    now = with_unit(trend.reading.value, unit) if trend.reading.value is not None else "unknown"
    cells = (now, *map(shown, (trend.low, trend.middle, trend.high)), slope_text(trend), limits_text(trend))
    listed = Html("").join(Html("<td>{}</td>").format(c) for c in (*cells, forecast_text(trend)))
    name = trend.check.removeprefix("alert/")
    return Html('<tr class="{}"><td>{}</td><td>{}</td>{}</tr>').format(
        trend.reading.outcome.value, name, picture, listed
    )


def _checks(view: WatchView, found: Mapping[str, Trend]) -> Html:
    groups: dict[str, list[Trend]] = {}
    for trend in found.values():
        group = "/".join(trend.check.split("/")[:2]) if trend.check.count("/") > 1 else trend.check.split("/")[0]
        groups.setdefault(group, []).append(trend)
    if not groups:
        return Html("")
    body = Html("").join(_group(name, groups[name], view) for name in sorted(groups))
    return section("All checks, 24 hours", tools(len(found), OUTCOMES), body)


def _group(name: str, group: Sequence[Trend], view: WatchView) -> Html:
    counts = Counter(t.reading.outcome.value for t in group)
    worst = next(o for o in OUTCOMES if counts[o])
    said = ", ".join(f"{counts[o]} {('passed' if o == 'pass' else o)}" for o in OUTCOMES if counts[o])
    opened = " open" if worst != "pass" else Html("")
    ordered = sorted(group, key=lambda t: (OUTCOMES.index(t.reading.outcome.value), t.check))
    rows = Html("").join(_row(t, view) for t in ordered)
    return Html('<details class="group"{}><summary>{} {}<span>{}</span></summary>{}</details>\n').format(
        opened, outcome(worst), name, said, rows
    )


def _row(trend: Trend, view: WatchView) -> Html:
    seen = trend.reading.outcome.value
    facts = [f"{seen} since {shown_time(trend.since)}", f"seen good last: {ago(trend.last_good, view.now)}"]
    facts += [f"flapping: {trend.changes} changes in 24 h (from {FLAPS} on)"] * trend.flapping
    facts += [trend.reading.message] * bool(trend.reading.message)
    spec = view.specs.get(trend.check)
    claim = Html('<p class="claim">{}</p>').format(spec.claim) if spec else Html("")
    return Html(
        '<details class="row" data-outcome="{}"><summary>{} {}<em>{}</em></summary><div><p>{}</p>{}</div></details>\n'
    ).format(seen, outcome(seen), trend.check, _strip(trend, view), "; ".join(facts), claim)


def _strip(trend: Trend, view: WatchView) -> str:
    counts = Counter(outcome for _, outcome in trend.marks)
    said = ", ".join(f"{counts[o]} {o}" for o in OUTCOMES if counts[o])
    return strip(trend.marks, *_window(view), f"rounds in 24 h: {said}")


def _events(view: WatchView) -> Html:
    events = view.events
    if not events:
        return Html("")
    table = Html('<table class="rows">{}</table>\n').format(_change_rows(events, when=True))
    return Html("<h2>What happened in 24 hours</h2>\n{}").format(table)


def _watcher(view: WatchView) -> Html:
    """The watch itself: how often it looked, when it was down, what is odd about its file."""
    facts = [("rounds in the history", str(view.total))]
    if view.last is not None:
        facts.append(("drills of a round", view.last.drills))
        facts.append(("what the last round came to", counts_text(view.last.counts)))
    facts += [("the watcher now", view.health.said)] * bool(view.health.said)
    facts += [("was down", f"until {shown_time(r.at)}, for {span(r.down_s)}") for r in view.recent if r.down_s]
    facts += [("clock", f"{shown_time(r.at)}: {r.clock}") for r in view.recent if r.clock]
    facts += [("rounds from the future, left out", str(view.future))] * bool(view.future)
    facts += [("the file", view.odd)] * bool(view.odd)
    facts += [("rounds removed, as too old or too many", str(view.dropped))] * bool(view.dropped)
    facts += [("rounds of other targets, left out", str(view.others))] * bool(view.others)
    rows = Html("").join(Html("<tr><td>{}</td><td>{}</td></tr>").format(name, value) for name, value in facts)
    made = shown_time(view.now.isoformat())
    foot = Html("<footer>Made {}: <code>gate watch --report</code>.</footer>\n").format(made)
    return Html("<h2>The watch itself</h2>\n<table>{}</table>\n{}").format(rows, foot)


def _window(view: WatchView) -> tuple[float, float]:
    """Start and end of the pictures: the window, or from the first round on if that is later."""
    end = view.now.timestamp()
    first = view.recent[0].started.timestamp() if view.recent else end - 3600
    return max(end - WINDOW.total_seconds(), min(first, end - 60)), end
