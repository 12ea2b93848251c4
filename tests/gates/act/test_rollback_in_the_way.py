"""Rollbacks with obstacles: others' locks, triggers, a failed look, a signal."""

import dataclasses
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from gates.act import insist
from gates.act.emergency import emergency
from gates.act.flag import look_at
from gates.act.rollback import by_hand, roll_back
from gates.act.rollout import act, promote
from gates.deployment.ids import id_of, new_id
from gates.deployment.sql import database as door
from gates.errors import ENDING_SIGNALS
from gates.verdict import NOT_ROLLED_BACK, SUPERSEDED, settle
from tests.gates.act.flagged import (
    FLAG,
    FLAGS_AT_COMMIT,
    ROLLBACK,
    Database,
    is_on,
    on_change,
    order,
    rolled_back,
    switch,
)
from tests.postgres_fixture import PgServer
from tests.waiting import until, without_threads

# --- locks -------------------------------------------------------------------------------------------------------

STOPPED = """
import sys, psycopg
c = psycopg.connect(sys.argv[1], application_name="replaygate")
c.execute("select pg_advisory_xact_lock(hashtextextended('replaygate:outbox.enabled', 0))")
c.execute("update public.feature_flags set rollout_percentage = 50 where key = 'outbox.enabled'")
c.execute("insert into public.audit_logs (action, actor, scope) values ('flag_promoted', 'stopped', 'all')")
print("holding", flush=True)
sys.stdin.read()
"""


def test_a_promoter_that_was_stopped_is_ended(either_url: str, database: Database) -> None:
    """Its session holds all locks; it is ended, and the flag goes off."""
    words = [sys.executable, "-c", STOPPED, either_url]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as promoter:
        try:
            assert promoter.stdout
            assert promoter.stdout.readline() == "holding\n"
            os.kill(promoter.pid, signal.SIGSTOP)
            action = rolled_back(either_url, order(20))
        finally:
            promoter.kill()
    assert (action.result, action.flag) == ("done", "off")
    assert "the session of a gate that does not go on was ended: pid" in action.message
    assert not is_on(database)
    assert database.execute("select from public.audit_logs where action = 'flag_rolled_back'").fetchall()


GOES_ON = """
import sys, psycopg
c = psycopg.connect(sys.argv[1], application_name=sys.argv[2])
c.execute("update public.feature_flags set enabled = true where key = 'outbox.enabled'")
c.execute("update public.agent_controls set agents_paused = false")
print("holding", flush=True)
sys.stdin.read(1)
try:
    c.commit()
except psycopg.OperationalError:
    print("ended")
"""


@pytest.mark.parametrize("application", ["replaygate", "psql"])
def test_a_flag_that_is_about_to_go_on_is_not_said_to_be_off(
    application: str, gate_url: str, database: Database
) -> None:
    """A gate that stands still before its commit is ended; of anybody else, the report says that it may undo it."""
    switch(database, on=False)
    database.execute("update public.agent_controls set agents_paused = true")
    words = [sys.executable, "-c", GOES_ON, gate_url, application]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "holding\n"
        action = emergency(gate_url, order(), time.monotonic, print)
        last, _none = other.communicate("x")
    assert action.result == "done", action
    paused = database.execute("select from public.agent_controls where not agents_paused").fetchall() == []
    if application == "replaygate":
        assert (last, is_on(database), paused) == ("ended\n", False, True), action
    else:
        assert (is_on(database), paused) == (True, False)
        assert action.message.count("and what that commits may undo it: look again") == 2, action


def test_a_foreign_session_in_the_way_is_named_and_left_alone(migrated_url: str) -> None:
    """The message has its pid, login, application and state, and the SQL first ends it."""
    said: list[str] = []
    with psycopg.connect(migrated_url, application_name="ann's psql", row_factory=dict_row) as held:
        held.execute(
            "insert into public.feature_flags (key, enabled) values (%s, true) on conflict do nothing", (FLAG,)
        )
        held.commit()
        held.execute("update public.feature_flags set description = 'secret words' where key = %s", (FLAG,))
        started = time.monotonic()
        action = roll_back(migrated_url, order(3), time.monotonic, said.append)
        assert time.monotonic() - started < 15
        pid = held.info.backend_pid
        assert held.execute("select 1").fetchall()
    assert (action.result, action.headline) == ("failed", "THE FLAG IS STILL ON")
    assert f"pid {pid} (login 'postgres', application \"ann's psql\", idle in transaction for" in action.message
    assert "tried for 3 s" in action.message
    assert "another gate" not in action.message
    assert "secret words" not in action.message
    assert action.by_hand.splitlines()[0].startswith(f"SELECT pg_catalog.pg_terminate_backend({pid});")
    assert any("not yet possible" in line for line in said)


