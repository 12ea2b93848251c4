"""The process of a suite: what it takes from its environment, and what is left of it after a signal."""

import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from gates.decision.policy_file import Settings
from gates.deployment.target import Target
from gates.evidence import Outcome, TargetKind
from gates.stages import suite
from gates.stages.context import Context
from gates.stages.suite import Begun, SuiteRun
from tests.sources import ROOT
from tests.waiting import until

SECRET = "planted-secret-0123456789"
TEST = """
import os, threading
def test_it():
    print("\\n::stop-commands::x\\x1b]0;x\\x07 it answered", os.environ["TRANSBOT_HMAC_SECRET"], flush=True)
    threading.Event().wait(60)
"""


def test_a_log_keeps_no_secret_when_a_signal_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs are redacted and made inert on every way out, and the process has ended."""
    (tmp_path / "drills").mkdir()
    (tmp_path / "drills" / "test_it.py").write_text(TEST, encoding="utf-8")
    log, processes = tmp_path / "out" / "logs" / "drill.log", list[subprocess.Popen[bytes]]()

    def interrupted(one: Begun, *_: Any) -> None:
        processes.append(one.process)
        until(lambda: SECRET in log.read_text(encoding="utf-8"), 60)
        modes.extend(path.stat().st_mode for path in (log, tmp_path / "out" / suite.TEMPORARY))
        raise KeyboardInterrupt

    modes = list[int]()
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    monkeypatch.setattr(suite, "_wait", interrupted)
    target = Target(TargetKind.STAGING, hmac_secrets=(SECRET,))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    context = Context(target, Settings(), tmp_path / "out", "run", environ=environ)
    with pytest.raises(KeyboardInterrupt):
        suite.run(SuiteRun("drill", "drills", (), 60.0, ("-s",)), context)
    shown = r"\u003a:stop-commands::x\u001b]0;x\u0007 it answered $TRANSBOT_HMAC_SECRET"
    assert shown in log.read_text(encoding="utf-8")
    assert processes[0].poll() is not None
    assert [mode & 0o077 for mode in modes] == [0, 0], "others read it before it is redacted"


STRANGER = """
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    pyfuncitem.funcargs["seen"].control("said by nobody")
    pyfuncitem.funcargs["seen"].count()
    return True
"""
FAILS = """
from gates.checks.recorder import check

@check("drill/small/fails")
def test_fails(seen):
    \"\"\"It fails.\"\"\"
    seen.control("x")
    seen.count()
    assert False
"""


def test_no_conftest_above_a_suite_takes_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The conftest.py of a surrounding project cannot change an outcome."""
    suites, out = tmp_path / "project" / "packages", tmp_path / "out"
    (suites / "drills").mkdir(parents=True)
    (suites / "drills" / "test_fails.py").write_text(FAILS, encoding="utf-8")
    for place in (suites, suites.parent):
        (place / "conftest.py").write_text(STRANGER, encoding="utf-8")
    monkeypatch.setattr(suite, "ROOT", suites)
    context = Context(
        Target(TargetKind.STAGING), Settings(), out, "run", environ={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    suite.run(SuiteRun("drill", "drills", (), 60.0), context)
    assert [(e.check, e.outcome) for e in context.lines()] == [("drill/small/fails", Outcome.FAIL)]


def test_a_suite_that_was_begun_looks_when_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite is collected in advance, and runs no check until it is told to."""
    collected = tmp_path / "collected"
    (tmp_path / "drills").mkdir()
    noting = f"from pathlib import Path\nPath({str(collected)!r}).touch()\n{FAILS}"
    (tmp_path / "drills" / "test_fails.py").write_text(noting, encoding="utf-8")
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    context = Context(Target(TargetKind.STAGING), Settings(), tmp_path / "out", "run", environ=environ)
    for told in (False, True):
        with suite.begun(SuiteRun("drill", "drills", (), 60.0), context) as one:
            until(collected.exists, 60)
            assert context.lines() == []
            assert one.process.poll() is None
            if told:
                suite.looked(one, context)
        assert one.process.poll() is not None
        assert bool(context.lines()) is told
        collected.unlink()
    assert not (tmp_path / "out" / suite.TEMPORARY).exists()


CALLS = """
import os
from gates.checks.recorder import check

@check("drill/small/calls")
def test_calls(seen, pytestconfig):
    \"\"\"It asks for work, and goes on when that is done.\"\"\"
    seen.control("x")
    seen.count()
    os.write(pytestconfig.getoption("--calls"), b"1")
    assert os.read(pytestconfig.getoption("--when-told"), 1)
"""


def test_what_a_suite_asks_for_is_done_outside_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate does it while the suite runs, says so, and counts none of it as the suite's."""
    (tmp_path / "drills").mkdir()
    (tmp_path / "drills" / "test_calls.py").write_text(CALLS, encoding="utf-8")
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    context = Context(Target(TargetKind.STAGING), Settings(), tmp_path / "out", "run", environ=environ)
    gate_time = Elapsing()
    monkeypatch.setattr(suite, "time", gate_time)
    report = suite.run(SuiteRun("drill", "drills", (), 60.0, meanwhile=gate_time.hour), context)
    assert [(e.check, e.outcome) for e in context.lines()] == [("drill/small/calls", Outcome.PASS)]
    assert (gate_time.hours, report.error) == (1, "")
    assert report.seconds < 60.0


class Elapsing:
    """A clock on which an hour can pass at once."""

    hours = 0

    def hour(self) -> None:
        self.hours += 1

    def monotonic(self) -> float:
        return time.monotonic() + 3600.0 * self.hours


def test_nothing_goes_on_behind_a_suite_that_was_killed() -> None:
    """Ending a killed suite also ends its children: they would meet data that is being cleaned up."""
    with subprocess.Popen(
        ["/bin/sh", "-c", "sleep 60 & kill -KILL $$"], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        process.wait(10)
        assert process.stdout is not None
        assert not select.select([process.stdout], [], [], 0)[0], "the other one has its end of the pipe"
        suite.end(process)
        assert select.select([process.stdout], [], [], 10)[0], "the other one has ended"


def test_who_was_killed_is_said_to_be() -> None:
    """The message says "Killed" and where to look, not the number of the signal."""
    said = suite._error(-9, SuiteRun("drill", "drills", (), 60.0), "")
    assert said == "the drill stage was ended by Killed; see this machine's memory and its log"
