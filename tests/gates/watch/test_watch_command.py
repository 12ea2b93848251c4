"""`gate watch` as a scheduler and people run it: options, exit codes, streams, signals."""

import argparse
import datetime as dt
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gates.deployment.identity import database_place, http_place, identity
from gates.deployment.target import Target
from gates.evidence import Outcome, TargetKind
from gates.watch import history
from gates.watch.command import duration
from gates.watch.rounds import Reading, Round
from tests.gates.gate_process import gate
from tests.sources import ROOT

NOWHERE = {"DATABASE_URL": "postgresql://u:planted-pw@127.0.0.1:9/x"}
TARGET = Target(TargetKind.PRODUCTION, database_url=NOWHERE["DATABASE_URL"])


def remembered(folder: Path, minutes_ago: float, outcome: Outcome = Outcome.PASS, state: str = "good") -> Path:
    """A history with one round of that target."""
    at = (dt.datetime.now(dt.UTC) - dt.timedelta(minutes=minutes_ago)).isoformat(timespec="milliseconds")
    reading = Reading("sql/spot/rls-enabled", outcome, "" if outcome is Outcome.PASS else "rollback")
    made = Round(1, at, at, identity(TARGET), state, "said", "r1", 300.0, readings={reading.check: reading})
    history.append(folder / "h.ndjson", made.line())
    return folder / "h.ndjson"


