"""`gate history`: past decisions as text, JSON and a page, all of them inert."""

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import pytest

from gates.config import load_target
from gates.deployment.identity import identity
from gates.operator.serve import Desk
from gates.past_decisions import PastDecision, remember
from gates.reports.history import TargetHistory, page, tables
from gates.verdict import Decision
from tests.gates.act.flagged import Database, database
from tests.gates.gate_process import gate
from tests.gates.hostile_text import ALL
from tests.gates.reports.test_console import is_inert, printed
from tests.gates.reports.test_inert_reports import TAGS, Page, seen

__all__ = ["database"]


def runs(count: int = 4) -> list[PastDecision]:
    order = (Decision.PROMOTE, Decision.HOLD, Decision.ROLLBACK)

    def decided(n: int) -> PastDecision:
        begun, ended = (f"2026-01-0{n + 1}T12:0{minute}:00+00:00" for minute in (0, 5))
        one = PastDecision(f"a{n}", f"r-{n}", order[n % 3], f"reason {n}", begun, ended, unknown=n, room=0.1 * n)
        return replace(one, action="promote", result="done", before=10, after=50)

    return [decided(n) for n in range(count)]


def test_the_command_shows_what_was_decided(tmp_path: Path) -> None:
    """Table, JSON and page agree; without a target all are shown."""
    state = tmp_path / "state"
    assert "nothing is remembered" in gate("history", "--state", str(state), cwd=tmp_path).stdout
    for one in runs():
        remember(state / "0123456789ab", one)
    shown = gate("history", "--state", str(state), cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[3] for line in shown.stdout.splitlines() if " r-" in line] == ["r-3", "r-2", "r-1", "r-0"]
    assert "10 % → 50 % (done)" in shown.stdout
    assert "DATABASE_URL is not set" in shown.stdout
    told = json.loads(gate("history", "--state", str(state), "--json", cwd=tmp_path).stdout)
    assert [r["decision"] for r in told[0]["runs"]] == ["promote", "hold", "rollback", "promote"]
    gate("history", "--state", str(state), "--html", str(tmp_path / "history.html"), cwd=tmp_path)
    made = (tmp_path / "history.html").read_text(encoding="utf-8")
    assert "2 promote, 1 hold, 1 rollback" in made
    assert "now 30 %" in made
    assert {"svg", "polyline", "rect"} <= set(Page(made).tags)


def test_a_history_that_cannot_be_seen_is_no_empty_one(tmp_path: Path) -> None:
    """A target's folder behind a link to nothing, as of a disk that is not mounted, is an error that names it."""
    (tmp_path / "0123456789ab").symlink_to(tmp_path / "not-mounted")
    done = gate("history", "--state", str(tmp_path), cwd=tmp_path)
    assert (done.returncode, "0123456789ab" in done.stderr) == (4, True), done.stdout


def test_the_audit_trail_says_what_hands_did_to_the_flag(migrated_url: str, database: Database, tmp_path: Path) -> None:
    """A rollback by hand is there with who, from where to where, and why. Without the database the command says so."""
    environ = {"DATABASE_URL": migrated_url}
    done = gate("rollback", "--reason", "too slow", "--actor", "ann", cwd=tmp_path, environ=environ)
    assert done.returncode == 0, done.stderr
    words = ("history", "--state", str(tmp_path / "state"))
    (told,) = json.loads(gate(*words, "--json", cwd=tmp_path, environ=environ).stdout)
    (step,) = told["steps"]
    seen_of_it = [step[name] for name in ("action", "before", "after", "reason")]
    assert seen_of_it == ["flag_rolled_back", "10", "0", "too slow"]
    assert "ann" in step["actor"]
    assert told["runs"] == []
    assert "flag_rolled_back" in gate(*words, cwd=tmp_path, environ=environ).stdout
    unreachable = {"DATABASE_URL": "postgresql://replay:pw@127.0.0.1:9/replay"}
    lost = gate(*words, cwd=tmp_path, environ=unreachable)
    assert lost.returncode == 0
    assert "the audit trail was not read: " in lost.stdout


@pytest.mark.parametrize("text", ALL, ids=range(len(ALL)))
def test_what_a_target_said_is_inert_there_too(text: str) -> None:
    """A reason, release or actor is shown as text."""
    plain = text.encode("utf-8", "replace").decode()
    past = [
        PastDecision(text, plain, one.decision, plain, one.started_at, one.finished_at, result=plain, action=plain)
        for one in runs()
    ]
    steps = [{plain: plain, "actor": plain}]
    for history in (TargetHistory(plain, past, steps), TargetHistory(plain, past, (), plain)):
        assert is_inert(printed(tables(history)))
        made = page([history])
        assert seen(made)
        assert set(Page(made).tags) <= TAGS - {"script"}


@pytest.mark.parametrize("command", ["rollback", "emergency"])
def test_after_a_rollback_by_hand_no_older_promote_is_told(
    command: str, migrated_url: str, database: Database, tmp_path: Path
) -> None:
    """`gate serve` tells the rollback of the last release. A dry run, or one of another flag, leaves the promote."""
    database.execute("delete from public.feature_flags where key = 'other.enabled'")
    database.execute("insert into public.feature_flags (key, enabled) values ('other.enabled', true)")
    at = dt.datetime.now(dt.UTC)
    environ = {"DATABASE_URL": migrated_url, "BASE_URL": "http://127.0.0.1:9", "GATE_TARGET": "staging"}
    folder = tmp_path / "state" / identity(load_target(environ))
    one = PastDecision("a", "r-1", Decision.PROMOTE, "", at.isoformat(), at.isoformat(), target="staging")
    remember(folder, one)
    desk = Desk(tmp_path / "state", dt.timedelta(hours=1), lambda: at)
    words = (command, "--reason", "too slow", "--state", str(tmp_path / "state"))
    dry = gate(*words, "--dry-run", cwd=tmp_path, environ=environ)
    other = gate(*words, "--flag", "other.enabled", cwd=tmp_path, environ=environ) if command == "rollback" else dry
    assert (dry.returncode, other.returncode) == (0, 0), (dry, other)
    assert desk.verdict_of("r-1", "staging")["decision"] == "promote"
    done = gate(*words, cwd=tmp_path, environ=environ)
    assert done.returncode == 0, done.stderr
    told = desk.verdict_of("r-1", "staging")
    assert (told["decision"], told["reason"]) == ("rollback", f"{command} by hand: too slow")
    assert desk.verdict_of("r-0", "staging")["decision"] == "hold"
