"""How a check looks: its query, rule or requests, from the files of the suites. Parsed as text, never imported."""

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gates.stages.suite import ROOT

FOLDERS = {
    "drill": ("drills",),
    "preflight": ("gates/stages", "gates/checks"),
    "queue": ("sql_checks/queues", "gates/stages", "sql_checks"),
}
"""Stage -> where its checks are; those of all other stages are in sql_checks."""
THRESHOLDS = "loadtests/profiles.py"
QUERIES = ("sql/", "alert/", "queue/")
MOST_LINES = 60


@dataclass(frozen=True, slots=True)
class Source:
    """Where a check is (`drills/audit/test_limits.py:41`), and its query or code; empty if it is not found."""

    place: str = ""
    text: str = ""


def query_of(check: str) -> str:
    """The SQL of a check or rule; empty for one that is no query."""
    if not check.startswith(QUERIES):
        return ""
    found = how_checked(check)
    return found.text if found.place.partition(":")[0].endswith((".sql", ".yaml")) else ""


def how_checked(check: str) -> Source:
    """The file of a check and what it does there."""
    stage, _, rest = check.partition("/")
    slug = rest.rpartition("/")[2]
    if stage == "load":
        return Source(THRESHOLDS)
    looks = (
        ("*.sql", re.compile(rf"(?m)^-- id: {re.escape(check)}$"), _query),
        ("*.yaml", re.compile(rf"(?m)^ *- (?:alert|check|id): {re.escape(slug)}$"), _rule),
        ("*.py", re.compile(rf"""["'/](?:{re.escape(check)}|{re.escape(rest)}|{re.escape(slug)})["']"""), _function),
    )
    for pattern, wanted, told in looks:
        for path in _files(FOLDERS.get(stage, ("sql_checks",)), pattern, rest.partition("/")[0]):
            text = path.read_text(encoding="utf-8")
            if found := wanted.search(text):
                line = text.count("\n", 0, found.start()) + 1
                return Source(f"{path.relative_to(ROOT).as_posix()}:{line}", _cut(told(text, line)))
    return Source()


def _files(folders: tuple[str, ...], pattern: str, promise: str) -> Iterator[Path]:
    """The files, those in the folder of the promise first."""
    for folder in folders:
        found = sorted((ROOT / folder).rglob(pattern))
        yield from sorted(found, key=lambda path: promise not in path.parts)


def _query(text: str, _line: int) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))


def _rule(text: str, line: int) -> str:
    """The query of a rule: the indented block below its `query: |`."""
    lines = text.splitlines()[line:]
    begin = next((n for n, one in enumerate(lines) if one.strip() == "query: |"), None)
    if begin is None:
        return ""
    indent = len(lines[begin]) - len(lines[begin].lstrip())
    block = []
    for one in lines[begin + 1 :]:
        if one.strip() and len(one) - len(one.lstrip()) <= indent:
            break
        block.append(one)
    return "\n".join(block)


def _function(text: str, line: int) -> str:
    """The function around the line, with its decorators; nothing outside of one."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            begin = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if begin <= line <= (node.end_lineno or node.lineno):
                return "\n".join(text.splitlines()[begin - 1 : node.end_lineno])
    return ""


def _cut(text: str) -> str:
    lines = textwrap.dedent(text).strip("\n").splitlines()
    more = [f"... {len(lines) - MOST_LINES} more lines"] if len(lines) > MOST_LINES else []
    return "\n".join([*lines[:MOST_LINES], *more])