@pytest.mark.parametrize("table", ["audit_logs", "events", "dead_letter_queue"])
def test_a_table_that_a_rollback_does_not_need_may_be_locked(
    table: str, pg_server: PgServer, migrated_db: str, gate_url: str, database: Database
) -> None:
    """A migration that hangs on another table keeps nobody from seeing that the flag is off."""
    with psycopg.connect(pg_server.url(migrated_db)) as migration:
        migration.execute(f"lock table public.{table} in access exclusive mode".encode())
        action = rolled_back(gate_url)
        migration.rollback()
    assert (action.result, action.flag, is_on(database)) == ("done", "off", False), action
    assert ("no audit row" in action.message) is (table == "audit_logs")


def test_a_lock_that_goes_away_in_time_is_waited_for(migrated_url: str, database: Database) -> None:
    """The rollback is tried for as long as the policy says."""
    with psycopg.connect(migrated_url) as held:
        held.execute("update public.feature_flags set description = 'x' where key = %s", (FLAG,))

        def let_go(_said: str) -> None:
            held.rollback()

        action = roll_back(migrated_url, order(20), time.monotonic, let_go)
    assert (action.result, action.flag) == ("done", "off")


def test_a_gate_that_is_stopped_in_its_first_try_makes_another(migrated_url: str, database: Database) -> None:
    """The time of a suspended machine does not count as tried."""
    database.execute("create sequence public.tries")
    busy = "if nextval('public.tries') = 1 then raise sqlstate '55P03'; end if; return new;"
    on_change(database, "before update on public.feature_flags", busy)

    def clock() -> float:
        tried = database.execute("select is_called from public.tries").fetchone()
        return time.monotonic() + 100 * bool(tried and tried["is_called"])

    action = roll_back(migrated_url, order(2), clock, print)
    assert (action.result, action.flag, is_on(database)) == ("done", "off", False)


def test_an_unreachable_database_is_tried_again_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    """The message says that the flag may still be on."""
    action = rolled_back("postgresql://127.0.0.1:1/none", order(1))
    assert (action.kind, action.result, action.headline) == ("none", "failed", "THE FLAG MAY STILL BE ON")
    assert "trying again until 1 s are over" in capsys.readouterr().out


# --- what else could be in the way -------------------------------------------------------------------------------


def test_an_audit_table_that_refuses_at_the_commit_keeps_no_flag_on(migrated_url: str, database: Database) -> None:
    """A deferred trigger that refuses the audit row costs that row alone."""
    on_change(database, "after insert on public.audit_logs deferrable initially deferred", "raise 'no room';")
    action = rolled_back(migrated_url)
    assert (action.result, action.flag) == ("done", "off")
    unwritten = "no audit row (flag_rolled_back) could be written: failed inside your function public.planted(): "
    assert f"{unwritten}no room" in action.message
    assert not is_on(database)


def test_a_commit_that_the_server_refuses_is_no_lost_connection(migrated_url: str, database: Database) -> None:
    """The message blames the trigger, not the network."""
    on_change(database, FLAGS_AT_COMMIT, "raise 'never';")
    action = rolled_back(migrated_url)
    assert (action.result, action.headline) == ("failed", "THE FLAG IS STILL ON")
    assert "failed inside your function public.planted(): never" in action.message
    assert "lost" not in action.message
    assert is_on(database)


def test_a_dry_run_without_a_database_is_no_failed_rollback() -> None:
    """The exit code is 20, and the message says what is missing."""
    action = act(ROLLBACK, dataclasses.replace(order(), dry_run=True), "")
    assert settle(ROLLBACK, action, "", "").exit_code == 20
    assert "DATABASE_URL is not set" in action.message


@pytest.mark.parametrize("carry", [roll_back, emergency])
def test_a_dry_run_that_cannot_tell_ends_as_the_real_one(migrated_url: str, database: Database, carry: Any) -> None:
    """Without an answer or a flag the exit code is 21, and nothing is called off."""
    for url, flag in (("postgresql://127.0.0.1:1/none", FLAG), (migrated_url, "outbox.enabeld")):
        asked = dataclasses.replace(order(flag=flag), dry_run=True)
        action = carry(url, asked, time.monotonic, print)
        assert settle(ROLLBACK, action, "", "").exit_code == NOT_ROLLED_BACK
        assert "would be" not in action.message
    shown = carry(migrated_url, dataclasses.replace(order(), dry_run=True), time.monotonic, print)
    assert (shown.result, shown.from_percent, is_on(database)) == ("dry_run", 10, True)


