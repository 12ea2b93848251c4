"""Spot check files are read strictly: each mistake has its place, what is allowed and what to do."""

from pathlib import Path

import pytest

from sql_checks.export.alert_docs import alerts_markdown
from sql_checks.lint import lint, lint_rules
from sql_checks.rules.file import read_all_rules
from sql_checks.spotfile import SpotFileError, read_folder, read_spot, require_query

GOOD = """-- id: sql/spot/good
-- claim: A claim
--   that goes on.
-- cost: A cost.
-- severity: page
select 'a' as subject, 'b' as detail, 'c' as witness where false;

-- seen:
select 1 as seen;
"""
CHECKLIST = Path(__file__).with_name("checklist_queries.sql")


def write(folder: Path, text: str, name: str = "0001_good.sql") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_header_line_may_go_on(tmp_path: Path) -> None:
    """An indented comment continues the line above."""
    assert read_spot(write(tmp_path, GOOD)).spec.claim == "A claim that goes on."


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-- severity: page\n", "", "lacks severity"),
        ("severity: page", "severity: bad", "allowed: page, warn, investigate"),
        ("-- severity", "-- severty", "Did you mean 'severity'"),
        ("-- cost: A cost.", "-- cost: A cost.\n-- cost: B.", "twice"),
        ("sql/spot/good", "sql/spot/other", "Make name and id agree"),
        ("-- seen:\nselect 1 as seen;\n", "", "0 lines `-- seen:`"),
        ("select 1 as seen;", "select 1 as seen; select 2;", "more than one statement"),
        ("select 'a'", "delete from x returning 'a'", "is no query"),
        ("select 'a' as subject", "with x as (delete from y returning 1) select 'a' as subject", "only reads"),
        ("-- severity: page", "-- severity: page\n-- minimum: 0", "at least 1"),
        ("select 'a'", "-- those of all\u2028 tenants\nselect 'a'", "editors do not show"),
        ("select 1 as seen", "select {{nothing}} as seen", "no fragment nothing.sql"),
    ],
)
def test_a_mistake_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    """Every kind of mistake is found."""
    assert old in GOOD
    with pytest.raises(SpotFileError, match=r"0001_good\.sql|fragments") as caught:
        read_spot(write(tmp_path, GOOD.replace(old, new)))
    assert message in str(caught.value)


def test_one_id_is_one_file(tmp_path: Path) -> None:
    """The same id in two files is a mistake."""
    write(tmp_path, GOOD)
    write(tmp_path, GOOD, "0002_good.sql")
    with pytest.raises(SpotFileError, match="also in"):
        read_folder(tmp_path)


def test_the_checklist_queries_are_there_word_for_word() -> None:
    """All five queries of the checklist are the `seen` of a spot check, unchanged."""
    seen = {" ".join(spot.seen.split()) for spot in read_folder()}
    wanted = [" ".join(q.split()) for q in CHECKLIST.read_text(encoding="utf-8").split(";") if q.strip()]
    assert len(wanted) == 5
    assert set(wanted) <= seen


def test_the_shipped_files_have_no_mistake() -> None:
    """Spot checks, rules, fixtures, runbooks: the lint finds nothing."""
    assert lint() == []


RULES = """groups:
  - name: own
    rules:
      - alert: own-rule
        claim: A claim.
        cost: A cost.
        unit: s
        window: 5 minutes
        above: {page: 5}
        range: [0, 10]
        min_samples: 1
        for: 1m
        covers: []
        runbook: runbooks.md#outbox-lag
        query: select 'all' as subject, 1 as value, 1 as samples, null as newest, null as witness, interval '5 minutes'
"""


def test_a_rule_without_fixtures_is_refused(tmp_path: Path) -> None:
    """A rule without its compulsory fixtures or runbook, or with another window than its query has, is named."""
    (tmp_path / "own.yaml").write_text(RULES, encoding="utf-8")
    (tmp_path / "runbooks.md").write_text("## outbox lag\n", encoding="utf-8")
    assert any("has no fixtures" in p for p in lint_rules(tmp_path))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "own-rule.yaml").write_text(
        "cases:\n  - breach page: [[all, 6, 1, null]]\n", encoding="utf-8"
    )
    problems = list(lint_rules(tmp_path))
    assert any("no fixture for `empty`" in p for p in problems)
    assert not any("no fixture for `breach`" in p for p in problems)
    assert not any("no runbook" in p for p in problems)
    (tmp_path / "own.yaml").write_text(RULES.replace("window: 5 minutes", "window: 9 minutes"), encoding="utf-8")
    assert any("'9 minutes'`, its window" in p for p in lint_rules(tmp_path))
    (tmp_path / "own.yaml").write_text(RULES.replace("#outbox-lag", "#nowhere"), encoding="utf-8")
    assert any("no runbook" in p for p in lint_rules(tmp_path))
    (tmp_path / "own.yaml").write_text(RULES.replace("above:", "abov:"), encoding="utf-8")
    assert any("Did you mean 'above'" in p for p in lint_rules(tmp_path))


def test_the_page_of_alerts_is_generated() -> None:
    """docs/alerts.md is what the rules say."""
    page = Path(__file__).resolve().parents[2] / "docs" / "alerts.md"
    assert page.read_text(encoding="utf-8") == alerts_markdown(read_all_rules()), "run: python -m sql_checks docs"


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("select 1;", "select 1"),
        ("select 1; -- why", "select 1"),
        ("select 1;\n-- one\n-- two;\n", "select 1"),
        ("select 'a; -- x';", "select 'a; -- x'"),
        ("select '--x'", "select '--x'"),
    ],
)
def test_what_follows_the_semicolon_is_left_out(text: str, query: str) -> None:
    """A query is embedded in others: neither its semicolon nor a comment behind it may stay."""
    assert require_query(Path("0001_x.sql"), text) == query
