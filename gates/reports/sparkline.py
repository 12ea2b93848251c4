"""Small inline SVG: a line of values with their limit, and a strip of outcomes. Pure; no script, no network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from gates.text.inert import Html

WIDTH, HEIGHT, PAD = 180.0, 34.0, 3.0
STRIP_WIDTH, STRIP_HEIGHT = 180.0, 12.0
GAP_FACTOR = 3.0
"""A pause this many times as long as the usual one is shown as a gap: nothing was seen there."""


def line(
    points: Sequence[tuple[float, float]], start: float, end: float, limits: Sequence[float] = (), said: str = ""
) -> Html:
    """Values between two times; limits are drawn where they are near enough to the values to be seen."""
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
    """The points, cut where nothing was seen for long."""
    steps = sorted(b[0] - a[0] for a, b in pairwise(points))
    usual = steps[len(steps) // 2] if steps else 0.0
    found: list[list[tuple[float, float]]] = [[points[0]]]
    for before, one in pairwise(points):
        if usual and one[0] - before[0] > GAP_FACTOR * usual:
            found.append([])
        found[-1].append(one)
    return found


def strip(marks: Sequence[tuple[float, str]], start: float, end: float, said: str = "") -> Html:
    """Outcomes between two times, one bar each; neighbours that are alike are one bar. What was not seen is empty."""
    if not marks:
        return Html("")
    steps = sorted((b[0] - a[0] for a, b in pairwise(marks)))
    usual = steps[len(steps) // 2] if steps else (end - start) / 40
    scale = STRIP_WIDTH / max(end - start, 1e-9)
    bars: list[tuple[float, float, str]] = []
    for at, outcome in marks:
        begin, finish = ((at - start) * scale, min((at - start + usual) * scale, STRIP_WIDTH))
        finish = max(finish, begin + 1.0)
        if bars and bars[-1][2] == outcome and (begin - bars[-1][1] < 1.0):
            bars[-1] = (bars[-1][0], finish, outcome)
        else:
            bars.append((begin, finish, outcome))
    # what failed is drawn last, so that one bad round among a thousand good ones is still seen
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


def _svg(kind: str, width: float, height: float, body: Html, said: str) -> Html:
    """`said` is what a reader without pictures gets."""
    label = Html('role="img" aria-label="{}"').format(said) if said else Html('aria-hidden="true"')
    size = Html('viewBox="0 0 {:g} {:g}" width="{:g}" height="{:g}"').format(width, height, width, height)
    stretched = Html('preserveAspectRatio="none" ') if kind == "strip" else Html("")
    return Html('<svg class="{}" {} {}{}>{}</svg>').format(kind, size, stretched, label, body)
