"""No check takes a lock that makes users wait, and a long reader blocks no check."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gates.deployment.sql.database import connect, execute, session
from gates.evidence import Evidence, Outcome
from tests.drills.examination import examine
from tests.sources import ROOT, below, relative, text_of

STRONG = re.compile(
    r"\b(?:truncate|lock\s+table|alter\s+table|drop\s+(?:table|index|trigger|policy|view)|reindex|cluster|vacuum"
    r"|create\s+(?:or\s+replace\s+)?(?:unique\s+)?(?:index|trigger|policy|rule)|refresh\s+materialized\s+view)"
    r"\s+(?!pg_temp\b|of\b)[\"a-z{%]",
    re.IGNORECASE,
)
"""The beginning of a statement that takes a lock above ROW EXCLUSIVE on a table that is not our own."""
ELSEWHERE = ("gates/stack/", "gates/proof/", "gates/rehearsal/", "gates/doctor/grants.py")
"""These work on servers of their own, or print what a person runs."""
CHECK = "drill/audit/truncate-refused"
GUARDED = "truncate public.audit_logs"
"""Tried on the reference alone: see the test of a guard that guards nothing."""


def _strong_in(tree: ast.AST) -> Iterator[str]:
    """Statements with strong locks in a syntax tree, without docstrings and code for the reference alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and any("Where.REFERENCE" in ast.unparse(d) for d in node.decorator_list):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and STRONG.search(node.value):
            yield node.value
        yield from _strong_in(node)


def _sql(path: Path) -> str:
    return re.sub(r"--.*", "", path.read_text(encoding="utf-8"))


def test_no_statement_takes_a_strong_lock() -> None:
    """No SQL for a user's deployment locks a table against writers."""
    rooms = ("gates", "drills", "sql_checks", "loadtests")
    files = [p for p in below(*rooms) if not relative(p).startswith(ELSEWHERE)]
    found = [f"{relative(p)}: {text}" for p in files for text in _strong_in(ast.parse(text_of(p))) if text != GUARDED]
    statements = [p for room in rooms for p in (ROOT / room).rglob("*.sql") if "/tests/" not in str(p)]
    found += [relative(p) for p in statements if not relative(p).startswith(ELSEWHERE) and STRONG.search(_sql(p))]
    assert found == []
    assert len(files) > 100
    assert len(statements) > 100
    assert list(_strong_in(ast.parse("x = 'alter table public.y add z int'")))


def truncate(variables: dict[str, str], folder: Path, **others: str) -> Evidence:
    """The evidence of the TRUNCATE check on a staging target."""
    return examine({**variables, "GATE_TARGET": "staging", **others}, [CHECK], folder)[CHECK]


def test_a_reader_keeps_no_check_waiting(variables: dict[str, str], tmp_path: Path) -> None:
    """A report with a long snapshot does not make the check unknown."""
    with connect(variables["DATABASE_URL"], autocommit=False) as report:
        execute(report, "select count(*) from public.audit_logs")
        assert truncate(variables, tmp_path).outcome is Outcome.PASS


@pytest.mark.parametrize("kind", ["staging", "reference"])
def test_a_guard_that_guards_nothing_does_not_pass(variables: dict[str, str], tmp_path: Path, kind: str) -> None:
    """A trigger that allows TRUNCATE fails on the reference, where it is tried, and is unknown elsewhere."""
    function = "pg_get_functiondef('public.audit_logs_append_only'::regproc)"
    with session(variables["DATABASE_URL"]) as connection:
        before = str(execute(connection, f"select {function} as text")[0]["text"])
        head = before[: before.index("AS $")]
        connection.execute(f"{head} as $$ begin return null; end $$".encode())
        try:
            seen = truncate(variables, tmp_path, GATE_TARGET=kind)
        finally:
            connection.execute(before.encode())
    assert seen.outcome is {"staging": Outcome.UNKNOWN, "reference": Outcome.FAIL}[kind]
