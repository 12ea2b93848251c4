"""Fixtures of a small run."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gates.decision.policy_file import parse
from gates.deployment.target import Target
from gates.evidence import TargetKind
from gates.proof.workbench.servers import serve
from gates.request import RunRequest
from gates.stages import suite
from gates.stages.context import Context
from gates.stages.suite import Begun
from tests.gates.small_run import CATALOGUE, COMPANY, DRILL, OPTIONS, ROOT, SECRET, SMALL_TARGET, SQL, loaded, written


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """Where the small target answers."""
    with serve(SMALL_TARGET) as url:
        yield url


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the suites that run as processes; the evidence of the others is written directly."""
    names: set[str] = set()
    ran, start = suite._ran, suite._start

    def started(command: list[str], context: Context, output: int, temporary: Path, ends: tuple[int, int]) -> Any:
        return start(command if temporary.name in names else ["/bin/true"], context, output, temporary, ends)

    def run_or_write(one: Begun, context: Context, *limits: Any) -> tuple[int | None, str]:
        if one.suite.name in names:
            return ran(one, context, *limits)
        context.write([written(s, context, before="before" in one.suite.name) for s in one.suite.expected])
        return 0, ""

    monkeypatch.setattr(suite, "_ran", run_or_write)
    monkeypatch.setattr(suite, "_start", started)
    return names


@pytest.fixture
def asked(tmp_path: Path, base_url: str, processes: set[str], monkeypatch: pytest.MonkeyPatch) -> RunRequest:
    """A run over the small suites."""
    for name, source in (("drills", DRILL), ("sql_checks", SQL)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "conftest.py").write_text(OPTIONS, encoding="utf-8")
        text = source.replace("MAIN", "pass").replace("COMPANY", COMPANY)
        (tmp_path / name / f"test_{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    target = Target(TargetKind.STAGING, base_url, hmac_secrets=(SECRET,), release="r1")
    file = parse("version: 1\nstages:\n  drill: {workers: 1}\n", "gate.yaml", tmp_path, dt.date(2026, 1, 1))
    policy = file.policy(CATALOGUE, target.kind, target.release, deep=False)
    told = {"PYTEST_ADDOPTS": "--deselect=everything -k nothing", "PYTHONIOENCODING": "utf-16"}
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **told}
    return RunRequest(target, policy, file.settings, tmp_path / "out", environ=environ, load=loaded)
