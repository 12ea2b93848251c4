"""The action and the workflows: what they pin, what they run, and what a runner is told."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.sources import ROOT

ACTION = ROOT / "action.yml"
INSTALL = ROOT / ".github" / "actions" / "install" / "action.yml"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FILES = [ACTION, INSTALL, *WORKFLOWS]
OWN = {"$/.": ACTION, "$/.github/actions/install": INSTALL}
"""The repository's own actions, at the commit of who uses them. A runner refuses `$/` without a path."""
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
LOCKED = re.compile(r"(?m)^([A-Za-z0-9_.-]+)==(\S+)")


def members(node: Any, name: str) -> Iterator[Any]:
    """Every member of that name, at any depth."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == name:
                yield value
            yield from members(value, name)
    elif isinstance(node, list):
        for one in node:
            yield from members(one, name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_what_others_wrote_is_pinned_and_nothing_foreign_is_pasted_into_a_shell(file: Path) -> None:
    """Every action is a commit; no expression stands in a script; a checkout leaves no credentials behind."""
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    used = list(members(data, "uses"))
    assert [one for one in used if not PINNED.fullmatch(one) and one not in OWN] == []
    assert [script for script in members(data, "run") if "${{" in script] == []
    steps = steps_of(data)
    checkouts = [step for step in steps if "actions/checkout" in step.get("uses", "")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    if file in WORKFLOWS:
        assert data["permissions"] == {"contents": "read"}


@pytest.mark.parametrize(("lock", "extra"), [("requirements.lock", None), ("requirements-reference.lock", "reference")])
def test_a_lock_has_every_dependency_in_a_version_that_fits(lock: str, extra: str | None) -> None:
    """A dependency that was added or raised without the lock would be installed by no action and no image."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, build = pyproject["project"], pyproject["dependency-groups"]["build"]
    text = (ROOT / lock).read_text(encoding="utf-8")
    if "-r requirements.lock" in text.splitlines():
        text += (ROOT / "requirements.lock").read_text(encoding="utf-8")
    versions = {(canonicalize_name(name), version) for name, version in LOCKED.findall(text)}
    locked = dict(versions)
    assert len(locked) == len(versions), "two versions of one package"
    more = project["optional-dependencies"][extra] if extra else []
    wanted = [Requirement(one) for one in (*project["dependencies"], *build, *more)]
    lacking = [
        str(one) for one in wanted if not one.specifier.contains(locked.get(canonicalize_name(one.name), "0.dev0"))
    ]
    assert lacking == [], f"run the command at the top of {lock}"
    assert text.count("--hash=sha256:") > len(locked)


def steps_of(data: Any) -> list[Any]:
    """The steps of an action, or of all jobs of a workflow."""
    return [step for listed in members(data, "steps") for step in listed]


def inputs_of(data: Any) -> dict[str, Any]:
    """The inputs of an action, or of a workflow that others call (YAML reads the member `on` as true)."""
    return dict(data["inputs"] if "runs" in data else data[True]["workflow_call"]["inputs"])


def test_what_is_given_to_an_own_action_is_one_of_its_inputs() -> None:
    """GitHub drops an input that an action does not have, with a warning."""
    for file in FILES:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        for step in steps_of(data):
            if step.get("uses") in OWN:
                known = inputs_of(yaml.safe_load(OWN[step["uses"]].read_text(encoding="utf-8")))
                assert set(step.get("with", {})) <= set(known), file.name


class FakeRunner:
    """Runs the script of a step of the action as a runner does: its environment, and files for its outputs."""

    def __init__(self, folder: Path, gate: str = "") -> None:
        self.folder, self.output = folder, folder / "output"
        (folder / "temp" / "replaygate" / "bin").mkdir(parents=True)
        ours = gate or shutil.which("gate", path=str(Path(sys.executable).parent)) or ""
        (folder / "temp" / "replaygate" / "bin" / "gate").symlink_to(ours)
        self.output.touch()

    def run(self, step_id: str, inputs: dict[str, str], file: Path = ACTION) -> subprocess.CompletedProcess[str]:
        action = yaml.safe_load(file.read_text(encoding="utf-8"))
        (step,) = [one for one in steps_of(action) if one.get("id") == step_id]
        given = {name: str(about.get("default", "")) for name, about in inputs_of(action).items()} | inputs
        environ = {
            name: re.sub(r"\$\{\{ (?:inputs\.([a-z-]+))?.*? \}\}", lambda match: given.get(match[1], ""), text)
            for name, text in step.get("env", {}).items()
        }
        github = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(file.parent),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary"),
            "RUNNER_TEMP": str(self.folder / "temp"),
            "HOME": str(self.folder),
            "PATH": os.environ["PATH"],
        }
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.folder,
            env=github | environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @property
    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.output.read_text(encoding="utf-8").splitlines())


