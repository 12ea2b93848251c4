"""The gate as others have it: built as a wheel, installed apart from this repository, run by the action's own steps."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.github.test_action import FakeRunner
from tests.sources import ROOT

SOURCES = ("gates", "drills", "sql_checks", "loadtests", "replay_service", "faults")
FILES = ("pyproject.toml", "README.md", "LICENSE")
LIMIT_S = 120


def done(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}  # it may name this repository
    return subprocess.run(words, cwd=cwd, env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def isolation() -> list[str]:
    """Whether pip fetches what builds the package: not where that is here, and the tests then need no network."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    try:
        here = all(Requirement(one).specifier.contains(version(Requirement(one).name)) for one in groups["build"])
    except PackageNotFoundError:
        here = False
    return ["--no-build-isolation"] if here else []


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `gate` of an environment that has the wheel, and this one's packages without the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    built = done(*pip, "wheel", "--no-deps", *isolation(), "--wheel-dir", folder, source, cwd=folder)
    if built.returncode and not isolation():
        pytest.skip(f"no setuptools that builds the package is here, and none could be fetched: {built.stderr[-300:]}")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("replaygate-*.whl")
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    own = done(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).stdout.strip()
    # a path file is not read below another: what makes this repository importable here does not come along
    (Path(own) / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    put = done(
        *pip,
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--ignore-installed",
        wheel,
        cwd=folder,
    )
    assert put.returncode == 0, put.stderr
    return environment / "bin" / "gate"


def test_the_wheel_has_all_that_the_gate_reads(installed: Path, tmp_path: Path) -> None:
    """Every file of the packages: policy, SQL, rules, drills, catalogue; nothing comes from this repository."""
    script = "import gates, drills; print(gates.__path__[0])"
    gates = Path(done(installed.parent / "python", "-c", script, cwd=tmp_path).stdout.strip())
    assert not gates.is_relative_to(ROOT)
    files = {p.relative_to(ROOT) for name in SOURCES for p in (ROOT / name).rglob("*") if p.is_file()}
    read = {file for file in files if "__pycache__" not in file.parts}
    assert len(read) > 500
    assert sorted(str(file) for file in read if not (gates.parent / file).exists()) == []
    told = done(installed, "explain", "alert/outbox-lag", cwd=tmp_path)
    assert "checked   sql_checks/alerts/outbox.yaml:" in told.stdout, told.stderr


def test_another_repository_is_gated_by_the_steps_of_the_action(installed: Path, tmp_path: Path) -> None:
    """Its own gate.yaml counts; the target is not there, so it holds: outputs, summary, report, history, annotation."""
    runner = FakeRunner(tmp_path, str(installed))
    (tmp_path / "gate.yaml").write_text("version: 1\nrollout: {flag: our.flag, steps: [5, 100]}\n", encoding="utf-8")
    ran = runner.run("gate", {"base-url": "http://127.0.0.1:9", "release": "v7", "output": "out"})
    assert ran.returncode == 10, ran.stderr
    assert runner.outputs["decision"] == "hold"
    assert runner.outputs["release"] == "v7"
    assert "our.flag" in (tmp_path / "summary").read_text(encoding="utf-8")
    assert "our.flag" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "::warning title=preflight/target-reachable unknown::" in ran.stderr
    assert "v7" in done(installed, "history", cwd=tmp_path).stdout
