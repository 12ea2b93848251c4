"""After a rollback no older promote is served, whoever rolled back and however it ended."""

import dataclasses
import datetime as dt
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from gates import past_decisions
from gates.operator.serve import Desk
from gates.past_decisions import PastDecision, read, remember
from gates.verdict import Action, Decision
from tests.gates.act.flagged import Database, database, is_on
from tests.gates.gate_process import gate
from tests.gates.operator.served import NOW, ROLLBACK, ask, decided, verdict
from tests.sources import ROOT
from tests.waiting import until

__all__ = ["database"]


@pytest.mark.parametrize(
    ("asked", "release", "told"),
    [
        ("staging", "r-1", "hold"),
        ("production", "", "hold"),
        ("", "r-1", "rollback"),
        ("", "", "hold"),
        ("", "r-0", "hold"),
    ],
)
def test_no_promote_outlives_a_rollback_of_a_target_whose_kind_nobody_named(
    asked: str, release: str, told: str, tmp_path: Path
) -> None:
    """It may have been any target; later promotes count. Harm is told of its release alone."""
    desk = Desk(tmp_path, dt.timedelta(minutes=60), lambda: NOW)
    for kind in filter(None, [asked] if asked else ["staging"]):
        remember(tmp_path / kind, dataclasses.replace(decided(Decision.PROMOTE, minutes=30), target=kind))
    assert desk.verdict_of("r-1", asked)["decision"] == "promote"
    remember(tmp_path / "database alone", decided(Decision.ROLLBACK, release, minutes=20, run_id="b2"))
    assert desk.verdict_of("r-1", asked)["decision"] == told
    later = decided(Decision.PROMOTE, minutes=10, run_id="c3")
    remember(tmp_path / (asked or "staging"), dataclasses.replace(later, target=asked or "staging"))
    assert desk.verdict_of("r-1", asked)["decision"] == "promote"


def test_a_clock_that_is_set_back_hides_no_rollback(tmp_path: Path) -> None:
    """The order in the history counts, not the times."""
    promoted = decided(Decision.PROMOTE, "r-1", minutes=10)
    desk = Desk(tmp_path, dt.timedelta(minutes=60), lambda: NOW)
    remember(tmp_path / "t1", promoted)
    assert desk.verdict_of("r-1")["decision"] == "promote"
    remember(tmp_path / "t1", decided(Decision.ROLLBACK, "r-2", minutes=50, run_id="a2"))
    told = desk.verdict_of("r-1")
    assert (told["decision"], "release r-2 was rolled back" in told["reason"]) == ("hold", True)


def test_a_rollback_is_told_of_the_release_that_was_rolled_back(port: int, tmp_path: Path) -> None:
    """Controllers roll back only that release; others hold until a new run, since the flag is off for all."""
    remember(tmp_path / "t1", decided(Decision.PROMOTE, "r-0", minutes=30))
    remember(tmp_path / "t1", decided(Decision.PROMOTE, "r-1", minutes=20, run_id="a2"))
    off = Action("rollback", 50, 0, "done")
    by_hand = PastDecision.by_hand(off, "rollback by hand: INC-7", "", NOW, past_decisions.last_named(tmp_path / "t1"))
    remember(tmp_path / "t1", by_hand)
    told = verdict(port, "r-1")
    assert (told["decision"], told["release"], told["reason"]) == ("rollback", "r-1", "rollback by hand: INC-7")
    other = verdict(port, "r-0")
    assert other["decision"] == "hold"
    assert "release r-1 was rolled back" in other["reason"]
    assert "INC-7" in other["reason"]
    assert [ask(port, ROLLBACK, {"checksum": name})[0] for name in ("r-0", "r-1", "r-2")] == [403, 200, 403]
    remember(tmp_path / "t1", decided(Decision.PROMOTE, "r-2", minutes=-1, run_id="a3"))
    assert [verdict(port, name)["decision"] for name in ("r-0", "r-1", "r-2")] == ["hold", "rollback", "promote"]


def test_rollback_that_is_killed_leaves_no_older_promote(migrated_url: str, database: Database, tmp_path: Path) -> None:
    """It was killed while it still watched the flag."""
    words = ("rollback", "--reason", "harm", "--state", str(tmp_path), "--release", "r-7")
    environ = {**os.environ, "DATABASE_URL": migrated_url}
    with subprocess.Popen([sys.executable, "-m", "gates", *words], cwd=ROOT, env=environ) as killed:
        until(lambda: not is_on(database) and [*tmp_path.glob("*/*")], 30.0)
        killed.kill()
    assert killed.returncode == -signal.SIGKILL
    desk = Desk(tmp_path, dt.timedelta(minutes=60), lambda: dt.datetime.now(dt.UTC))
    assert desk.verdict_of("r-7")["decision"] == "rollback"


BACK = {"rollback": ("flags", "enable", "outbox.enabled", "--at", "10"), "emergency": ("resume",)}


@pytest.mark.parametrize("down", BACK)
def test_after_resume_a_rollback_is_a_hold(down: str, migrated_url: str, database: Database, tmp_path: Path) -> None:
    """A person switched the flag on again; a controller that hears of a rollback would undo that."""
    environ, words = {"DATABASE_URL": migrated_url, "RELEASE": "r-7"}, ("--reason", "INC-7", "--state", str(tmp_path))
    desk = Desk(tmp_path, dt.timedelta(minutes=60), lambda: dt.datetime.now(dt.UTC))
    assert gate(down, *words, environ=environ).returncode == 0
    assert desk.verdict_of("r-7")["decision"] == "rollback"
    policy = tmp_path / "gate.yaml"
    policy.write_text("version: 1\nrollout: {rollback_patience_s: 1}\n", encoding="utf-8")
    nowhere = environ | {"DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    refused = gate(*BACK[down], *words, "--policy", str(policy), environ=nowhere)
    assert refused.returncode == 4
    assert desk.verdict_of("r-7")["decision"] == "rollback"
    done = gate(*BACK[down], *words, environ=environ)
    assert done.returncode == 0, done
    told = desk.verdict_of("r-7")
    assert (told["decision"], "INC-7: run the gate again" in told["reason"]) == ("hold", True)


@pytest.mark.parametrize("kind", ["", "staging"])
def test_a_rollback_by_hand_is_remembered_with_the_kind_that_was_named(
    kind: str, migrated_url: str, database: Database, tmp_path: Path
) -> None:
    """The database alone does not tell the kind of target."""
    environ = {"DATABASE_URL": migrated_url, **({"GATE_TARGET": kind} if kind else {})}
    words = ("rollback", "--reason", "harm", "--state", str(tmp_path))
    done = [gate(*words, "--release", "r-7", environ=environ), gate(*words, environ=environ)]
    assert [one.returncode for one in done] == [0, 0], done
    (folder,) = tmp_path.iterdir()
    assert [(one.target, one.release) for one in read(folder)] == [(kind, "r-7")] * 2, (
        "the second is of the last one named"
    )


def test_a_rollback_that_a_signal_ends_is_remembered(migrated_url: str, tmp_path: Path) -> None:
    """It may have been done, so no older promote is served."""
    with psycopg.connect(migrated_url) as holder:
        holder.execute("lock table public.feature_flags")
        environ = {**os.environ, "DATABASE_URL": migrated_url, "PYTHONPATH": str(ROOT)}
        words = [sys.executable, "-m", "gates", "rollback", "--reason", "harm", "--state", str(tmp_path)]
        with subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert "not yet possible" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 21
    (folder,) = tmp_path.iterdir()
    assert [(one.decision, one.exit_code) for one in read(folder)] == [(Decision.ROLLBACK, 21)]
