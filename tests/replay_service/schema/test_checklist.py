"""The checklist's own SQL runs unchanged."""

from pathlib import Path

import psycopg
import pytest

STATEMENTS = sorted((Path(__file__).parent / "checklist").glob("*.sql"))
COMPANY = "00000000-0000-4000-8000-000000000001"


@pytest.mark.parametrize("path", STATEMENTS, ids=lambda p: p.stem)
def test_a_printed_statement_runs_unchanged(path: Path, migrated_url: str) -> None:
    """Every statement of the checklist runs as printed, but for its placeholder of a company id."""
    text = path.read_text(encoding="utf-8").replace("'company-id'", f"'{COMPANY}'")
    with psycopg.connect(migrated_url) as conn:
        conn.execute(text.encode())
        conn.execute(text.encode())


def test_all_statements_of_the_checklist_are_kept() -> None:
    """None of the 15 printed statements is missing from the test data."""
    assert len(STATEMENTS) == 15