@pytest.fixture
def runner(tmp_path: Path) -> FakeRunner:
    return FakeRunner(tmp_path)


def test_a_target_that_cannot_be_reached_holds_and_the_job_is_told_why(runner: FakeRunner) -> None:
    """Exit code, outputs, summary, an annotation, the report, and no secret anywhere."""
    secret = "a-secret-of-the-action-0123"
    done = runner.run("gate", {"base-url": "http://127.0.0.1:9", "hmac-secret": secret, "policy": ""})
    assert done.returncode == 10, done.stderr
    assert runner.outputs["decision"] == "hold"
    assert runner.outputs["exit-code"] == "10"
    assert "cannot be reached" in runner.outputs["reason"]
    assert "::warning title=preflight/target-reachable unknown::" in done.stderr
    assert (runner.folder / "gate-out" / "report.html").exists()
    assert "hold" in (runner.folder / "summary").read_text(encoding="utf-8").lower()
    assert secret not in done.stdout + done.stderr


def test_a_policy_that_is_wrong_is_annotated_at_its_line(runner: FakeRunner) -> None:
    """GitHub shows the error beside the line of gate.yaml."""
    (runner.folder / "gate.yaml").write_text("version: 1\nrolout: {}\n", encoding="utf-8")
    done = runner.run("gate", {"base-url": "http://127.0.0.1:9"})
    assert done.returncode == 3
    assert "::error file=gate.yaml,line=2,col=1,title=gate run::" in done.stderr
    assert "decision" not in runner.outputs


@pytest.mark.parametrize("given", ["", " ", "\n"])
def test_a_gate_of_nothing_is_refused(given: str, runner: FakeRunner) -> None:
    """Without a target the gate would bring up its own reference, and promote that."""
    done = runner.run("gate", {"base-url": given, "database-url": given})
    assert done.returncode == 3
    assert "::error title=gate run::neither BASE_URL nor DATABASE_URL has a value" in done.stderr


@pytest.mark.parametrize("given", ["True", "TRUE", "yes", "1", " true", "", "$(touch pwned)"])
def test_a_dry_run_that_is_mistyped_changes_no_flag(given: str, runner: FakeRunner) -> None:
    """An expression that names an input that is not there is empty: the gate is not even started."""
    done = runner.run("gate", {"base-url": "http://127.0.0.1:9", "dry-run": given})
    assert done.returncode == 2
    assert "::error title=replaygate::dry-run is neither true nor false" in done.stdout
    assert sorted(p.name for p in runner.folder.iterdir()) == ["output", "temp"]


def test_the_cache_of_packages_is_that_of_the_lock(runner: FakeRunner) -> None:
    """Another lock, another cache."""
    assert runner.run("lock", {}, INSTALL).returncode == 0
    plain = runner.outputs["digest"]
    assert re.fullmatch(r"[0-9a-f]{20}", plain)
    assert runner.run("lock", {"lock": "requirements-reference.lock"}, INSTALL).returncode == 0
    assert runner.outputs["digest"] != plain


def test_a_pull_request_is_shown_the_line_that_cannot_run(runner: FakeRunner) -> None:
    """The job fails with the rehearsal's exit code, and its page has what was found."""
    folder = runner.folder / "migrations"
    folder.mkdir()
    (folder / "1_a.sql").write_text("create table a (b int);\nalter table c add d int;\n", encoding="utf-8")
    done = runner.run("rehearse", {}, ROOT / ".github" / "workflows" / "rehearse.yml")
    assert done.returncode not in {0, 1, 4}, done.stderr
    assert "1_a.sql:2" in (runner.folder / "summary").read_text(encoding="utf-8")
    assert "1_a.sql:2" in done.stdout


def test_a_round_of_the_canary_is_told_on_the_page_of_its_job(runner: FakeRunner) -> None:
    """A target that cannot be reached is doubtful, and the round is in the history."""
    workflow = ROOT / ".github" / "workflows" / "canary.yml"
    done = runner.run("watch", {"base-url": "http://127.0.0.1:9"}, workflow)
    assert done.returncode == 10, done.stderr
    assert (runner.folder / "gate-watch" / "history.md").exists()
