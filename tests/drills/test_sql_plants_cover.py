"""No check of the second half of the drills is without a planted defect, and no line of its groups is forgotten."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from gates.evidence import CheckSpec
from tests.drills import http_plants, test_twins
from tests.drills.examination import ROOT, run_pytest
from tests.drills.test_sql_plants import TABLE

WORDS = (
    *("budgets", "flags", "pause", "audit", "outbox", "held", "dlq", "lifecycle", "identity", "observability"),
    *("residue", "recovery", "statemachine"),
)
ELSEWHERE = {"drill/observability/connections-are-bounded", "drill/outbox/uncommitted-is-not-delivered"}
"""Turned red by tests of their own in test_http_plants."""

LINES = {
    "G": range(1, 11),
    "H": range(1, 11),
    "I": range(1, 17),
    "K": range(1, 21),
    "L": range(1, 16),
    "O": range(1, 15),
}
"""The lines of the catalogue of checks that these drills answer for."""


def catalogue(folder: Path) -> list[CheckSpec]:
    """The specs of all drills."""
    listing = folder / "catalogue.json"
    run_pytest([str(ROOT / "drills"), f"--catalogue={listing}"], {"GATE_TARGET": "reference"})
    return [CheckSpec.from_json(one) for one in json.loads(listing.read_text(encoding="utf-8"))]


def test_every_check_has_been_seen_red(tmp_path: Path) -> None:
    """Each check is named by a planted defect, and each defect names checks that exist."""
    ours = {s.id for s in catalogue(tmp_path) if s.id.split("/")[1] in WORDS}
    red = {c for p in TABLE for c in p.red} | {c for p in http_plants.TABLE for c in p.red} | ELSEWHERE
    red |= {c for twin in test_twins.TABLE for c in twin.red}
    assert ours == {c for c in red if c.split("/")[1] in WORDS}


def test_every_line_is_covered_or_left_out(tmp_path: Path) -> None:
    """Each line of groups G, H, I, K, L and O is covered by a check, or left out for a reason, not both."""
    covered = {line for s in catalogue(tmp_path) for line in s.covers}
    left_out = yaml.safe_load((ROOT / "drills" / "left_out.yaml").read_text(encoding="utf-8"))
    lines = {f"{group}{n:02d}" for group, numbers in LINES.items() for n in numbers}
    assert lines <= covered | set(left_out)
    assert not covered & set(left_out)
    assert all(len(reason) > 20 for reason in left_out.values())
