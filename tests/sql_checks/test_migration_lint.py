"""The reference's migrations: squawk finds no lock hazard, and each file limits its waits."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MIGRATIONS = sorted((Path(__file__).resolve().parents[2] / "replay_service" / "migrations").glob("*.sql"))
SQUAWK = shutil.which("squawk", path=str(Path(sys.executable).parent)) or shutil.which("squawk")
SUPPRESSED = {
    "prefer-bigint-over-int": "counts and percentages of one run or one batch: at most 50 items",
    "prefer-bigint-over-smallint": "the lane of an event: 16 of them",
}


@pytest.mark.skipif(SQUAWK is None, reason="squawk is not installed (pip install squawk-cli)")
def test_squawk_finds_nothing_but_what_is_suppressed() -> None:
    """Each file is one transaction; the suppressed rules are exactly those that fire."""
    done = subprocess.run(
        [str(SQUAWK), "--assume-in-transaction", "--pg-version=15", "--reporter=json", *map(str, MIGRATIONS)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = json.loads(done.stdout)
    assert {one["rule_name"] for one in found} == set(SUPPRESSED), [
        o for o in found if o["rule_name"] not in SUPPRESSED
    ]


@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda p: p.name)
def test_a_migration_limits_its_waits(path: Path) -> None:
    """lock_timeout and statement_timeout are set in every file."""
    text = path.read_text(encoding="utf-8").lower()
    assert "set local lock_timeout" in text
    assert "set local statement_timeout" in text
