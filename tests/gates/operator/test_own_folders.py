"""A user's own check files: lint and a run name one that cannot be read, and the other checks still run."""

import datetime as dt
import re
from pathlib import Path

import pytest

from gates.config import load_policy, process_environment
from gates.errors import ConfigError
from gates.operator import lint
from gates.stages import collection
from tests.gates.gate_process import gate

GOOD = """-- id: sql/spot/own-good
-- claim: It holds.
-- cost: Nothing.
-- severity: warn
select 'x' as subject, 'y' as detail, '1' as witness where false;

-- seen:
select 1 as seen;
"""
TODAY = dt.date(2026, 1, 2)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A gate.yaml with a good file, one without a header, one that is no text, and a broken rule."""
    spots, alerts = tmp_path / "spots", tmp_path / "alerts"
    spots.mkdir()
    alerts.mkdir()
    (spots / "9001_own_good.sql").write_text(GOOD, encoding="utf-8")
    (spots / "9002_own_bad.sql").write_text("select 1;\n", encoding="utf-8")
    (spots / "9003_own_binary.sql").write_bytes(b"\xff\xfe\x00")
    (alerts / "own_rule.yaml").write_text("alert: [\n", encoding="utf-8")
    path = tmp_path / "gate.yaml"
    path.write_text("version: 1\nsql: {spot_folders: [spots], alert_folders: [alerts]}\n", encoding="utf-8")
    return path


def test_lint_reads_the_folders_of_the_policy(policy: Path) -> None:
    """Each unusable file is one line with file, line and column."""
    problems = lint._sql_problems(process_environment(), load_policy(policy, TODAY))
    own = [p for p in problems if str(policy.parent) in p]
    assert {Path(p.split(":", 1)[0]).name for p in own} == {"9002_own_bad.sql", "9003_own_binary.sql", "own_rule.yaml"}
    assert all(p.split(": ")[0].count(":") == 2 for p in own), own


@pytest.mark.parametrize("member", ["spot_folders", "alert_folders"])
def test_a_folder_that_is_not_there_is_a_mistake_in_the_policy(member: str, tmp_path: Path) -> None:
    """Lint and run report it alike (exit 3); a rollback by hand does not need the folder."""
    path = tmp_path / "gate.yaml"
    path.write_text(f"version: 1\nsql:\n  {member}: [., nowhere]\n", encoding="utf-8")
    said = rf"gate.yaml:3:\d+: {tmp_path}/nowhere, which is no folder"
    with pytest.raises(ConfigError, match=said):
        lint.lint(path, {}, TODAY)
    for words in (("run",), ("sql",), ("lint",)):
        done = gate(*words, "--policy", str(path), cwd=tmp_path, environ={"BASE_URL": "http://127.0.0.1:9"})
        assert (done.returncode, re.search(said, done.stderr) is not None) == (3, True), done
    assert load_policy(path, TODAY).plan.flag


def test_a_file_that_cannot_be_read_is_a_check_of_its_own(policy: Path) -> None:
    """Each unusable file is a check that is named after it, beside the good one."""
    specs = collection.with_own_checks(load_policy(policy, TODAY), process_environment())
    assert {"sql/spot/own-good", "sql/spot/own-bad", "sql/spot/own-binary", "alert/own-rule"} <= {s.id for s in specs}


def test_an_attestation_of_no_box_is_a_problem(tmp_path: Path) -> None:
    """It is named with its place and the nearest box; capitals do not matter."""
    path = tmp_path / "gate.yaml"
    said = "version: 1\nattestations:\n  - {box: Team trained, by: me, date: 2025-01-01}\n"
    path.write_text(said + "  - {box: success METRICS defined, by: me, date: 2025-01-01}\n")
    found = [p for p in lint.lint(path, {}, TODAY).problems if "box" in p]
    assert [p.partition("; ")[0] for p in found] == [f"{path}:3:3: the box 'Team trained'"]
    assert found[0].endswith("Did you mean 'Team trained on new procedures'?")
