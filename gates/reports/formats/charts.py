"""The pictures of a run, from its record: the flag's steps, limits, latency, lag, backlog, time. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from gates.decision.assessment import number
from gates.decision.decide import BACKLOG
from gates.decision.margin import margin_of
from gates.evidence import shown_time
from gates.reports.formats.format import ReportSource
from gates.reports.formats.rows import Row
from gates.reports.page import NOTHING, outcome
from gates.reports.pictures import Distribution, boxes, bullet, chart, interval, way
from gates.reports.sentences import percent
from gates.text.inert import Html
from gates.text.quantity import shown, with_unit

COHORT = "cohort/"
RUN_VALID = "load/run-valid"
"""The check whose evidence carries the whole load."""
MOST_LIMITS = 12
"""How many numbers are shown; the others are folded."""
TRENDS = {"latency": ("http_req_duration", "Latency of requests"), "outbox_lag": ("outbox_lag_ms", "Lag of the outbox")}
Series = list[tuple[float, float]]


def figures(source: ReportSource) -> Html:
    """Every picture that the run has data for."""
    rows = {row.check: row for row in source.rows}
    load = next((e.details for e in reversed(source.evidence) if e.check == RUN_VALID), {})
    cohorts = (_cohort(row) for row in source.rows if row.check.startswith(COHORT))
    found = [_way(source), *cohorts, *_trends(load, rows), *_timeline(load), _backlog(source)]
    return NOTHING.join(one for one in found if one)


def figure(title: str | Html, picture: Html, said: str) -> Html:
    """A picture with its title and a description; nothing without a picture."""
    if not picture:
        return NOTHING
    words = said.replace(" %", "\N{NO-BREAK SPACE}%")
    return Html("<figure><figcaption>{}</figcaption>{}<p>{}</p></figure>\n").format(title, picture, words)


def _way(source: ReportSource) -> Html:
    action, plan = source.verdict.action, source.plan
    after = action.from_percent if action.result == "dry_run" else action.to_percent
    if source.verdict.stage is not None or after is None:
        return NOTHING
    steps = " → ".join(f"{step} %" for step in plan.steps)
    said = (
        f"{percent(action.from_percent)} before, {percent(after)} now. Steps: {steps}, {plan.bake_minutes} min apart."
    )
    past = source.run.get("past")
    told = [_past(one) for one in reversed(past) if isinstance(one, dict)] if isinstance(past, list) else []
    words = f"{said} Decided before: {'; '.join(told)}." if told else said
    return figure(f"The flag {plan.flag}", way(plan.steps, action.from_percent, after, said), words)


def _past(one: Mapping[str, Any]) -> str:
    """An earlier decision: what, when, about which release, where the flag stood after it."""
    after = number(one.get("after"))
    flag = "" if after is None else f", flag {percent(int(after))}"
    return f"{one.get('decision')} on {shown_time(str(one.get('finished_at', '')))} ({one.get('release')}{flag})"


def _cohort(row: Row) -> Html:
    """How tenants with the flag on fare compared with those with it off: both distributions, and the difference."""
    sides = [_side(row.details.get(name), f"flag {name}") for name in ("on", "off")]
    bounds: Any = row.details.get("difference")
    numbers = [number(one) for one in bounds] if isinstance(bounds, list) else []
    limit = number(row.limit)
    if None in sides or None in numbers or len(numbers) != 3 or limit is None:
        return NOTHING
    (on, tenants_on), (off, tenants_off) = (side for side in sides if side)
    low, value, high = (round(100 * (one or 0.0), 4) for one in numbers)
    words = f"Of the events of {tenants_on} tenants with the flag on {on.mean:.3g} %, of {tenants_off} with it off"
    words += f" {off.mean:.3g} %. On: {_spread(on)}; off: {_spread(off)}."
    more = f"The difference is {value:.3g} points, surely between {low:.3g} and {high:.3g}; {limit:g} are allowed."
    picture = boxes((on, off), "%", words) + interval(low, value, high, limit, "points", more)
    title = str(row.details.get("bad") or row.check)
    head = Html('<a href="#{}">{}</a> {}').format(row.anchor, title[:1].upper() + title[1:], outcome(row.outcome))
    return figure(head, picture, f"{words} {more}")


def _side(told: object, name: str) -> tuple[Distribution, int] | None:
    """One cohort in percent of its events, and its number of tenants; None if it has none."""
    if not isinstance(told, dict) or not isinstance(told.get("shares"), list):
        return None
    values = [number(one) for one in (told.get("mean"), *told["shares"])]
    percents = [100 * one for one in values if one is not None]
    if len(percents) != len(values) or len(percents) != 6:
        return None
    mean, least, low, median, high, greatest = percents
    return Distribution(name, (least, low, median, high, greatest), mean), int(number(told.get("tenants")) or 0)


def _spread(side: Distribution) -> str:
    return f"half of them at {side.five[2]:.3g} % or less, the worst at {side.five[4]:.3g} %"


def _trends(load: Mapping[str, Any], rows: Mapping[str, Row]) -> Iterator[Html]:
    """The distribution of each trend by percentile, with the limits of its percentiles and the bounds of each."""
    for member, (metric, title) in TRENDS.items():
        seen = load.get(member)
        steps = seen.get("steps") if isinstance(seen, dict) else None
        if not isinstance(seen, dict) or not isinstance(steps, list):
            continue
        points = _series(list(pair) for pair in enumerate(steps))
        judged = [r for name, r in rows.items() if name.startswith(f"load/{metric}/p")]
        limits = [(r.check.rpartition("/")[2], v) for r in judged if (v := number(r.limit)) is not None]
        bounds = [b for r in judged if (b := _bounds(r)) is not None]
        said = f"Half within {_ms(seen, 'p50')}, 95 % within {_ms(seen, 'p95')}, all within {_ms(seen, 'p100')}"
        said += "".join(f"; limit of {name} {limit:g} ms" for name, limit in limits)
        said += f"; {shown(seen.get('samples'))} samples, on a logarithmic scale."
        if not points:
            continue
        ends = (f"fastest, {with_unit(points[0][1], 'ms')}", f"slowest, {with_unit(points[-1][1], 'ms')}")
        picture = chart(points, said, limits=limits, bounds=bounds, unit="ms", ends=ends, logarithmic=True)
        yield figure(f"{title}, by percentile", picture, said)


def _bounds(row: Row) -> tuple[float, float, float] | None:
    at = number(_float(row.check.rpartition("/")[2].removeprefix("p")))
    low, high = number(row.details.get("low")), number(row.details.get("high"))
    return None if at is None or low is None or high is None else (at, low, high)


def _timeline(load: Mapping[str, Any]) -> Iterator[Html]:
    """Requests and slow ones over the load."""
    seconds = [s for s in load.get("timeline") or [] if isinstance(s, dict)]
    for member, title, unit in (
        ("p95", "95th percentile of latency, by second", "ms"),
        ("requests", "Requests, by second", ""),
    ):
        points = _series([s.get("second"), s.get(member)] for s in seconds if member != "p95" or s.get("requests"))
        if points:
            values = [v for _, v in points]
            failed = sum(int(number(s.get("failed")) or 0) for s in seconds)
            between = f"From {with_unit(min(values), unit)} to {with_unit(max(values), unit)}"
            said = f"{between}; {with_unit(failed, 'requests')} failed."
            ends = (f"{points[0][0]:g} s", f"{points[-1][0]:g} s")
            yield figure(title, chart(points, said, unit=unit, ends=ends), said)


def _backlog(source: ReportSource) -> Html:
    """Events that waited, over the whole run."""
    seen: Any = next((e.details.get("samples") for e in reversed(source.evidence) if e.check == BACKLOG), None)
    points = _series(seen if isinstance(seen, list) else [])
    if not points:
        return NOTHING
    said = (
        f"{points[0][1]:g} events waited at first, {max(v for _, v in points):g} at most, {points[-1][1]:g} at the end."
    )
    ends = (f"{points[0][0]:.0f} s", f"{points[-1][0]:.0f} s")
    return figure("Events waiting in the outbox, over the run", chart(points, said, ends=ends), said)


def limits(source: ReportSource) -> Html:
    """Each number against its limits, the nearest first."""
    found = sorted(filter(None, map(_used, source.rows)), key=lambda pair: (-pair[0], pair[1].check))
    if not found:
        return NOTHING
    near, others = (_limits(part) for part in (found[:MOST_LIMITS], found[MOST_LIMITS:]))
    more = Html("<details><summary>{} more, with more room</summary>{}</details>")
    return near + (more.format(len(found) - MOST_LIMITS, others) if others else NOTHING)


def _limits(found: Sequence[tuple[float, Row]]) -> Html:
    head = Html("<tr><th>check</th><th>of the limit</th><th>used</th><th>observed</th></tr>")
    body = NOTHING.join(_limit(used, row) for used, row in found)
    return Html('<table class="limits">{}{}</table>').format(head, body) if found else NOTHING


def _used(row: Row) -> tuple[float, Row] | None:
    """The share of its limit that a check used; over 1 if it was broken."""
    margin = margin_of(row.check, row.observed, row.limit, row.unit)
    if margin is None or row.outcome not in {"pass", "fail"}:
        return None
    seen, most = margin.observed, margin.limit
    if row.outcome == "pass":
        return 1 - margin.room, row
    is_least = seen < most and 0 < most < 1  # of a share: compare what is missing with what may be missing
    return ((1 - seen) / (1 - most) if is_least else seen / most if seen > most > 0 else 1 + margin.room), row


def _limit(used: float, row: Row) -> Html:
    most = number(row.limit) or 1.0
    given: Any = row.details.get("limits")
    levels = given if isinstance(given, dict) else {}
    ticks = [v / most for name in levels if (v := number(levels[name])) is not None] or [1.0]
    words = ", ".join(f"{name} {shown(value)}" for name, value in levels.items()) or f"limit {shown(row.limit)}"
    said = f"{with_unit(row.observed, row.unit)}; {words}"
    return Html('<tr><td><a href="#{}">{}</a></td><td>{}</td><td>{:.0f} %</td><td>{}</td></tr>').format(
        row.anchor, row.check, bullet(used, row.outcome, f"{row.check}: {said}", ticks), used * 100, said
    )


def times(source: ReportSource) -> Html:
    """Where the time of the run went, by stage."""
    stages: Any = source.run.get("stages")
    told = [s for s in stages if isinstance(s, dict)] if isinstance(stages, list) else []
    longest = max((number(s.get("seconds")) or 0.0 for s in told), default=0.0) or 1.0
    rows = NOTHING.join(
        Html("<tr><td>{}</td><td>{}</td><td>{} s</td><td>{}</td></tr>").format(
            s.get("stage") or "",
            bullet((number(s.get("seconds")) or 0.0) / longest, "step", "", ()),
            shown(s.get("seconds")),
            s.get("error") or "",
        )
        for s in told
    )
    return Html('<table class="limits">{}</table>').format(rows) if rows else NOTHING


def _series(pairs: Any) -> Series:
    """The pairs of two numbers, ordered by the first; nothing for a single pair."""
    numbers = [(number(p[0]), number(p[1])) for p in pairs if isinstance(p, Sequence) and len(p) == 2]
    found = sorted((at, value) for at, value in numbers if at is not None and value is not None)
    return [a for a, b in pairwise([*found, (float("inf"), 0.0)]) if a[0] < b[0]] if len(found) > 1 else []


def _ms(seen: Mapping[str, Any], name: str) -> str:
    return with_unit(seen.get(name), "ms")


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
