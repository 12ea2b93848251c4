"""Runs drills against a target, possibly through a fault proxy, and gives what they saw by check id."""

from __future__ import annotations

import contextlib
import io
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from gates.evidence import Evidence
from gates.evidence_file import read_lines

ROOT = Path(__file__).resolve().parents[2]
DECLARED = re.compile(r'\w\(\s*"drill/([a-z-]+)[/"]')


@cache
def _promises() -> dict[str, set[str]]:
    """Each file of drills, and the promises (the second words of ids) of which it declares checks."""
    return {
        str(file): set(DECLARED.findall(file.read_text(encoding="utf-8")))
        for file in sorted((ROOT / "drills").rglob("test_*.py"))
    }


def drill_files(checks: Iterable[str]) -> list[str]:
    """The files of drills in which these checks, or patterns of checks, may be."""
    words = {check.split("/")[1] for check in checks}
    found = [file for file, declared in _promises().items() if declared & words]
    assert found, f"no drill declares a check of {sorted(words)}"
    return found


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


def run_pytest(arguments: Sequence[str], variables: Mapping[str, str]) -> str:
    """Run pytest in this process with these variables; what it printed."""
    said = io.StringIO()
    plain = ["-q", "--tb=line", "-p", "no:cacheprovider", "-W", "ignore"]
    with environment(variables), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        pytest.main(["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), *plain, *arguments])
    return said.getvalue()


def examine(
    variables: Mapping[str, str], checks: Sequence[str], folder: Path, files: Sequence[str], *options: str
) -> dict[str, Evidence]:
    """Run the checks whose ids match these patterns, out of these files; the evidence by id."""
    evidence = folder / f"{uuid.uuid4().hex}.ndjson"
    only = [f"--only={pattern}" for pattern in checks]
    said = run_pytest([*map(str, files), f"--evidence={evidence}", *only, *options], variables)
    found = {e.check: e for e in read_lines(evidence)}
    assert found, f"no check matched {list(checks)}:\n{said[-2000:]}"
    return found
