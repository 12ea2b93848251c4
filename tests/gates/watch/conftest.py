"""A watch over fake suites."""

import datetime as dt
from pathlib import Path

import pytest

from gates.decision.policy_file import parse
from gates.deployment.target import Target
from gates.evidence import TargetKind
from gates.watch import look as looks
from gates.watch.look import Drills
from gates.watch.story import Watch
from tests.gates.watch.rounds import CATALOGUE, SECRET, Suites


@pytest.fixture
def suites(monkeypatch: pytest.MonkeyPatch) -> Suites:
    made = Suites()
    monkeypatch.setattr(looks, "data", made.data)
    return made


@pytest.fixture
def watched(tmp_path: Path) -> Watch:
    """A watch over two checks with fake suites; without a database, the preflight can block neither."""
    target = Target(TargetKind.STAGING, hmac_secrets=(SECRET,), release="r1")
    file = parse("version: 1\n", "gate.yaml", tmp_path, dt.date(2026, 1, 1))
    return Watch(target, file, CATALOGUE, tmp_path / "state" / "history.ndjson", drills=Drills.NONE)
