"""A mistake in a rule or fixture is one line with file, line, column and what to do."""

import re
from pathlib import Path

import pytest

from sql_checks.lint import lint_rules
from sql_checks.rules.file import ALERTS

RULE = (ALERTS / "resources.yaml").read_text(encoding="utf-8")
FIRST = re.search(r"alert: (\S+)", RULE)[1]  # type: ignore[index]
FIXTURES = (ALERTS / "tests" / f"{FIRST}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("pattern", "mistake", "says"),
    [
        (r"for: ", "min_samples: many\n        for: ", "'many'; allowed: a whole number from 1"),
        (r"for: ", "min_samples: 0\n        for: ", "0; allowed: a whole number from 1"),
        (r"range: .*", "rang: [0, 1]", "the unknown key 'rang'; allowed:"),
        (r"range: .*", "range: [1, 0]", "[1, 0]; allowed: [lowest, highest]"),
        (r"range: .*\n", "\n", "'range' is missing"),
        (r"(above|below): {.*}", "above: {}", "no limit; allowed: page, warn"),
        (r"(above|below): {.*}", "above: {page: 1, warn: 2}", "a milder limit beyond a worse one"),
        (r"(above|below): {.*}", "above: {page: 1}\n        below: {page: 1}", "both or neither"),
        (r"for: \S+", "for: soon", "'soon'; allowed: 30s, 2m"),
        (r"alert: \S+", "alert: Very Bad", "'Very Bad'; allowed: a name in kebab-case"),
        (r"query: \|", "query: |\n          {{nothing_here}}", "no fragment nothing_here.sql"),
        (r"covers: .*", "covers: K01", "'K01'; allowed: a list"),
    ],
)
def test_a_mistake_in_a_rule_is_told_at_its_place(tmp_path: Path, pattern: str, mistake: str, says: str) -> None:
    """Each planted mistake has its line and column."""
    text, times = re.subn(pattern, mistake, RULE, count=1)
    assert times == 1
    (tmp_path / "rules.yaml").write_text(text, encoding="utf-8")
    (told,) = lint_rules(tmp_path)
    assert re.match(rf"{re.escape(str(tmp_path))}/rules\.yaml:(?!1:)\d+:\d+: ", told), told
    assert says in told


@pytest.mark.parametrize(
    ("pattern", "mistake", "says"),
    [
        (r"- (\S+) \S+: ", r"- \1 red: ", "red'; allowed: one of breach, "),
        (r"- \S+ (\S+): ", r"- broken \1: ", "'broken "),
        (r"- \S+ \S+: ", "- ", "; allowed: a mapping"),
        (r"\[all, \S+", "[all, much,", "a list of 4; allowed: [subject"),
    ],
)
def test_a_mistake_in_a_fixture_is_told_at_its_place(tmp_path: Path, pattern: str, mistake: str, says: str) -> None:
    """Each planted mistake has its line and column."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "rules.yaml").write_text(RULE, encoding="utf-8")
    text, times = re.subn(pattern, mistake, FIXTURES, count=1)
    assert times == 1
    (tmp_path / "tests" / f"{FIRST}.yaml").write_text(text, encoding="utf-8")
    told = [t for t in lint_rules(tmp_path) if says in t]
    assert len(told) == 1
    assert re.match(rf"{re.escape(str(tmp_path))}/tests/{FIRST}\.yaml:\d+:\d+: ", told[0]), told
