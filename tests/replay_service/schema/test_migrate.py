"""The migration runner: once, in order, all or nothing, and never over a changed file."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from replay_service.migrate import MIGRATIONS, MigrationError, expected_version, main, migrate
from tests.postgres_fixture import PgServer


@pytest.fixture
def empty_url(pg_server: PgServer) -> Iterator[str]:
    """A database without a schema."""
    with pg_server.database() as name:
        yield pg_server.url(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the migrations that a test may spoil."""
    return Path(shutil.copytree(MIGRATIONS, tmp_path / "migrations"))


def applied(url: str) -> list[str]:
    with psycopg.connect(url) as conn:
        return [r[0] for r in conn.execute("SELECT version FROM schema_migrations ORDER BY version").fetchall()]


def test_it_is_idempotent_and_prints_the_version(empty_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run changes nothing; both print the version that the release expects."""
    assert main([], {"DATABASE_URL": empty_url}) == 0
    first = applied(empty_url)
    assert main([], {"DATABASE_URL": empty_url}) == 0
    assert applied(empty_url) == first
    assert capsys.readouterr().out == f"{expected_version()}\n" * 2


def test_many_at_once_apply_each_file_once(empty_url: str) -> None:
    """Runs that start together queue up at the lock."""
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(migrate, [empty_url] * 4)) == {expected_version()}
    assert len(applied(empty_url)) == len(list(MIGRATIONS.glob("*.sql")))


def test_a_changed_file_is_refused(migrated_url: str, folder: Path) -> None:
    """A file whose text differs from what was applied is named and nothing is applied."""
    file = folder / "20241201_006_feature_flags.sql"
    file.write_text(file.read_text() + "-- later thought\n")
    with pytest.raises(MigrationError, match="20241201_006 was changed"):
        migrate(migrated_url, folder)


def test_a_missing_file_is_refused(migrated_url: str, folder: Path) -> None:
    """A file that was applied and is gone is named."""
    (folder / "20241201_004_edge_rate_limits.sql").unlink()
    with pytest.raises(MigrationError, match="20241201_004 was applied and its file is missing"):
        migrate(migrated_url, folder)


def test_a_file_that_comes_too_late_is_refused(migrated_url: str, folder: Path) -> None:
    """A new file below the newest applied version would leave databases of the same version different."""
    (folder / "20241201_900_late.sql").write_text("SELECT 1;")
    (folder / "20231201_001_early.sql").write_text("SELECT 1;")
    with pytest.raises(MigrationError, match="20231201_001 came after"):
        migrate(migrated_url, folder)


@pytest.mark.parametrize("name", ["feature.sql", "2024_001_x.sql", "20241201_001_second.sql"])
def test_a_foreign_name_is_refused(migrated_url: str, folder: Path, name: str) -> None:
    """A name out of the manner, or a version used twice, is refused."""
    (folder / name).write_text("SELECT 1;")
    with pytest.raises(MigrationError, match=name):
        migrate(migrated_url, folder)


def test_a_failing_file_leaves_nothing(migrated_url: str, folder: Path) -> None:
    """A file that fails half-way is rolled back whole and stays pending."""
    (folder / "29990101_001_fails.sql").write_text("CREATE TABLE half (id int); SELECT 1 / 0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(migrated_url, folder)
    with psycopg.connect(migrated_url) as conn:
        assert conn.execute("SELECT to_regclass('half')").fetchone() == (None,)
    assert "29990101_001" not in applied(migrated_url)


@pytest.mark.parametrize(
    ("arguments", "environment", "code"),
    [([], {}, 3), (["--fast"], {"DATABASE_URL": "x"}, 3), ([], {"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, 1)],
)
def test_mistakes_end_with_a_message(
    arguments: list[str], environment: dict[str, str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """No URL, an argument, a server that is not there: a line on stderr and the exit code."""
    assert main(arguments, environment) == code
    assert capsys.readouterr().err


def test_an_unknown_job_is_refused() -> None:
    """`python -m replay_service` without a job says how it is used, exit code 3."""
    done = subprocess.run(
        [sys.executable, "-m", "replay_service", "dance"], capture_output=True, timeout=10, check=False
    )
    assert (done.returncode, done.stderr[:6]) == (3, b"usage:")