def test_a_rollback_needs_no_thread(migrated_url: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a thread nobody looks for lock holders, and the flag still goes off."""
    without_threads(monkeypatch)
    assert rolled_back(migrated_url).flag == "off"
    assert not is_on(database)


def test_an_audit_row_is_owed_until_it_is_written(
    migrated_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the trail is locked while the flag goes off, the next try writes the row."""
    monkeypatch.setattr(door, "LOCK_TIMEOUT_MS", 300)
    look, looks = insist._read_back, list[object]()
    with psycopg.connect(migrated_url) as somebody:
        somebody.execute("lock table public.audit_logs in access exclusive mode")

        def lost_once(url: str, change: insist.Forced, tried: insist._Try) -> insist.ReadBack:
            looks.append(tried)
            if len(looks) > 1:
                return look(url, change, tried)
            somebody.rollback()
            return insist.ReadBack(None, "the connection was lost")

        monkeypatch.setattr(insist, "_read_back", lost_once)
        action = rolled_back(migrated_url)
    assert (action.flag, is_on(database), len(looks)) == ("off", False, 2), action
    rows = database.execute("select from public.audit_logs where action = 'flag_rolled_back'").fetchall()
    assert len(rows) == 1


ACTING = """
import signal, sys
from gates.cli import main
from gates.errors import ENDING_SIGNALS
for number in ENDING_SIGNALS:  # whatever the shell of the tests ignores
    signal.signal(number, signal.SIG_DFL)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("command", "sent"), [("emergency", signal.SIGTERM), *(("rollback", one) for one in sorted(ENDING_SIGNALS))]
)
def test_a_signal_ends_a_rollback_with_the_sql_to_run(
    command: str, sent: signal.Signals, migrated_url: str, database: Database, tmp_path: Path
) -> None:
    """A cancelled job exits with 21, and says that the flag may be on."""
    policy = tmp_path / "gate.yaml"
    policy.write_text("version: 1\nrollout: {rollback_patience_s: 4}\n", encoding="utf-8")
    places = ("--policy", str(policy), "--state", str(tmp_path))
    words = [sys.executable, "-c", ACTING, command, "--reason", "harm", *places]
    with psycopg.connect(migrated_url) as somebody:
        somebody.execute("select from public.feature_flags for update")
        process = subprocess.Popen(
            words,
            env={**os.environ, "DATABASE_URL": migrated_url},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        waits = "select from pg_stat_activity where application_name = 'replaygate' and wait_event_type = 'Lock'"
        until(lambda: database.execute(waits).fetchall(), 30)
        process.send_signal(sent)
        _, said = process.communicate(timeout=60)
    assert process.returncode == NOT_ROLLED_BACK, said
    assert "THE FLAG MAY STILL BE ON" in said
    assert by_hand(FLAG) in said
    assert ("UPDATE public.agent_controls" in said) is (command == "emergency")


# --- a run beside it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_of_a_run", [True, False], ids=["of-a-run", "of-a-name-alone"])
def test_a_run_beside_it_prevents_no_rollback(migrated_url: str, database: Database, is_of_a_run: bool) -> None:
    """Drills of another run make rows of the flag; only proven drill tenants are ignored."""
    stop, made = threading.Event(), threading.Event()

    def drills() -> None:
        with psycopg.connect(migrated_url, autocommit=True) as run:
            while not stop.wait(0.02):
                name = f"drill-beef-t-t9999999999-{secrets.token_hex(6)}"
                company_id = id_of(name) if is_of_a_run else new_id("company")
                run.execute("insert into public.companies (id, name) values (%s, %s)", (company_id, name))
                row = "insert into public.feature_flags (key, company_id, enabled, rollout_percentage)"
                run.execute(f"{row} values (%s, %s, true, 100)", (FLAG, company_id))
                made.set()

    run = threading.Thread(target=drills)
    run.start()
    is_made = made.wait(10)
    action = rolled_back(migrated_url, order(settle_s=1))
    stop.set()
    run.join()
    assert is_made
    assert (action.result, action.flag) == (("done", "off") if is_of_a_run else ("failed", "on"))
    if is_of_a_run:
        assert float(str(action.recovery["watched_s"])) >= 1.0


@pytest.mark.parametrize(("good_for_min", "stepped"), [(60, True), (60, False), (600, True)])
def test_a_rollback_that_came_too_late_leaves_what_was_stepped_since(
    good_for_min: int, stepped: bool, migrated_url: str, database: Database
) -> None:
    """A gate that stood still for hours does not switch off what somebody judged and stepped meanwhile, and says so."""
    since = str(database.execute("select now() - interval '3 h' as at").fetchall()[0]["at"])
    asked = dataclasses.replace(order(), since=since, good_for_min=good_for_min)
    if stepped:
        promote(migrated_url, dataclasses.replace(order(), seen=look_at(migrated_url, FLAG)))
    action = rolled_back(migrated_url, asked)
    left = stepped and good_for_min == 60
    assert (action.flag, is_on(database), action.by_hand) == ("on" if left else "off", left, "")
    assert ("the flag took a step since" in action.message, action.result == SUPERSEDED) == (left, left)
