"""docs/from-the-checklist.md: what the checklist prints still reads.

What stands beside it is carried out as the commands of every page are: tests/places/test_pages.py.
"""

import re
from collections.abc import Mapping

import psycopg

from loadtests.engine.metrics import TYPES
from loadtests.thresholds.file import parse_thresholds
from tests.sources import ROOT

PAGE = (ROOT / "docs" / "from-the-checklist.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def said(language: str) -> list[str]:
    return [text for one, text in BLOCKS if one == language]


def test_every_thing_that_the_checklist_prints_has_a_counterpart() -> None:
    """The page has at least as many commands of the gate as blocks that the checklist prints."""
    assert len(said("sh")) >= len(said("text"))


def test_the_queries_of_the_checklist_are_answered(variables: Mapping[str, str]) -> None:
    """The contract has every table, column and view in them."""
    assert len(said("sql")) == 5
    with psycopg.connect(variables["DATABASE_URL"], autocommit=True) as connection:
        for query in said("sql"):
            assert connection.execute(query.encode()).description


def test_the_thresholds_of_the_checklist_are_read_as_they_stand() -> None:
    """Its block gives five thresholds of four metrics, without a remark."""
    (script,) = said("js")
    read = parse_thresholds(script, "smoke-enhanced.js", TYPES)
    assert sorted(len(listed) for listed in read.thresholds.by_metric.values()) == [1, 1, 1, 2]
    assert read.notes == ()
