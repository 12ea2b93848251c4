"""Rules of style that no linter knows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOPS = ("gates", "drills", "sql_checks", "loadtests", "replay_service", "faults", "tests", "benchmarks")
FILES = sorted(p for top in TOPS for p in (ROOT / top).rglob("*.py"))
MOST_LINES, MOST_FUNCTION_LINES = 400, 80
VAGUE = {"utils", "helpers", "common", "misc", "base", "core", "models", "types", "constants"}
PRINTERS = {"gates/console.py"}
PROGRAMS = {"gates/stack/launch.py", "gates/stack/sweep.py"}
"""Programs of their own, which write one line to stderr when they cannot start."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_a_file_is_short_says_what_lives_in_it_and_is_not_vague(path: Path) -> None:
    """Files of at most 400 lines (tests may be longer), functions of 80, a docstring, a name with a meaning."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert path.stem not in VAGUE
    assert not text.strip() or ast.get_docstring(tree), "a module opens with what lives here"
    if relative(path).startswith("tests/"):
        return
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MOST_FUNCTION_LINES, f"{node.name} has {length} lines; allowed: {MOST_FUNCTION_LINES}"


@pytest.mark.parametrize("path", [p for p in FILES if relative(p).startswith("gates/")], ids=relative)
def test_only_the_console_prints_and_only_config_reads_the_environment(path: Path) -> None:
    """Everything else returns values and is given the environment."""
    name = relative(path)
    calls = [n.func for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    assert not [c for c in calls if isinstance(c, ast.Name) and c.id == "print"]
    if name.endswith("__main__.py") or name in PROGRAMS:
        return
    text = path.read_text(encoding="utf-8")
    assert "os.environ" not in text or name == "gates/config.py"
    assert "sys.stdout" not in text or name in PRINTERS
    written = [c for c in calls if isinstance(c, ast.Attribute) and c.attr == "write" and "std" in ast.unparse(c.value)]
    assert not written, "give the text to the console"


MEDIA = {"Inert", "Terminal", "Html", "Markdown", "Slack", "Markup"}


@pytest.mark.parametrize("path", [p for p in FILES if relative(p).startswith("gates/")], ids=relative)
def test_text_of_a_medium_begins_as_a_literal(path: Path) -> None:
    """What a run saw comes into it through `format`, `join` and `+` alone, which escape it; mypy sees the types."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if relative(path) == "gates/inert.py":
            return
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MEDIA:
            literal = len(node.args) == 1 and isinstance(node.args[0], ast.Constant)
            assert literal, f"{ast.unparse(node)[:80]}: give a literal, and foreign text to its format"
        if isinstance(node, ast.ImportFrom) and node.module == "markupsafe":
            raise AssertionError("gates.inert has a type for every medium")


@pytest.mark.parametrize("path", [p for p in FILES if p.name.startswith("test_")], ids=relative)
def test_a_test_says_its_claim(path: Path) -> None:
    """Every test function opens with a docstring: the claim."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            assert ast.get_docstring(node), f"{node.name} has no claim"
