"""Each run puts checks of known outcome through its own pipeline."""

import dataclasses
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from gates import config
from gates.checks.pipeline import assertion
from gates.decision.policy_file import Settings
from gates.deployment.target import Target
from gates.evidence import Evidence, Outcome, TargetKind
from gates.evidence_file import read_lines
from gates.stages import suite, watchdog
from gates.stages.context import Context
from gates.stages.pipeline import DUE, SPEC, judge, pipeline

RIGHT = [Evidence(check, due, samples=1) for check, due in DUE.items()]


def context(folder: Path, environ: dict[str, str]) -> Context:
    return Context(Target(TargetKind.PRODUCTION, release="r1"), Settings(), folder, "1", (SPEC,), environ=environ)


def test_the_known_checks_come_out_as_they_must(tmp_path: Path) -> None:
    """They go through the real pytest, recorder and evidence file, and leave one line in the run."""
    (report,) = pipeline(context(tmp_path, dict(os.environ)))
    (line,) = read_lines(tmp_path / "evidence.ndjson")
    assert (line.check, line.outcome, line.samples, line.release) == (SPEC.id, Outcome.PASS, len(DUE), "r1")
    assert not report.error


def test_a_target_that_is_away_is_no_fault_of_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check passes without a target, even if the watchdog has time to fire."""
    for name, seconds in (("PATIENCE_S", 0.1), ("EVERY_S", 0.05), ("LOOK_S", 0.1)):
        monkeypatch.setattr(watchdog, name, seconds)
    nowhere = "http://127.0.0.1:9", "postgresql://u@127.0.0.1:9/x"
    away = Target(TargetKind.PRODUCTION, nowhere[0], database_url=nowhere[1])
    pipeline(dataclasses.replace(context(tmp_path, dict(os.environ)), target=away))
    (line,) = read_lines(tmp_path / "evidence.ndjson")
    assert (line.outcome, line.message) == (Outcome.PASS, "")


def test_a_pipeline_that_loses_failures_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that turns every failure into a pass fails the check."""
    plugin = tmp_path / "lenient.py"
    plugin.write_text(
        "import gates.checks.recorder as r\nassert r.judge\nr.judge = lambda *seen: (r.Outcome.PASS, '')\n"
    )
    monkeypatch.setattr(suite, "PLUGINS", (*suite.PLUGINS, "lenient"))
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    pipeline(context(tmp_path / "out", {**os.environ, "PYTHONPATH": path}))
    (line,) = read_lines(tmp_path / "out" / "evidence.ndjson")
    assert line.outcome is Outcome.FAIL
    assert "pipeline/fails is pass where fail is due" in line.message


def test_no_variable_of_the_caller_takes_asserts_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTHONOPTIMIZE is removed; if it came through, the recorder refuses and the check is unknown."""
    optimized = {**os.environ, "PYTHONOPTIMIZE": "1"}
    pipeline(context(tmp_path / "plain", optimized))
    monkeypatch.setattr(config, "CHANGES_PYTHON", ())
    pipeline(context(tmp_path / "given", optimized))
    (plain,), (given,) = (read_lines(tmp_path / name / "evidence.ndjson") for name in ("plain", "given"))
    assert plain.outcome is Outcome.PASS
    assert given.outcome is Outcome.UNKNOWN
    assert "it could not be started that way" in given.message


def test_the_known_failure_is_lost_with_the_asserts() -> None:
    """The control: compiled without asserts, the failing helper passes."""
    for optimize, lost in ((0, False), (1, True)):
        module: dict[str, Any] = {}
        source = Path(assertion.__file__).read_text(encoding="utf-8")
        exec(compile(source, "", "exec", optimize=optimize), module)  # noqa: S102  -- as Python would import it
        with nullcontext() if lost else pytest.raises(AssertionError, match="it must fail"):
            module["hold"](False)


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        (RIGHT, Outcome.PASS),
        ([], Outcome.UNKNOWN),
        (RIGHT[1:], Outcome.FAIL),
        ([*RIGHT, Evidence("pipeline/more", Outcome.PASS, samples=1)], Outcome.FAIL),
        ([*RIGHT, Evidence("pipeline/fails", Outcome.PASS, samples=1)], Outcome.FAIL),
    ],
)
def test_only_the_due_outcomes_pass(lines: list[Evidence], outcome: Outcome) -> None:
    """A missing, extra or repeated outcome fails; none at all is unknown."""
    assert judge(lines, "").outcome is outcome


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [(RIGHT[1:], Outcome.UNKNOWN), ([*RIGHT[:-1], Evidence(RIGHT[-1].check, Outcome.PASS, samples=1)], Outcome.FAIL)],
)
def test_a_process_that_was_ended_shows_what_it_wrote(lines: list[Evidence], outcome: Outcome) -> None:
    """What a killed process did not write is unknown; a wrong outcome that it wrote fails."""
    found = judge(lines, "pytest was ended by signal 9")
    assert found.outcome is outcome
    assert ("signal 9" in found.message) is (outcome is Outcome.UNKNOWN)


def test_a_catalogue_without_the_check_runs_nothing(tmp_path: Path) -> None:
    """Nothing is run, since the evidence would belong to no check."""
    assert pipeline(Context(Target(TargetKind.PRODUCTION), Settings(), tmp_path, "1")) == []
