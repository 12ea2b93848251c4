"""docs/adopt.md does what it says: its commands run on the reference in their order, its YAML is read as a policy."""

from __future__ import annotations

import datetime as dt
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from gates import catalogue
from gates.cli import parser
from gates.decision.policy_file import parse
from gates.evidence import TargetKind
from tests.gates.gate_process import gate
from tests.sources import ROOT

PAGE = (ROOT / "docs" / "adopt.md").read_text(encoding="utf-8")
BLOCKS = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE).findall(PAGE)
COMMANDS = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines()]
TODAY = dt.date(2026, 1, 1)


def test_the_commands_run_in_their_order(variables: Mapping[str, str], tmp_path: Path) -> None:
    """On the reference each ends as the page says; the run itself is only parsed, and psql is its user's."""
    shutil.copytree(ROOT / "replay_service" / "migrations", tmp_path / "migrations")
    given = {k: v for k, v in variables.items() if k != "GATE_STACK_CONTROL"} | {"GATE_TARGET": "staging"}
    (tmp_path / ".env").write_text("".join(f"{k}='{v}'\n" for k, v in given.items()), encoding="utf-8")
    ran = []
    for command in COMMANDS:
        words, _, kept = command.partition(" > ")
        program, *rest = shlex.split(words)
        if program == "psql":
            assert (tmp_path / rest[-1]).stat().st_size > 0
            continue
        assert program == "gate"
        if rest[0] == "run":
            parser("run").parse_args(rest)
            continue
        done = gate(*rest, cwd=tmp_path)
        assert done.returncode in ({0, 10} if rest[0] == "doctor" else {0}), (command, done.stdout, done.stderr)
        if kept:
            (tmp_path / kept).write_text(done.stdout, encoding="utf-8")
        ran.append(rest[0])
    assert ran == ["rehearse", "doctor", "doctor", "lint", "doctor", "doctor"]
    assert {"gate.yaml", "schema-manifest.json", "gate-login.sql"} <= {p.name for p in tmp_path.iterdir()}


def test_its_yaml_is_a_policy() -> None:
    """Each block is read by the reader of gate.yaml; its waiver is of a check that there is and that may be waived."""
    blocks = [block for language, block in BLOCKS if language == "yaml"]
    assert len(blocks) == 2
    for block in blocks:
        file = parse(f"version: 1\n{block}", "gate.yaml", ROOT, TODAY)
        file.policy(catalogue.load(), TargetKind.PRODUCTION, "", deep=True)


def test_its_links_lead_somewhere() -> None:
    """Every page that it names is there."""
    links = re.findall(r"\]\(([a-z]+\.md)\)", PAGE)
    assert links
    assert [name for name in links if not (ROOT / "docs" / name).exists()] == []
