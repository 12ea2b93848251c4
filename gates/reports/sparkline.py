"""Small inline SVG: a line of values with their limit, and a strip of outcomes. Pure; no script, no network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

WIDTH, HEIGHT, PAD = 180.0, 34.0, 3.0
STRIP_WIDTH, STRIP_HEIGHT = 180.0, 12.0
GAP_FACTOR = 3.0
"""A pause this many times as long as the usual one is shown as a gap: nothing was seen there."""


def line(
    points: Sequence[tuple[float, float]], start: float, end: float, limits: Sequence[float] = (), said: str = ""
) -> str:
    """Values between two times; limits are drawn where they are near enough to the values to be seen."""
    if not points:
        return ""
    values = [v for _, v in points]
    low, high = min(values), max(values)
    room = (high - low) or abs(high) or 1.0
    shown = [limit for limit in limits if low - room <= limit <= high + room]
    low, high = min([low, *shown]), max([high, *shown])
    height = (high - low) or 1.0

    def x(at: float) -> float:
        return PAD + (WIDTH - 2 * PAD) * (at - start) / max(end - start, 1e-9)

    def y(value: float) -> float:
        return HEIGHT - PAD - (HEIGHT - 2 * PAD) * (value - low) / height if high > low else HEIGHT / 2

    rules = "".join(
        f'<line class="limit" x1="0" x2="{WIDTH:g}" y1="{y(limit):.1f}" y2="{y(limit):.1f}"/>' for limit in shown
    )
    runs = "".join(
        f'<polyline points="{" ".join(f"{x(at):.1f},{y(v):.1f}" for at, v in run)}"/>'
        if len(run) > 1
        else f'<circle cx="{x(run[0][0]):.1f}" cy="{y(run[0][1]):.1f}" r="1.4"/>'
        for run in pieces(points)
    )
    at, value = points[-1]
    last = f'<circle class="last" cx="{x(at):.1f}" cy="{y(value):.1f}" r="2.4"/>'
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


def strip(marks: Sequence[tuple[float, str]], start: float, end: float, said: str = "") -> str:
    """Outcomes between two times, one bar each; neighbours that are alike are one bar. What was not seen is empty."""
    if not marks:
        return ""
    steps = sorted(b[0] - a[0] for a, b in pairwise(marks))
    usual = steps[len(steps) // 2] if steps else (end - start) / 40
    scale = STRIP_WIDTH / max(end - start, 1e-9)
    bars: list[tuple[float, float, str]] = []
    for at, outcome in marks:
        begin, finish = (at - start) * scale, min((at - start + usual) * scale, STRIP_WIDTH)
        finish = max(finish, begin + 1.0)
        if bars and bars[-1][2] == outcome and begin - bars[-1][1] < 1.0:
            bars[-1] = (bars[-1][0], finish, outcome)
        else:
            bars.append((begin, finish, outcome))
    # what failed is drawn last, so that one bad round among a thousand good ones is still seen
    bars.sort(key=lambda b: ("pass", "unknown", "fail").index(b[2]))
    body = "".join(
        f'<rect class="{outcome}" x="{a:.1f}" width="{max(b - a, 1.5 if outcome != "pass" else 0.5):.1f}" y="0" '
        f'height="{STRIP_HEIGHT:g}"/>'
        for a, b, outcome in bars
    )
    return _svg("strip", STRIP_WIDTH, STRIP_HEIGHT, body, said)


def _svg(kind: str, width: float, height: float, body: str, said: str) -> str:
    """`said` must be free of markup or escaped; it is what a reader without pictures gets."""
    label = f'role="img" aria-label="{said}"' if said else 'aria-hidden="true"'
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    stretched = 'preserveAspectRatio="none" ' if kind == "strip" else ""
    return f'<svg class="{kind}" {size} {stretched}{label}>{body}</svg>'