@pytest.mark.parametrize(
    ("words", "environ", "code", "said"),
    [
        (("--once",), {}, 3, "neither BASE_URL nor DATABASE_URL is set"),
        (("--once", "--report"), NOWHERE, 2, "not allowed with argument"),
        (("--every", "0s"), NOWHERE, 2, "allowed: 1s to 366d"),
        (("--every", "5 minutes"), NOWHERE, 2, "allowed: 1s to 366d"),
        (("--confirm", "0"), NOWHERE, 2, "allowed: 1 to 100"),
        (("--drills", "load"), NOWHERE, 2, "--drills"),
        (("--once", "--history", "."), NOWHERE, 2, "is a folder"),
        (("--once", "--history", "/proc/none/h"), NOWHERE, 4, "a folder that can be written"),
        (
            ("--once", "--rollback-on-page"),
            {"BASE_URL": "http://127.0.0.1:9"},
            3,
            "--rollback-on-page without DATABASE_URL",
        ),
        (("--once", "--policy", "nowhere.yaml"), NOWHERE, 3, "nowhere.yaml:1:1"),
    ],
)
def test_what_cannot_be_watched_is_said(
    tmp_path: Path, words: tuple[str, ...], environ: dict[str, str], code: int, said: str
) -> None:
    """Usage exits with 2, configuration with 3, an unwritable history with 4, without a traceback or secret."""
    done = gate("watch", *words, cwd=tmp_path, environ=environ)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "planted-pw" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("minutes_ago", "outcome", "state", "code", "said"),
    [
        (1, Outcome.PASS, "good", 0, "GOOD: said"),
        (60, Outcome.PASS, "good", 10, "DOUBTFUL: the watcher was down"),
        (1, Outcome.FAIL, "failing", 20, "FAILING: said"),
        (60, Outcome.FAIL, "failing", 20, "FAILING: the watcher was down"),
    ],
)
def test_the_history_can_be_asked_from_elsewhere(
    tmp_path: Path, minutes_ago: float, outcome: Outcome, state: str, code: int, said: str
) -> None:
    """`--report` makes no round, writes both reports, and exits by the last round and its age."""
    path = remembered(tmp_path, minutes_ago, outcome, state)
    before = path.read_bytes()
    done = gate("watch", "--report", "--history", str(path), cwd=tmp_path, environ=NOWHERE)
    assert (done.returncode, said in done.stdout) == (code, True), done.stdout + done.stderr
    assert (tmp_path / "gate-watch" / "history.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (tmp_path / "gate-watch" / "history.md").exists()
    assert path.read_bytes() == before


def test_a_history_that_is_not_there_is_doubtful(tmp_path: Path) -> None:
    """Without a watcher the report must not look good."""
    done = gate("watch", "--report", "--json", "--output", "out", cwd=tmp_path, environ=NOWHERE)
    assert done.returncode == 10
    assert json.loads(done.stdout)["state"] == "doubtful"
    spared = gate("watch", "--report", "--exit-zero-on", "hold", cwd=tmp_path, environ=NOWHERE)
    assert spared.returncode == 0


def test_a_damaged_history_is_survived_and_said(tmp_path: Path) -> None:
    """Stderr and the object name the damaged line."""
    path = remembered(tmp_path, 1)
    with path.open("ab") as out:
        out.write(b'{"v":1,"kind":"rou')
    done = gate("watch", "--report", "--history", str(path), cwd=tmp_path, environ=NOWHERE)
    assert done.returncode == 0
    assert "1 line of the history cannot be read (line 2)" in done.stderr


def test_one_round_of_a_database_that_is_away(tmp_path: Path) -> None:
    """Everything is unknown, so it is doubtful and says why; it is kept in the target's folder, without a secret."""
    done = gate("watch", "--once", "--json", "--drills", "none", "--output", "out", cwd=tmp_path, environ=NOWHERE)
    assert done.returncode == 10, done.stderr
    data = json.loads(done.stdout)
    assert (data["state"], data["counts"]["fail"], data["round"]) == ("doubtful", 0, 1)
    assert data["reason"].startswith("preflight/database is unknown: ")
    assert (tmp_path / "gate-state" / identity(TARGET) / "history.ndjson").exists()
    assert (tmp_path / "out" / "history.html").exists()
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert not [p for p in files if b"planted-pw" in p.read_bytes()]


def test_a_round_removes_nothing_that_is_not_the_watch_s(tmp_path: Path) -> None:
    """A folder that has the name of one of the watch's stays as it is, and the error says which it is."""
    others = [tmp_path / "h-last" / "notes.txt", tmp_path / "h-companies" / "notes.txt"]
    for other in others:
        other.parent.mkdir()
        other.write_text("mine", encoding="utf-8")
        os.utime(other, (0, 0))
    words = ("watch", "--once", "--drills", "none", "--history", "h.ndjson")
    done = gate(*words, cwd=tmp_path, environ=NOWHERE)
    assert (done.returncode, "h-last" in done.stderr, "correct --history" in done.stderr) == (4, True, True)
    others.pop(0).rename(tmp_path / "notes.txt")
    assert gate(*words, cwd=tmp_path, environ=NOWHERE).returncode == 10
    stale = tmp_path / "h-last" / "stale"
    stale.mkdir()
    assert gate(*words, cwd=tmp_path, environ=NOWHERE).returncode == 10
    assert (others[0].read_text(encoding="utf-8"), stale.exists()) == ("mine", False)


def test_a_round_stands_where_its_pages_find_no_place(tmp_path: Path) -> None:
    """A full disk changes neither its output nor its exit code."""
    (tmp_path / "out" / "history.html").mkdir(parents=True)
    words = ("watch", "--once", "--history", str(tmp_path / "h.ndjson"), "--output", str(tmp_path / "out"))
    done = gate(*words, cwd=tmp_path, environ=NOWHERE)
    assert (done.returncode, "Is a directory" in done.stderr) == (10, True)
    assert done.stdout.startswith("DOUBTFUL")


def test_the_long_running_watch_ends_on_a_signal(tmp_path: Path) -> None:
    """SIGTERM exits with 143, and leaves whole lines and no subprocess."""
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), **NOWHERE}
    words = ("watch", "--every", "1s", "--drills", "none", "--json", "--history", "h.ndjson")
    running = subprocess.Popen(
        [sys.executable, "-m", "gates.cli", *words], cwd=tmp_path, env=environ, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        first = json.loads(running.stdout.readline())
        os.kill(running.pid, signal.SIGTERM)
        _, said = running.communicate(timeout=30)
    finally:
        running.kill()
    assert (running.returncode, first["round"]) == (143, 1), said
    assert "its rounds are in the history" in said
    found = history.read(tmp_path / "h.ndjson", identity(TARGET))
    assert found.broken == ()
    assert found.total >= 1
    with history.turn(tmp_path / "h.ndjson") as mine:
        assert mine


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("30s", 30), ("5m", 300), ("1h", 3600), ("1d", 86_400)])
def test_a_length_of_time_is_read(text: str, seconds: float) -> None:
    """A number with s, m, h or d; without a unit, seconds."""
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5m", "1.5h", "5x", "367d", "m", "1h30m", "٣m"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    """The error shows what is allowed."""
    with pytest.raises(argparse.ArgumentTypeError, match="allowed: 1s to 366d"):
        duration(text)


def test_a_target_keeps_its_name_when_its_secrets_change() -> None:
    """The name comes from host, port, database and BASE_URL, not from login and password."""
    one = Target(TargetKind.STAGING, "http://u:p@Host:8080/x?y=z", database_url="postgresql://a:secret-1@db/replay")
    other = replace(one, base_url="http://host:8080/x", database_url="host=db dbname=replay user=b password=s2")
    assert identity(one) == identity(other)
    assert identity(one) != identity(replace(one, database_url="postgresql://a:secret-1@db:5433/replay"))
    assert identity(one) != identity(replace(one, base_url="http://host:8081/x"))
    assert (http_place(one), database_place(one)) == ("http://host:8080/x", "db:5432/replay")
    assert http_place(Target(TargetKind.STAGING, "http://[::1]:80/x")) == "http://[::1]:80/x"
    odd = Target(TargetKind.STAGING, "http://[::1", database_url="no url at all")
    assert (http_place(odd), database_place(odd)) == ("", "")


def test_the_canary_profile_of_a_run_is_one_round(tmp_path: Path) -> None:
    """It works like `gate watch --once`, and refuses options that only a whole run has."""
    watched = gate("watch", "--once", "--json", "--state", "a", cwd=tmp_path, environ=NOWHERE)
    run = gate("run", "--profile", "canary", "--json", "--state", "b", cwd=tmp_path, environ=NOWHERE)
    assert run.returncode == watched.returncode == 10
    assert json.loads(run.stdout)["state"] == json.loads(watched.stdout)["state"] == "doubtful"
    assert list((tmp_path / "b").rglob(history.FILE))
    assert not list(tmp_path.rglob("verdict.json"))
    deep = gate("run", "--profile", "canary", "--deep", cwd=tmp_path, environ=NOWHERE)
    assert deep.returncode == 2
    assert "--deep with --profile canary" in deep.stderr
