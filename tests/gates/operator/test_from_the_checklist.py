"""docs/from-the-checklist.md: what the checklist prints still reads, and what stands beside it is carried out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from gates.stack.plan import DEFAULT_COMPANY_ID, StackOptions
from gates.stack.stack import reference_stack
from loadtests.engine.metrics import TYPES
from loadtests.thresholds.file import parse_thresholds
from tests.gates.gate_process import gate
from tests.places.command_lines import printed, refused
from tests.sources import ROOT

PAGE = (ROOT / "docs" / "from-the-checklist.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
LONG = {"drill --short", "sql", "alerts", "load", "load --thresholds smoke-enhanced.js", "run", "checklist gate-out"}
"""Whole stages, which have tests of their own: here their options are read."""


def said(language: str) -> list[str]:
    return [text for one, text in BLOCKS if one == language]


def filled(text: str) -> str:
    return text.replace('"$TEST_COMPANY_ID"', DEFAULT_COMPANY_ID)


def counterparts() -> dict[str, list[str]]:
    return {" ".join(words): words for words in printed(filled("\n".join(said("sh"))))}


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, str]]:
    """The variables of a deployment whose flag and pause these tests alone change."""
    with reference_stack(StackOptions(history=False), os.environ) as stack:
        yield stack.info.variables()


def test_every_counterpart_is_a_command_of_the_gate() -> None:
    """One at least for each thing that the checklist prints, and the parser takes them all."""
    assert len(said("sh")) >= len(said("text"))
    assert {" ".join(words): why for words in printed(filled(PAGE)) if (why := refused(words))} == {}
    assert set(counterparts()) >= LONG


def test_the_queries_of_the_checklist_are_answered(told: dict[str, str]) -> None:
    """The contract has the tables, columns and views that they name."""
    assert len(said("sql")) == 5
    with psycopg.connect(told["DATABASE_URL"], autocommit=True) as connection:
        for query in said("sql"):
            assert connection.execute(query.encode()).description


def test_the_thresholds_of_the_checklist_are_read_as_they_stand() -> None:
    """The block itself: five thresholds of four metrics, and nothing to remark."""
    (script,) = said("js")
    read = parse_thresholds(script, "smoke-enhanced.js", TYPES)
    assert sorted(len(listed) for listed in read.thresholds.by_metric.values()) == [1, 1, 1, 2]
    assert read.notes == ()


def test_what_is_short_is_carried_out_in_its_order(told: dict[str, str], tmp_path: Path) -> None:
    """Each ends with 0, on a deployment whose flag is off at first; but the step so soon after another holds."""
    with psycopg.connect(told["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("update feature_flags set enabled = false where key = 'outbox.enabled'")
    short = {command: words for command, words in counterparts().items() if command not in LONG}
    done = {command: gate(*words, cwd=tmp_path, environ=told) for command, words in short.items()}
    (step,) = [command for command in done if command.startswith("flags step")]
    assert "bakes" in done[step].stderr + done[step].stdout
    assert len(done) == 14
    assert {command: ran.stderr for command, ran in done.items() if ran.returncode != 10 * (command == step)} == {}
