"""The process of a suite: what is left of it when a signal ends the run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gates.decision.policy_file import Settings
from gates.deployment.target import Target
from gates.evidence import TargetKind
from gates.stages import suite
from gates.stages.context import Context
from gates.stages.suite import SuiteRun
from tests.sources import ROOT
from tests.waiting import until

SECRET = "planted-secret-0123456789"
TEST = """
import os, threading
def test_it():
    print("it answered", os.environ["TRANSBOT_HMAC_SECRET"], flush=True)
    threading.Event().wait(60)
"""


def test_a_log_keeps_no_secret_when_a_signal_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a check printed of the target's answer is redacted on every way out, and its process is gone."""
    (tmp_path / "drills").mkdir()
    (tmp_path / "drills" / "test_it.py").write_text(TEST, encoding="utf-8")
    log, processes = tmp_path / "out" / "logs" / "drill main.log", list[subprocess.Popen[bytes]]()

    def interrupted(process: subprocess.Popen[bytes], *_: Any) -> None:
        processes.append(process)
        until(lambda: SECRET in log.read_text(encoding="utf-8"), 60)
        raise KeyboardInterrupt

    monkeypatch.setattr(suite, "ROOT", tmp_path)
    monkeypatch.setattr(suite, "_wait", interrupted)
    target = Target(TargetKind.STAGING, hmac_secrets=(SECRET,))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    context = Context(target, Settings(), tmp_path / "out", "run", environ=environ)
    with pytest.raises(KeyboardInterrupt):
        suite.run(SuiteRun("drill main", "drills", (), 60.0, ("-s",)), context)
    assert "it answered $TRANSBOT_HMAC_SECRET" in log.read_text(encoding="utf-8")
    assert processes[0].poll() is not None
