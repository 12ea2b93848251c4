"""Inline SVG, each with a text equivalent. Pure; no script, no network.

A line of values with limits, a strip of outcomes, proportions, a number against its limits, a curve, the steps of a
flag, distributions side by side, a number with its bounds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gates.text.inert import Html
from gates.text.quantity import with_unit

WIDTH, HEIGHT, PAD = 180.0, 34.0, 3.0
STRIP_WIDTH, STRIP_HEIGHT = 180.0, 12.0
GAP_FACTOR = 3.0
"""A pause this many times as long as the usual one is shown as a gap: nothing was seen then."""


def line(
    points: Sequence[tuple[float, float]], start: float, end: float, limits: Sequence[float] = (), said: str = ""
) -> Html:
    """Values between two times; limits are drawn if they are near enough to the values to be seen."""
    if not points:
        return Html("")
    values = [v for _, v in points]
    low, high = (min(values), max(values))
    room = high - low or abs(high) or 1.0
    shown = [limit for limit in limits if low - room <= limit <= high + room]
    low, high = (min([low, *shown]), max([high, *shown]))
    height = high - low or 1.0

    def x(at: float) -> float:
        return PAD + (WIDTH - 2 * PAD) * (at - start) / max(end - start, 1e-9)

    def y(value: float) -> float:
        return HEIGHT - PAD - (HEIGHT - 2 * PAD) * (value - low) / height if high > low else HEIGHT / 2

    rules = Html("").join(
        Html('<line class="limit" x1="0" x2="{:g}" y1="{:.1f}" y2="{:.1f}"/>').format(WIDTH, y(limit), y(limit))
        for limit in shown
    )
    runs = Html("").join(
        Html('<polyline points="{}"/>').format(" ".join((f"{x(at):.1f},{y(v):.1f}" for at, v in run)))
        if len(run) > 1
        else Html('<circle cx="{:.1f}" cy="{:.1f}" r="1.4"/>').format(x(run[0][0]), y(run[0][1]))
        for run in pieces(points)
    )
    at, value = points[-1]
    last = Html('<circle class="last" cx="{:.1f}" cy="{:.1f}" r="2.4"/>').format(x(at), y(value))
    return _svg("spark", WIDTH, HEIGHT, rules + runs + last, said)


def pieces(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The points, split where nothing was seen for long."""
    steps = sorted(b[0] - a[0] for a, b in pairwise(points))
    usual = steps[len(steps) // 2] if steps else 0.0
    found: list[list[tuple[float, float]]] = [[points[0]]]
    for before, one in pairwise(points):
        if usual and one[0] - before[0] > GAP_FACTOR * usual:
            found.append([])
        found[-1].append(one)
    return found


def strip(marks: Sequence[tuple[float, str]], start: float, end: float, said: str = "") -> Html:
    """Outcomes between two times, one bar each; equal neighbours share a bar. Times without an outcome are empty."""
    if not marks:
        return Html("")
    steps = sorted((b[0] - a[0] for a, b in pairwise(marks)))
    usual = steps[len(steps) // 2] if steps else (end - start) / 40
    scale = STRIP_WIDTH / max(end - start, marks[-1][0] + usual - start, 1e-9)  # the last one has a width, too
    bars: list[tuple[float, float, str]] = []
    for at, outcome in marks:
        begin, finish = ((at - start) * scale, min((at - start + usual) * scale, STRIP_WIDTH))
        finish = max(finish, begin + 1.0)
        if bars and bars[-1][2] == outcome and (begin - bars[-1][1] < 1.0):
            bars[-1] = (bars[-1][0], finish, outcome)
        else:
            bars.append((begin, finish, outcome))
    # failures are drawn last, so that one bad round among a thousand good ones is visible
    bars.sort(key=lambda b: ("pass", "unknown", "fail").index(b[2]))
    body = Html("").join(
        (
            Html('<rect class="{}" x="{:.1f}" width="{:.1f}" y="0" height="{:g}"/>').format(
                outcome, a, max(b - a, 1.5 if outcome != "pass" else 0.5), STRIP_HEIGHT
            )
            for a, b, outcome in bars
        )
    )
    return _svg("strip", STRIP_WIDTH, STRIP_HEIGHT, body, said)


def proportions(numbers: Mapping[str, int], said: str = "") -> Html:
    """A bar with a part for each number, as wide as the number is great."""
    least = sum(numbers.values()) / 100  # one among a thousand stays visible
    rects, x = [], 0.0
    for name, number in numbers.items():
        width = max(float(number), least) if number else 0.0
        rects.append(Html('<rect class="{}" x="{:g}" width="{:g}" y="0" height="1"/>').format(name, x, width))
        x += width
    return _svg("bar", x or 1, 1, Html("").join(rects), said)


CHART_WIDTH, CHART_HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320.0, 118.0, 6.0, 6.0, 18.0, 16.0
FAR = 3.0
"""A limit this many times over the greatest value is not drawn: it would flatten what was seen."""


def chart(
    points: Sequence[tuple[float, float]],
    said: str,
    *,
    limits: Sequence[tuple[str, float]] = (),
    bounds: Sequence[tuple[float, float, float]] = (),
    unit: str = "",
    ends: tuple[str, str] = ("", ""),
    logarithmic: bool = False,
) -> Html:
    """A curve with named limits and bounds (at, low, high) of single values; from zero on, or from the least value on a
    logarithmic scale, which shows every limit. ends: words below both ends; a logarithmic scale is read by them.
    """
    if len(points) < 2:
        return Html("")
    start, end = points[0][0], points[-1][0]
    most = max(*(v for _, v in points), *(high for _, _, high in bounds), 1e-09)
    drawn = [(name, limit) for name, limit in limits if limit > 0 and (logarithmic or limit <= FAR * most)]
    most = max([most, *(limit for _, limit in drawn)])
    floor = CHART_HEIGHT - BOTTOM
    least = min((v for _, v in points if v > 0), default=most)

    def x(at: float) -> float:
        return LEFT + (CHART_WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, (at - start) / max(end - start, 1e-9)))

    def y(value: float) -> float:
        share = math.log(max(value, least) / least) / (math.log(most / least) or 1.0) if logarithmic else value / most
        return floor - (floor - TOP) * min(1.0, max(0.0, share))

    parts = [Html('<line class="axis" x1="{:g}" x2="{:g}" y1="{:g}" y2="{:g}"/>').format(LEFT, x(end), floor, floor)]
    line = Html('<line class="limit" x1="{:g}" x2="{:g}" y1="{:.1f}" y2="{:.1f}"/>')
    parts += [line.format(LEFT, x(end), y(limit), y(limit)) for _, limit in drawn]
    parts += [
        Html('<polyline points="{}"/>').format(" ".join(f"{x(at):.1f},{y(v):.1f}" for at, v in run))
        for run in pieces(points)
    ]
    for at, low, high in bounds:
        parts.append(
            Html('<line class="bounds" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
                x(at), x(at), y(low), y(high)
            )
        )
    parts += [_label(x(end), y(limit) - 5, f"{name} {limit:g} {unit}".rstrip(), "end") for name, limit in drawn]
    highest = max(v for _, v in points)
    if highest and not logarithmic:  # zero is the axis
        parts.append(_label(LEFT, max(y(highest) - 3, 10.0), with_unit(highest, unit), "start"))
    parts += [_label(LEFT, CHART_HEIGHT - 3, ends[0], "start"), _label(x(end), CHART_HEIGHT - 3, ends[1], "end")]
    return _svg("chart", CHART_WIDTH, CHART_HEIGHT, Html("").join(parts), said)


def _label(x: float, y: float, text: str, anchor: str) -> Html:
    return Html('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


FULL = 1.6
"""A number against its limit is drawn up to this many times the limit."""


def bullet(used: float, outcome: str, said: str, ticks: Sequence[float] = (1.0,)) -> Html:
    """A bar as long as the used share of a limit; ticks: limits, in parts of the last one."""
    scale = STRIP_WIDTH / FULL
    bar = Html('<rect class="{}" x="0" y="2" width="{:.1f}" height="8"/>').format(
        outcome, max(1.0, min(used, FULL) * scale)
    )
    marks = Html("").join(
        Html('<line class="limit" x1="{:.1f}" x2="{:.1f}" y1="0" y2="12"/>').format(tick * scale, tick * scale)
        for tick in ticks
        if 0 < tick <= FULL
    )
    return _svg("bullet", STRIP_WIDTH, STRIP_HEIGHT, bar + marks, said)


def way(steps: Sequence[int], before: int | None, after: int | None, said: str) -> Html:
    """The steps of a flag from off to the last one; shows the present percentage, and the one before."""
    width, middle, room, stops = CHART_WIDTH, 12.0, 34.0, [0, *sorted(steps)]

    def x(percent: int) -> float:
        """Steps have equal distances; a value between two of them is placed between them."""
        place = sum(1 for stop in stops if stop <= percent) - 1
        low, high = stops[place], stops[min(place + 1, len(stops) - 1)]
        return room + (width - 2 * room) * (place + (percent - low) / max(1, high - low)) / max(1, len(stops) - 1)

    parts = [
        Html('<line class="axis" x1="{:g}" x2="{:g}" y1="{:g}" y2="{:g}"/>').format(room, x(stops[-1]), middle, middle)
    ]
    if after:
        parts.append(
            Html('<line class="on" x1="{:g}" x2="{:g}" y1="{:g}" y2="{:g}"/>').format(room, x(after), middle, middle)
        )
    for step in sorted({*stops, *(p for p in (before, after) if p is not None and 0 <= p <= stops[-1])}):
        kind = "now" if step == after else "was" if step == before else "step"
        parts.append(Html('<circle class="{}" cx="{:g}" cy="{:g}" r="5"/>').format(kind, x(step), middle))
        name = f"{step} %" if step else "off"
        parts.append(_label(x(step), middle + 20, name + {"now": ", now", "was": ", before"}.get(kind, ""), "middle"))
    return _svg("way", width, 38.0, Html("").join(parts), said)


ROW = 26.0
NAMES = 52.0
"""The width that the names of distributions have."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Least, quartiles and greatest of some values, and their mean."""

    name: str
    five: tuple[float, float, float, float, float]
    mean: float


def boxes(sides: Sequence[Distribution], unit: str, said: str) -> Html:
    """Distributions on one axis from zero on: whiskers, the middle half, the median, the mean."""
    most = max(1e-9, *(max(side.five[4], side.mean) for side in sides))
    height = ROW * len(sides) + BOTTOM

    def x(value: float) -> float:
        return NAMES + (CHART_WIDTH - NAMES - RIGHT) * min(1.0, max(0.0, value / most))

    parts = []
    for index, side in enumerate(sides):
        middle, kind = ROW * (index + 0.5), "first" if index == 0 else "other"
        least, low, median, high, greatest = map(x, side.five)
        parts += [
            _label(0, middle + 4, side.name, "start"),
            _rule("axis", least, greatest, middle),
            Html('<rect class="{}" x="{:.1f}" width="{:.1f}" y="{:.1f}" height="14"/>').format(
                kind, low, max(1.5, high - low), middle - 7
            ),
            Html('<line class="median" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
                median, median, middle - 9, middle + 9
            ),
            Html('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>').format(x(side.mean), middle),
        ]
    parts += [_rule("axis", NAMES, CHART_WIDTH - RIGHT, height - BOTTOM), _label(NAMES, height - 3, "0", "start")]
    parts.append(_label(CHART_WIDTH - RIGHT, height - 3, f"{most:.3g} {unit}" if most > 1e-9 else "", "end"))
    return _svg("boxes", CHART_WIDTH, height, Html("").join(parts), said)


def interval(low: float, value: float, high: float, limit: float, unit: str, said: str) -> Html:
    """A number with its bounds, on an axis with zero and the limit that it may not pass."""
    ends = (min(low, 0.0), max(high, limit))
    room = max(ends[1] - ends[0], 1e-9)
    height, middle = 46.0, 20.0

    def x(at: float) -> float:
        return LEFT + (CHART_WIDTH - LEFT - RIGHT) * (at - ends[0]) / room

    is_right = x(limit) > CHART_WIDTH / 2
    parts = [
        Html('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:g}" y2="{:g}"/>').format(kind, x(at), x(at), 10, 30)
        for kind, at in (("axis", 0.0), ("limit", limit))
    ]
    parts += [
        _label(x(0.0) + 3, 10, "0", "start"),
        _label(x(limit), height - 3, f"{limit:g} {unit} allowed", "end" if is_right else "start"),
        _rule("bounds", x(low), x(high), middle),
        Html('<circle cx="{:.1f}" cy="{:g}" r="4"/>').format(x(value), middle),
    ]
    return _svg("interval", CHART_WIDTH, height, Html("").join(parts), said)


def _rule(kind: str, left: float, right: float, y: float) -> Html:
    return Html('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(kind, left, right, y, y)


def _svg(kind: str, width: float, height: float, body: Html, said: str) -> Html:
    """`said` is the text equivalent."""
    label = Html('role="img" aria-label="{}"').format(said) if said else Html('aria-hidden="true"')
    size = Html('viewBox="0 0 {:g} {:g}" width="{:g}" height="{:g}"').format(width, height, width, height)
    stretched = Html('preserveAspectRatio="none" ') if kind in {"strip", "bar"} else Html("")
    return Html('<svg class="{}" {} {}{}>{}</svg>').format(kind, size, stretched, label, body)
