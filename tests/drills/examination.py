"""Runs drills against a target and gives what they saw by check id."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from drills.workbench.scene import Scene
from gates.evidence import Evidence
from gates.evidence_file import read_lines
from gates.stages.suite import LEFT_OUT

ROOT = Path(__file__).resolve().parents[2]
OVER_HTTP = tuple(
    f"drill/{promise}/*"
    for promise in (
        *("authentication", "tokens", "http-surface", "rate-limit", "idempotency", "safety-rails", "dry-run", "proof"),
    )
)
"""The checks that look at answers over HTTP, and at little else."""
WAIT_SCALE = 0.3
"""Nobody else works on this target: what does not come within 2 s never comes."""


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Put variables into the environment for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def run_pytest(arguments: Sequence[str], variables: Mapping[str, str], *plugins: object) -> str:
    """Run pytest in this process with these variables, without the plugins that a stage leaves out; what it printed."""
    said = io.StringIO()
    plain = [
        "--rootdir",
        str(ROOT),
        "-c",
        str(ROOT / "pyproject.toml"),
        *LEFT_OUT,
        "-q",
        "-s",
        "--tb=native",
        "-W",
        "ignore",
    ]
    alone = environment({**variables, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    with alone, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        pytest.main([*plain, *arguments], plugins)
    return said.getvalue()


@cache
def places() -> Mapping[str, Path]:
    """The file of each drill check."""
    found: dict[str, Path] = {}

    class Collector:
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            marks = ((item.path, item.get_closest_marker("check")) for item in items)
            found.update({mark.args[0].id: path for path, mark in marks if mark})

    said = run_pytest([str(ROOT / "drills"), "--collect-only", "--deep"], {"GATE_TARGET": "reference"}, Collector())
    assert found, f"no drill could be collected:\n{said[-2000:]}"
    return found


def matching(patterns: Sequence[str]) -> list[str]:
    """The drill checks that any of the patterns matches."""
    return sorted({i for pattern in patterns for i in fnmatch.filter(places(), pattern)})


def examine(variables: Mapping[str, str], checks: Sequence[str], folder: Path, *options: str) -> dict[str, Evidence]:
    """Run the drill checks whose ids match these patterns; the evidence by id."""
    evidence = folder / f"{uuid.uuid4().hex}.ndjson"
    files = sorted({str(places()[i]) for i in matching(checks)})
    said = run_pytest([*files, f"--evidence={evidence}", *(f"--only={c}" for c in checks), *options], variables)
    found = {e.check: e for e in read_lines(evidence)} if evidence.exists() else {}
    assert found, f"no check matched {list(checks)}:\n{said[-2000:]}"
    return found


@contextmanager
def brief_waits() -> Iterator[None]:
    """Let the drills wait less for what will not come."""
    Scene.wait_scale = WAIT_SCALE
    try:
        yield
    finally:
        Scene.wait_scale = 1.0
