"""The boxes of the checklist."""

from collections import Counter
from fnmatch import fnmatchcase

import pytest

from gates import catalogue
from gates.operator.checklist import BOXES, Box

CHECKS = [spec.id for spec in catalogue.load()]


def test_all_boxes_of_the_checklist_are_there_in_their_groups() -> None:
    """Five, five and four before the deployment, twelve metrics, ten at the end."""
    assert list(Counter(box.group for box in BOXES).values()) == [5, 5, 4, 4, 4, 4, 10]


@pytest.mark.parametrize("box", BOXES, ids=lambda box: f"{box.group}-{box.name}")
def test_no_pattern_of_a_box_is_stale(box: Box) -> None:
    """Each pattern matches a check of the catalogue; otherwise the box would be ticked by the others."""
    assert [p for p in box.patterns if not any(fnmatchcase(check, p) for check in CHECKS)] == []
