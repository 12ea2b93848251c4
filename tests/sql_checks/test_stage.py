"""The SQL stage's options for its suite, and where exports go."""

from pathlib import Path

import pytest

from gates import cli
from gates.decision.policy_file import Settings
from gates.deployment.target import Target
from gates.evidence import TargetKind
from gates.operator import run_command
from gates.stages import sql as stage
from gates.stages.context import Context, StageReport
from gates.stages.suite import SuiteRun


def options_of(context: Context, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The options that the stage would pass to its suite."""
    seen: list[SuiteRun] = []

    def run(suite: SuiteRun, _context: Context) -> StageReport:
        seen.append(suite)
        return StageReport(suite.name, 0.0)

    monkeypatch.setattr(stage, "run", run)
    context.out.mkdir(exist_ok=True)
    stage.sql(context)
    return seen[0].options


@pytest.mark.parametrize(
    ("kind", "folder"),
    [(TargetKind.REFERENCE, "out/state"), (TargetKind.STAGING, "memory"), (TargetKind.PRODUCTION, "memory")],
)
def test_the_suite_remembers_between_runs(
    kind: TargetKind, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is in the state folder; for a reference of one run, with its results."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(state=Path("memory"), require_checkpoint=kind is TargetKind.PRODUCTION)
    options = options_of(Context(Target(kind), settings, tmp_path / "out", "run"), monkeypatch)
    assert f"--state={tmp_path / folder}" in options
    assert ("--require-checkpoint" in options) == settings.require_checkpoint


@pytest.mark.parametrize(
    "words",
    [
        ("sql", "--export", "psql", "--to", "x.sql"),
        ("alerts", "--export", "prometheus", "--to", "x.sql"),
        ("sql", "--write-manifest", "x.sql"),
    ],
)
def test_files_are_written_where_the_caller_stands(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths are the caller's, and - is stdout."""
    monkeypatch.chdir(tmp_path)
    found = run_command.suite_words(cli.parser(words[0]).parse_args(words))
    assert found[-1] == str(tmp_path / "x.sql")
    dash = run_command.suite_words(cli.parser(words[0]).parse_args([*words[:-1], "-"]))
    assert dash[-1] == "-"
