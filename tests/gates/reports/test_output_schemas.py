"""The published schemas accept what the gate writes, and refuse what it never writes."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from gates.evidence import Evidence
from gates.evidence_file import write_lines
from gates.verdict import SUPERSEDED, UNDECIDED, Action, NotRequired, StageResult
from tests.gates.hostile_text import EVERYTHING
from tests.gates.reports.report_pages import evidence, judged, unknown
from tests.gates.reports.schemas import NAMES, broken_rules, schema
from tests.gates.reports.test_reports import VERDICTS

SEEN, _ = judged({"sql/spot/audit-chain": unknown("sql/spot/audit-chain", EVERYTHING)}, Action("none", 10, 10))
STAGE = dataclasses.replace(SEEN, stage=StageResult("sql", "unknown"))
ODD = [
    dataclasses.replace(SEEN, action=Action("promote", 10, None, "unknown")),
    dataclasses.replace(SEEN, action=Action("none", 10, 10, SUPERSEDED, flag="on")),
    dataclasses.replace(SEEN, not_required=(NotRequired("cohort/agent-success", UNDECIDED),)),
]
WRONG: list[Any] = [{"decision": "ship it"}, {"counts": {}}, {"findings": [{}]}, {"margin": 3}, {"action": {}}]


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one(name: str) -> None:
    """It is valid by its draft, and has a version in its id and a title."""
    found = schema(name)
    jsonschema_rs.meta.validate(found)
    assert found["$id"] == f"urn:replaygate:{name}:v1"
    assert found["title"]


@pytest.mark.parametrize("verdict", [*VERDICTS.values(), SEEN, STAGE, *ODD])
def test_a_verdict_is_valid_and_all_its_members_are_described(verdict: Any) -> None:
    """Pipelines cannot rely on a member without a description."""
    told = json.loads(verdict.dump())
    assert broken_rules("verdict", told) == []
    described = schema("verdict")["properties"]
    assert set(told) <= set(described)
    assert set(told["action"]) <= set(described["action"]["properties"])
    assert all(set(f) <= set(described["findings"]["items"]["properties"]) for f in told["findings"])
    for wrong in WRONG:
        assert broken_rules("verdict", {**told, **wrong}), wrong


def test_the_lines_of_evidence_are_valid_as_they_are_written(tmp_path: Path) -> None:
    """Every kind of line is valid; a pass without samples is not."""
    path = tmp_path / "evidence.ndjson"
    path.touch()
    write_lines(path, [*evidence().values(), unknown("drill/x/y", EVERYTHING, "preflight/database")])
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [broken for line in lines for broken in broken_rules("evidence", line)] == []
    assert {f.name for f in dataclasses.fields(Evidence)} <= set(schema("evidence")["properties"])
    passed = next(line for line in lines if line["outcome"] == "pass")
    for wrong in ({"outcome": "green"}, {"samples": 0}, {"after": ""}, {"check": 5}):
        assert broken_rules("evidence", {**passed, **wrong}), wrong
