"""The pictures of a report: what is drawn of numbers that lie far apart."""

import math

import pytest

from gates.reports.pictures import chart

FAR = [("p95", 2500.0)]
CURVE = [(0.0, 1.0), (50.0, 3.0), (100.0, 20.0)]


def test_a_limit_is_seen_however_far_it_is() -> None:
    """On a logarithmic scale the limit is drawn with its name; from zero on it would flatten what was seen."""
    assert "p95 2500 ms" in str(chart(CURVE, "said", limits=FAR, unit="ms", logarithmic=True))
    assert "p95" not in str(chart(CURVE, "said", limits=FAR, unit="ms"))


@pytest.mark.parametrize("values", [(0.0, 0.0), (5.0, 5.0), (0.0, 1e9), (-3.0, 2.0)])
def test_any_values_are_drawn_within_the_picture(values: tuple[float, float]) -> None:
    """Zero, less, equal values and far ones have a place; none makes an error, or leaves the picture."""
    drawn = str(chart(list(enumerate(values)), "said", limits=[("p95", 0.0)], logarithmic=True))
    points = drawn.partition('points="')[2].partition('"')[0].split()
    assert len(points) == 2
    assert all(math.isfinite(y) and 0 <= y <= 118 for y in (float(p.partition(",")[2]) for p in points))
