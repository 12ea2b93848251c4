"""The boxes of the checklist."""

from collections import Counter
from fnmatch import fnmatchcase

import pytest

from gates import catalogue
from gates.operator.checklist import BOXES, Box, tick
from gates.reports.formats.rows import Row

CHECKS = [spec.id for spec in catalogue.load()]


def test_all_boxes_of_the_checklist_are_there_in_their_groups() -> None:
    """Five, five and four before the deployment, twelve metrics, ten at the end."""
    assert list(Counter(box.group for box in BOXES).values()) == [5, 5, 4, 4, 4, 4, 10]


@pytest.mark.parametrize("box", BOXES, ids=lambda box: f"{box.group}-{box.name}")
def test_no_pattern_of_a_box_is_stale(box: Box) -> None:
    """Each pattern matches a check of the catalogue; otherwise the box would be ticked by the others."""
    assert [p for p in box.patterns if not any(fnmatchcase(check, p) for check in CHECKS)] == []


def test_evidence_that_was_changed_ticks_no_box() -> None:
    """A line that does not follow the one before it may stand for any check that is gone."""
    rows = [Row(check, "pass") for check in CHECKS]
    assert sum(one.ticked for one in tick(rows, ())) == sum(bool(box.patterns) for box in BOXES)
    assert not any(one.ticked for one in tick([*rows, Row("evidence/line-5", "unknown")], ()))
