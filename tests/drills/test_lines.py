"""Every line of the promises that these drills cover is accounted for."""

import yaml

from gates import catalogue
from tests.drills.examination import ROOT

LINES = {"G": 10, "H": 10, "I": 16, "K": 20, "L": 15, "O": 14}
"""The groups of lines that these drills answer for, and how many each has."""


def test_every_line_is_covered_or_left_out() -> None:
    """Each line of groups G, H, I, K, L and O is covered by a check, or left out for a reason, not both."""
    covered = {line for s in catalogue.load() if s.id.startswith("drill/") for line in s.covers}
    left_out = yaml.safe_load((ROOT / "drills" / "left_out.yaml").read_text(encoding="utf-8"))
    lines = {f"{group}{n:02d}" for group, most in LINES.items() for n in range(1, most + 1)}
    assert lines <= covered | set(left_out)
    assert not covered & set(left_out)
    assert all(len(reason) > 20 for reason in left_out.values())
