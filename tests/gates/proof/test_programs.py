"""Programs of a proof end at their limits; a verdict counts only if it agrees with the exit code and the files."""

import json
import sys
import time
from pathlib import Path

import pytest

from gates import record
from gates.decision.rules import Policy
from gates.evidence import JsonValue, TargetKind
from gates.evidence_file import ChainEnd
from gates.proof.selfsuite.live import Running
from gates.proof.workbench.marked import Marked
from gates.proof.workbench.programs import FinishedProgram, clean, last_words, read_run, read_verdict, run, start
from gates.verdict import Action, Decision, Effect, Finding, Verdict

FACTS: dict[str, JsonValue] = {
    **record.facts_of(Policy(target=TargetKind.STAGING, release="r1")),
    "started_at": "2025-01-13T12:00:00.000+00:00",
}
FINISHED: dict[str, JsonValue] = {
    "decided_at": "2025-01-13T12:00:00.000+00:00",
    "evidence": ChainEnd().to_json(),
    "finished_at": "2025-01-13T12:00:00.000+00:00",
    "action": Action(result="dry_run").to_json(),
}


@pytest.mark.parametrize(
    ("finished", "code", "error"),
    [
        (True, 10, ""),
        (True, 0, "exit code 0, but the verdict on disk says hold"),
        (True, None, "did not end within its limit"),
        (False, 143, "did not finish"),
    ],
)
def test_a_verdict_counts_only_with_its_exit_code(finished: bool, code: int | None, error: str, tmp_path: Path) -> None:
    """A verdict that differs from the exit code is no verdict."""
    begun = record.begin(tmp_path, FACTS)
    if finished:
        record.write_run(tmp_path, {**begun, **FINISHED})
    found = read_run(tmp_path, FinishedProgram(code, "", "said"))
    assert (found.verdict is not None) is (not error)
    assert error in found.error


def test_a_folder_without_a_run_is_no_verdict(tmp_path: Path) -> None:
    """A gate that died before it wrote a record has no verdict."""
    assert read_run(tmp_path, FinishedProgram(1, "", "")).verdict is None


def test_a_printed_verdict_is_read_back() -> None:
    """A verdict survives its JSON form."""
    one = Finding("drill/a", "fail", "page", Effect.ROLLBACK, "observed 2", 2, 1, witness={"row": 1})
    verdict = Verdict(Decision.ROLLBACK, "drill/a failed", findings=(one,), policy_digest="sha256:1")
    again = read_verdict(json.loads(verdict.dump()))
    assert (again.decision, again.findings, again.reason) == (verdict.decision, verdict.findings, verdict.reason)


def test_a_program_is_ended_at_its_limit() -> None:
    """The program is ended, and its output so far is kept."""
    stubborn = (
        "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_DFL); print('up', flush=True); time.sleep(60)"
    )
    started = time.monotonic()
    done = run((sys.executable, "-c", stubborn), {}, 1.0)
    assert (done.code, done.out) == (None, "up\n")
    assert time.monotonic() - started < 30


def test_no_other_target_reaches_a_program() -> None:
    """The variables that name the user's own target are removed."""
    told = clean(
        {"DATABASE_URL": "x", "BASE_URL": "y", "PGHOST": "z", "GITHUB_OUTPUT": "f", "PATH": "/bin"}, {"RELEASE": "r"}
    )
    assert told == {"PATH": "/bin", "RELEASE": "r"}


def test_a_running_gate_is_followed_killed_and_leaves_nothing(tmp_path: Path) -> None:
    """The end of a phase is seen as it is printed; after a kill no marked process is left."""
    script = "import sys,time; print('✓ preflight    7 passed', file=sys.stderr, flush=True); time.sleep(60)"
    words = (sys.executable, "-c", script)
    process = start(words, (all_of_it := Marked()).marked({"PYTHONIOENCODING": "utf-8"}))
    gate = Running(process, tmp_path, all_of_it, time.monotonic())
    assert gate.wait_for("preflight", 20)
    assert all_of_it.alive() == [process.pid]
    assert not gate.wait_for("load", 0.2)
    gate.kill()
    assert all_of_it.left() == []


@pytest.mark.parametrize(
    ("program", "limit_s", "expected"),
    [
        ("pass", 5.0, []),
        ("raise SystemExit('Traceback (most recent call last)')", 5.0, ["it wrote a traceback"]),
        ("import time; time.sleep(600)", 0.5, ["did not end within"]),
    ],
)
def test_how_a_program_ended_is_a_finding_and_no_crash_of_the_proof(
    program: str, limit_s: float, expected: list[str]
) -> None:
    """A traceback is reported; a program that does not end is ended, and that is reported."""
    process = start((sys.executable, "-c", program), {})
    _, wrong = last_words(process, limit_s)
    assert process.poll() is not None
    assert [words for words in expected if not any(words in line for line in wrong)] == []
    assert len(wrong) == len(expected)
