"""history.html: the watch in one self-contained file, in the look of report.html. Pure.

The state first, then what is open, what changed, what nears its limit, the numbers, every check as a strip of rounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from gates.incidents import span
from gates.reports.html import HERE, POLICY, text
from gates.reports.sparkline import line, strip
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
from gates.rounds import Change, Incident, Round
from gates.trends import FLAPS, WINDOW, Trend

CLASSES = {"good": "promote", "doubtful": "hold", "failing": "rollback"}
OUTCOMES = ("fail", "unknown", "pass")
MOST_OPEN = 60
MOST_NAMES = 12


def html(view: WatchView) -> str:
    """The whole document."""
    style = "".join((HERE / name).read_text(encoding="utf-8") for name in ("report.css", "watch.css"))
    script = (HERE / "report.js").read_text(encoding="utf-8")
    found = view.trends()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>watch: {view.state}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"{_header(view, found)}\n<main>\n{_open(view, found)}{_changes(view)}{_near(found)}{_numbers(view, found)}"
        f"{_checks(view, found)}{_events(view)}{_watcher(view)}</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _header(view: WatchView, found: Mapping[str, Trend]) -> str:
    last = view.last
    counts = last.counts if last else {}
    bar = "".join(f'<i class="{name}" style="flex:{counts[name]}"></i>' for name in counts if counts[name])
    facts = {"target": view.place or "not said"}
    if last is not None:
        facts |= {
            "release": last.release or "not said",
            "last round": f"{clock(last.at)} ({ago(last.at, view.now)})",
            "due every": span(last.interval_s) if last.interval_s else "not said",
            "rounds in 24 h": str(len(view.recent)),
            "passed": str(counts["pass"]),
            "failed": str(counts["fail"]),
            "unknown": str(counts["unknown"]),
            "flapping": str(sum(t.flapping for t in found.values())),
        }
    listed = "".join(f"<span>{name} <b>{text(value)}</b></span>" for name, value in facts.items())
    states = strip(
        [
            (r.started.timestamp(), {"good": "pass", "doubtful": "unknown", "failing": "fail"}[r.state])
            for r in view.recent
        ],
        *_window(view),
        "the state of every round in 24 hours",
    )
    return (
        f'<header class="{CLASSES[view.state]}"><div><h1>{view.state}<small>watch, 24 h</small></h1>'
        f'<p class="reason">{text(view.reason)}</p><div class="facts">{listed}</div>'
        f'<div class="bar">{bar}</div><div class="wide">{states}</div></div></header>'
    )


def _open(view: WatchView, found: Mapping[str, Trend]) -> str:
    incidents = view.open
    if not incidents:
        return ""
    groups = grouped_incidents(incidents)
    cards = "".join(_incident(g, found.get(g[0].check), view) for g in groups[:MOST_OPEN])
    more = f"<p>… and {len(groups) - MOST_OPEN} more.</p>" if len(groups) > MOST_OPEN else ""
    return f"<h2>Open</h2>\n{cards}{more}"


def _incident(group: Sequence[Incident], trend: Trend | None, view: WatchView) -> str:
    one = group[0]
    tint = "fail" if one.level == "page" else "not-applicable" if one.level == "note" else "unknown"
    seen = (
        f"not seen since {clock(one.unseen_since)}" if one.unseen_since else f"seen last {ago(one.seen_at, view.now)}"
    )
    facts = [one.level if one.firing else f"{one.level}, not certain yet", f"since {clock(one.since)}", seen]
    facts += [f"seen so in {one.rounds} round{'s' if one.rounds > 1 else ''}"]
    facts += ["rolled back"] * one.acted
    spec = view.specs.get(one.check) if len(group) == 1 else None
    about = f'<p class="claim">{text(spec.claim)}</p><p class="cost">{text(spec.cost)}</p>' if spec else ""
    picture = _strip(trend, view) if trend else ""
    names = "<br>".join(text(i.check) for i in group[:MOST_NAMES])
    names += f"<br>and {len(group) - MOST_NAMES} more" if len(group) > MOST_NAMES else ""
    return (
        f'<div class="finding {tint}"><h3>{names}</h3><p class="numbers">{text(", ".join(facts))}</p>'
        f"<p>{text(one.message)}</p>{about}{picture}</div>\n"
    )


def _changes(view: WatchView) -> str:
    changes = view.last.changes if view.last else ()
    if not changes:
        return ""
    return f"<h2>Otherwise than in the round before</h2>\n<table>{_change_rows(changes)}</table>\n"


def _change_rows(changes: Sequence[Change], *, when: bool = False) -> str:
    rows = []
    for first, *others in grouped_changes(changes):
        more = f" and {len(others)} more" if others else ""
        at = f"<td>{clock(first.at)}</td>" if when else ""
        kind = f'<td class="{_kind_class(first)}">{text(first.kind)}</td>'
        said = f'<td class="id"><code>{text(first.check)}</code>{more}</td><td>{text(first.message[:220])}</td>'
        rows.append(f"<tr>{at}{kind}{said}</tr>")
    return "".join(rows)


def _kind_class(change: Change) -> str:
    if change.kind in {"recovered", "seen again"}:
        return "said pass"
    return "said fail" if change.level == "page" else "said unknown"


def _near(found: Mapping[str, Trend]) -> str:
    near = nearing(found)
    if not near:
        return ""
    items = "".join(
        f"<li><code>{text(t.check)}</code>: {text(reach_text(t))}, at {text(slope_text(t))}</li>" for t in near
    )
    return f"<h2>Near a limit</h2>\n<ul>{items}</ul>\n"


def _numbers(view: WatchView, found: Mapping[str, Trend]) -> str:
    rows = "".join(_number_row(t, view) for t in with_numbers(found))
    if not rows:
        return ""
    titles = ("check", "24 h", "now", "least", "median", "most", "slope", "limits", "limit reached")
    head = "".join(f"<th>{t}</th>" for t in titles)
    note = (
        '<p class="claim">Slope: Theil and Sen’s median of all pairs; “steady” where its 95 % interval has zero in it. '
        "The limit is reached from the last value on at that slope.</p>"
    )
    return f'<h2>Numbers</h2>\n{note}<table class="numbers"><tr>{head}</tr>{rows}</table>\n'


def _number_row(trend: Trend, view: WatchView) -> str:
    unit = trend.reading.unit
    limits = [limit for _, limit in trend.reading.limits]
    said = f"{trend.check}: {number(trend.low)} to {number(trend.high)} {unit}"
    picture = line(trend.points, *_window(view), limits, text(said))
    now = number(trend.reading.value, unit) if trend.reading.value is not None else "unknown"
    cells = (now, number(trend.low), number(trend.middle), number(trend.high), slope_text(trend), limits_text(trend))
    listed = "".join(f"<td>{text(c)}</td>" for c in (*cells, reach_text(trend)))
    name = trend.check.removeprefix("alert/")
    return f'<tr class="{trend.reading.outcome.value}"><td>{text(name)}</td><td>{picture}</td>{listed}</tr>'


def _checks(view: WatchView, found: Mapping[str, Trend]) -> str:
    groups: dict[str, list[Trend]] = {}
    for trend in found.values():
        group = "/".join(trend.check.split("/")[:2]) if trend.check.count("/") > 1 else trend.check.split("/")[0]
        groups.setdefault(group, []).append(trend)
    if not groups:
        return ""
    boxes = "".join(
        f'<label><input type="checkbox" value="{name}" checked> <span>{name}</span></label>' for name in OUTCOMES
    )
    tools = f'<div class="tools"><input type="search" placeholder="Filter {len(found)} checks">{boxes}</div>'
    body = "".join(_group(name, groups[name], view) for name in sorted(groups))
    return f"<h2>All checks, 24 hours</h2>\n{tools}\n{body}"


def _group(name: str, group: Sequence[Trend], view: WatchView) -> str:
    counts = Counter(t.reading.outcome.value for t in group)
    worst = next(o for o in OUTCOMES if counts[o])
    said = ", ".join(f"{counts[o]} {'passed' if o == 'pass' else o}" for o in OUTCOMES if counts[o])
    opened = " open" if worst != "pass" else ""
    ordered = sorted(group, key=lambda t: (OUTCOMES.index(t.reading.outcome.value), t.check))
    rows = "".join(_row(t, view) for t in ordered)
    return (
        f'<details class="group"{opened}><summary><i class="dot {worst}"></i>{text(name)}<span>{said}</span></summary>'
        f"{rows}</details>\n"
    )


def _row(trend: Trend, view: WatchView) -> str:
    outcome = trend.reading.outcome.value
    facts = [f"{outcome} since {clock(trend.since)}", f"seen good last: {ago(trend.last_good, view.now)}"]
    facts += [f"flapping: {trend.changes} changes in 24 h (from {FLAPS} on)"] * trend.flapping
    facts += [trend.reading.message] * bool(trend.reading.message)
    spec = view.specs.get(trend.check)
    claim = f'<p class="claim">{text(spec.claim)}</p>' if spec else ""
    return (
        f'<details class="row" data-outcome="{outcome}"><summary><i class="dot {outcome}"></i>{text(trend.check)}'
        f"<em>{_strip(trend, view)}</em></summary><div><p>{text('; '.join(facts))}</p>{claim}</div></details>\n"
    )


def _strip(trend: Trend, view: WatchView) -> str:
    counts = Counter(outcome for _, outcome in trend.marks)
    said = ", ".join(f"{counts[o]} {o}" for o in OUTCOMES if counts[o])
    return strip(trend.marks, *_window(view), f"rounds in 24 h: {said}")


def _events(view: WatchView) -> str:
    events = view.events
    if not events:
        return ""
    return f"<h2>What happened in 24 hours</h2>\n<table>{_change_rows(events, when=True)}</table>\n"


def _watcher(view: WatchView) -> str:
    """The watch itself: how often it looked, when it was down, what is odd about its file."""
    facts = [("rounds in the history", str(view.total))]
    if view.last is not None:
        facts.append(("drills of a round", view.last.drills))
        facts.append(("what the last round came to", counts_text(view.last.counts)))
    facts += [("the watcher now", view.pulse.said)] * bool(view.pulse.said)
    facts += [("was down", _down(r)) for r in view.recent if r.down_s]
    facts += [("clock", f"{clock(r.at)}: {r.clock}") for r in view.recent if r.clock]
    facts += [("rounds from the future, left out", str(view.future))] * bool(view.future)
    facts += [("the file", view.odd)] * bool(view.odd)
    facts += [("rounds removed, as too old or too many", str(view.dropped))] * bool(view.dropped)
    facts += [("rounds of other targets, left out", str(view.others))] * bool(view.others)
    rows = "".join(f"<tr><td>{text(name)}</td><td>{text(value)}</td></tr>" for name, value in facts)
    made = clock(view.now.isoformat())
    foot = f"<footer>Made {made}: <code>gate watch --report</code>.</footer>\n"
    return f"<h2>The watch itself</h2>\n<table>{rows}</table>\n{foot}"


def _down(one: Round) -> str:
    return f"until {clock(one.at)}, for {span(one.down_s)}"


def _window(view: WatchView) -> tuple[float, float]:
    """Start and end of the pictures: the window, or from the first round on where that is younger."""
    end = view.now.timestamp()
    first = view.recent[0].started.timestamp() if view.recent else end - 3600
    return max(end - WINDOW.total_seconds(), min(first, end - 60)), end
