"""The project's own Python files and their syntax trees, each read and parsed once."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOPS = ("gates", "drills", "sql_checks", "loadtests", "replay_service", "faults", "tests", "benchmarks", "examples")
FILES = sorted(p for top in TOPS for p in (ROOT / top).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def below(*folders: str) -> list[Path]:
    return [path for path in FILES if relative(path).startswith(tuple(f"{folder}/" for folder in folders))]


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of the file, the module first."""
    return tuple(ast.walk(ast.parse(text_of(path), str(path))))
