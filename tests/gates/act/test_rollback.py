"""A rollback under attack: tables with less than the contract says, logins that see nothing, locks that others hold."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from gates.act import insist, rollback
from gates.act.emergency import emergency
from gates.act.flag import MOST_OVERRIDES, Order, look, look_at_global
from gates.act.rollback import by_hand, quoted, roll_back
from gates.act.rollout import act
from gates.decision.rules import RolloutPlan
from gates.deployment import database as door
from gates.errors import ENDING_SIGNALS
from gates.verdict import NOT_ROLLED_BACK, Action, Decision, Verdict, settle
from tests.postgres_fixture import PASSWORD, PgServer
from tests.waiting import until

FLAG = "outbox.enabled"
ROLLBACK = Verdict(Decision.ROLLBACK, "harm")
Database = psycopg.Connection[dict[str, Any]]


def order(patience_s: int = 2, flag: str = FLAG) -> Order:
    plan = RolloutPlan(flag, settle_s=0, drain_timeout_s=2, rollback_patience_s=patience_s)
    return Order(plan, "r1", "test", "why")


def rolled_back(url: str, asked: Order | None = None) -> Action:
    return roll_back(url, asked or order(), time.monotonic, print)


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """A connection beside the gate's; the flag is on at 10 %."""
    with psycopg.connect(migrated_url, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("delete from public.feature_flags where key = %s", (FLAG,))
        connection.execute(
            "insert into public.feature_flags (key, enabled, rollout_percentage) values (%s, true, 10)", (FLAG,)
        )
        yield connection


def is_on(database: Database) -> bool:
    rows = database.execute("select enabled from public.feature_flags where key = %s", (FLAG,)).fetchall()
    assert rows
    return any(r["enabled"] for r in rows)


def test_a_flag_that_is_switched_on_again_is_not_rolled_back(migrated_url: str, database: Database) -> None:
    """Half a second later, by whomever: what was read back once is watched until the flag has settled."""
    asked = order()
    asked = dataclasses.replace(asked, plan=dataclasses.replace(asked.plan, settle_s=5))
    seen = threading.Thread(target=_switch_on_again, args=(migrated_url,))
    seen.start()
    action = rolled_back(migrated_url, asked)
    seen.join()
    assert (action.result, action.flag) == ("failed", "on")
    assert "switched off and is on again" in action.message
    assert action.by_hand
    assert action.recovery["proved"] is False


def _switch_on_again(url: str) -> None:
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as somebody:
        until(lambda: not is_on(somebody))
        threading.Event().wait(0.5)
        somebody.execute("update public.feature_flags set enabled = true where key = %s", (FLAG,))


def test_a_flag_that_stays_off_is_watched_for_as_long_as_the_plan_says(migrated_url: str, database: Database) -> None:
    """The control."""
    asked = order()
    action = rolled_back(migrated_url, dataclasses.replace(asked, plan=dataclasses.replace(asked.plan, settle_s=1)))
    assert (action.result, action.flag, action.recovery["proved"]) == ("done", "off", True)
    assert 1.0 <= float(str(action.recovery["watched_s"])) < 10.0
    assert not is_on(database)


# --- less than the contract --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "alter table public.feature_flags drop column version cascade",
        "alter table public.feature_flags drop column rollout_percentage cascade",
        "alter table public.feature_flags drop column updated_at cascade",
        "drop function public.is_feature_enabled(text, uuid) cascade",
        "drop table public.event_outbox cascade",
        "drop table public.companies cascade",
    ],
)
def test_a_rollback_needs_key_and_enabled_alone(migrated_url: str, database: Database, change: str) -> None:
    """Whatever else is missing, the flag goes off and is read back off."""
    database.execute(change.encode())
    if "updated_at" in change or "version" in change:
        database.execute("drop trigger if exists feature_flags_touch on public.feature_flags")
    action = act(ROLLBACK, order(), migrated_url)
    assert (action.kind, action.result, action.flag) == ("rollback", "done", "off")
    assert not is_on(database)


@pytest.mark.parametrize(
    "change",
    [
        "drop table public.audit_logs cascade",
        "alter table public.audit_logs drop column scope cascade",
        "revoke all on public.audit_logs from replay_gate",
    ],
)
def test_an_audit_row_that_is_refused_keeps_no_flag_on(
    pg_server: PgServer, migrated_db: str, database: Database, change: str
) -> None:
    """It is said that there is none."""
    database.execute(change.encode())
    action = act(ROLLBACK, order(), pg_server.url(migrated_db, "replay_gate"))
    assert (action.result, action.flag) == ("done", "off")
    assert "no audit row (flag_rolled_back) could be written: " in action.message
    assert not is_on(database)


def test_a_flag_without_a_value_is_not_off(migrated_url: str, database: Database) -> None:
    """NULL is nothing that was seen off."""
    database.execute("alter table public.feature_flags alter enabled drop not null")
    database.execute("update public.feature_flags set enabled = null where key = %s", (FLAG,))
    assert act(ROLLBACK, order(), migrated_url).flag == "off"
    assert database.execute("select from public.feature_flags where key = %s and not enabled", (FLAG,)).fetchall()


# --- what is not seen is not done --------------------------------------------------------------------------------


def test_a_mistyped_flag_is_not_off_already(migrated_url: str, database: Database) -> None:
    """It is said that the key may be wrong, with the nearest ones, and what to run by hand."""
    action = rolled_back(migrated_url, order(flag="outbox.enabeld"))
    assert (action.kind, action.result, action.flag) == ("none", "failed", "unknown")
    assert action.headline == "THE FLAG MAY STILL BE ON"
    assert "the key may be mistyped" in action.message
    assert "'outbox.enabled'" in action.message
    assert is_on(database)


def test_a_login_that_sees_no_row_proves_nothing(pg_server: PgServer, migrated_db: str, database: Database) -> None:
    """Row-level security hides every row from it: that is said, and nothing is called off."""
    database.execute("drop policy replay_gate_sees_all on public.feature_flags")
    action = rolled_back(pg_server.url(migrated_db, "replay_gate"))
    assert (action.result, action.headline) == ("failed", "THE FLAG MAY STILL BE ON")
    assert "row-level security hides them" in action.message
    assert is_on(database)


def test_a_login_that_may_see_but_not_change_proves_nothing(
    pg_server: PgServer, migrated_db: str, database: Database
) -> None:
    """The update reaches no row, and reports no error: what counts is what is read back."""
    database.execute("drop policy replay_gate_updates on public.feature_flags")
    action = rolled_back(pg_server.url(migrated_db, "replay_gate"))
    assert (action.result, action.headline) == ("failed", "THE FLAG IS STILL ON")
    assert action.by_hand == f"UPDATE public.feature_flags SET enabled = false WHERE key = '{FLAG}';"
    assert is_on(database)


def test_an_override_that_this_login_does_not_see_is_found_by_the_deployment_s_own_function(
    pg_server: PgServer, migrated_db: str, database: Database
) -> None:
    """All the rows that it sees are off, and the flag is still on for a tenant."""
    company = database.execute("insert into public.companies (name) values ('a') returning id").fetchone()
    assert company
    insert = (
        "insert into public.feature_flags (key, company_id, enabled, rollout_percentage) values (%s, %s, true, 100)"
    )
    database.execute(insert, (FLAG, company["id"]))
    database.execute("drop policy replay_gate_sees_all on public.feature_flags")
    database.execute(
        "create policy globals on public.feature_flags for select to replay_gate using (company_id is null)"
    )
    action = rolled_back(pg_server.url(migrated_db, "replay_gate"))
    assert (action.result, action.headline) == ("failed", "THE FLAG IS STILL ON")
    assert f"is_feature_enabled says on for company {company['id']}" in action.message


@pytest.fixture
def half_blind(pg_server: PgServer, migrated_db: str, database: Database) -> str:
    """The URL of a login that sees no tenant's row. 20,050 companies; the last one has the flag on by such a row."""
    database.execute(
        "insert into public.companies (id, name) select gen_random_uuid(), 'c' from generate_series(1, 20049)"
    )
    database.execute(
        "with late as (insert into public.companies (name) values ('late') returning id)"
        " insert into public.feature_flags (key, company_id, enabled, rollout_percentage)"
        " select %s, id, true, 100 from late",
        (FLAG,),
    )
    database.execute(
        "create policy hide on public.feature_flags as restrictive to replay_gate"
        f" using (company_id is null or key <> '{FLAG}')".encode()
    )
    return pg_server.url(migrated_db, "replay_gate")


def replace_function(database: Database, body: str) -> None:
    """The deployment's function runs this first, when the gate asks."""
    database.execute("alter function public.is_feature_enabled(text, uuid) rename to really_enabled")
    database.execute(
        "create function public.is_feature_enabled(key text, company uuid) returns boolean language plpgsql"
        " security definer set search_path = '' as $$ begin if session_user in ('replay_gate', 'postgres') then "
        f"{body} end if; return public.really_enabled(key, company); end $$".encode()
    )


def test_every_company_is_asked_for(half_blind: str) -> None:
    """The flag is on for the last of 20,050."""
    action = rolled_back(half_blind)
    assert (action.result, action.headline) == ("failed", "THE FLAG IS STILL ON")
    assert "is_feature_enabled says on for company" in action.message


@pytest.mark.parametrize(
    "body",
    [
        "perform pg_catalog.pg_sleep(0.05);",
        "perform pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid());",
        "raise 'not now';",
    ],
)
def test_a_function_that_does_not_answer_proves_nothing(
    half_blind: str, database: Database, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows may be hidden, and nobody says that the flag is off for their tenants."""
    monkeypatch.setattr(insist, "connect", partial(door.connect, statement_timeout_ms=800))
    replace_function(database, body)
    action = rolled_back(half_blind)
    assert (action.result, action.headline) == ("failed", "THE FLAG MAY STILL BE ON")
    assert "is_feature_enabled did not answer for every company" in action.message
    assert action.by_hand


@pytest.mark.parametrize(
    "change",
    [
        "drop function public.is_feature_enabled(text, uuid) cascade",
        "drop policy replay_gate_sees_all on public.companies",
    ],
)
def test_hidden_rows_without_a_word_for_every_company_prove_nothing(
    half_blind: str, database: Database, change: str
) -> None:
    """Neither a function that is not there nor companies that are hidden, too, say that the flag is off."""
    database.execute(change.encode())
    action = rolled_back(half_blind)
    assert (action.result, action.headline) == ("failed", "THE FLAG MAY STILL BE ON")
    assert "row-level security may hide rows of the flag" in action.message


def test_a_login_that_sees_every_row_needs_no_word_for_every_company(
    pg_server: PgServer, migrated_db: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are all off. The function is asked for as many companies as time allows."""
    monkeypatch.setattr(rollback, "ASK_S", 1)
    database.execute(
        "insert into public.companies (id, name) select gen_random_uuid(), 'c' from generate_series(1, 1000)"
    )
    replace_function(database, "perform pg_catalog.pg_sleep(0.01);")
    action = rolled_back(pg_server.url(migrated_db, "replay_gate"))
    assert (action.result, action.flag, action.recovery["proved"]) == ("done", "off", True)


def test_a_function_that_does_not_follow_the_rows_is_heard(migrated_url: str, database: Database) -> None:
    """Every row is seen, and off; service and worker ask the function."""
    database.execute("insert into public.companies (name) values ('a')")
    replace_function(database, "return true;")
    action = rolled_back(migrated_url)
    assert (action.result, action.headline) == ("failed", "THE FLAG IS STILL ON")
    assert "it does not follow the rows" in action.message


def test_a_function_that_lacks_something_itself_is_no_missing_function(migrated_url: str, database: Database) -> None:
    """It names a table without its schema, and the gate pins search_path: it did not answer, and nothing is proved."""
    database.execute("insert into public.companies (name) values ('a')")
    database.execute(
        "create or replace function public.is_feature_enabled(key text, company uuid) returns boolean language plpgsql"
        " stable as $$ begin return exists (select from feature_flags); end $$"
    )
    action = rolled_back(migrated_url)
    assert (action.result, action.headline) == ("failed", "THE FLAG MAY STILL BE ON"), action
    assert "failed inside your function" in action.message


def test_a_rollback_reads_no_tenant_s_row(migrated_url: str, database: Database) -> None:
    """However many there are: the global row alone is read, and elsewhere those that are the least on."""
    database.execute(
        "insert into public.feature_flags (key, company_id, enabled, rollout_percentage)"
        " select %s, gen_random_uuid(), n <> 1200, 100 from generate_series(1, 1200) n",
        (FLAG,),
    )
    with door.session(migrated_url) as connection:
        alone, found = look_at_global(connection, FLAG), look(connection, FLAG)
    assert alone is not None
    assert found is not None
    assert (alone.percent, alone.overrides) == (10, ())
    assert len(found.overrides) == MOST_OVERRIDES
    assert not found.overrides[0].enabled
    assert rolled_back(migrated_url).from_percent == 10


@pytest.mark.parametrize("error", [MemoryError(), KeyError("rows"), RuntimeError("can't start new thread")])
@pytest.mark.parametrize("place", ["rollback.insist", "insist.rows", "rollback.prove_recovery"])
def test_whatever_ends_a_rollback_it_is_not_done(
    error: Exception, place: str, migrated_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No exception leaves it: the exit code is 21, with what to run by hand."""

    def broken(*_given: object, **_more: object) -> None:
        raise error

    monkeypatch.setattr(f"gates.act.{place}", broken)
    for action in (rolled_back(migrated_url), emergency(migrated_url, order(), time.monotonic, print)):
        assert settle(ROLLBACK, action, "", "").exit_code == NOT_ROLLED_BACK
        assert by_hand(FLAG) in action.by_hand


def test_an_emergency_without_a_thread_is_not_done(
    migrated_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three are to be done by hand."""

    def none(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    action = emergency(migrated_url, order(), time.monotonic, print)
    assert (action.kind, settle(ROLLBACK, action, "", "").exit_code) == ("emergency", NOT_ROLLED_BACK)
    assert action.by_hand.count(";") == 3


def test_a_trigger_that_undoes_the_rollback_is_seen(migrated_url: str, database: Database) -> None:
    """The statement reports a row changed; the row reads back on."""
    database.execute(
        "create function public.undo() returns trigger language plpgsql as"
        " $$ begin new.enabled := true; return new; end $$"
    )
    database.execute(
        "create trigger zz_undo before update on public.feature_flags for each row execute function public.undo()"
    )
    action = rolled_back(migrated_url)
    assert (action.result, action.headline) == ("failed", "THE FLAG IS STILL ON")


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


@pytest.mark.parametrize("role", [None, "replay_gate"])
def test_a_promoter_that_was_stopped_is_ended(
    role: str | None, pg_server: PgServer, migrated_db: str, database: Database
) -> None:
    """It holds the flag's lock, the row and the head of the audit trail; its session goes, and the flag with it."""
    url = pg_server.url(migrated_db, role)
    words = [sys.executable, "-c", STOPPED, url]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as promoter:
        try:
            assert promoter.stdout
            assert promoter.stdout.readline() == "holding\n"
            os.kill(promoter.pid, signal.SIGSTOP)
            action = rolled_back(url, order(20))
        finally:
            promoter.kill()
    assert (action.result, action.flag) == ("done", "off")
    assert "the session of a gate that does not go on was ended: pid" in action.message
    assert not is_on(database)
    assert database.execute("select from public.audit_logs where action = 'flag_rolled_back'").fetchall()


def test_a_foreign_session_in_the_way_is_named_and_left_alone(pg_server: PgServer, migrated_db: str) -> None:
    """By pid, login, application and state; the SQL to run by hand begins with what ends it."""
    url = pg_server.url(migrated_db)
    said: list[str] = []
    with psycopg.connect(url, application_name="ann's psql", row_factory=dict_row) as held:
        held.execute(
            "insert into public.feature_flags (key, enabled) values (%s, true) on conflict do nothing", (FLAG,)
        )
        held.commit()
        held.execute("update public.feature_flags set description = 'secret words' where key = %s", (FLAG,))
        started = time.monotonic()
        action = roll_back(url, order(3), time.monotonic, said.append)
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


def test_a_lock_that_goes_away_in_time_is_waited_for(migrated_url: str, database: Database) -> None:
    """The rollback is tried again for as long as the policy says."""
    with psycopg.connect(migrated_url) as held:
        held.execute("update public.feature_flags set description = 'x' where key = %s", (FLAG,))

        def let_go(_said: str) -> None:
            held.rollback()

        action = roll_back(migrated_url, order(20), time.monotonic, let_go)
    assert (action.result, action.flag) == ("done", "off")


def test_an_unreachable_database_is_tried_again_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody knows how the flag is: it may still be on."""
    action = rolled_back("postgresql://127.0.0.1:1/none", order(1))
    assert (action.kind, action.result, action.headline) == ("none", "failed", "THE FLAG MAY STILL BE ON")
    assert "trying again until 1 s are over" in capsys.readouterr().out


# --- emergency ---------------------------------------------------------------------------------------------------


def in_emergency(url: str, asked: Order | None = None) -> tuple[Action, dict[str, str]]:
    action = emergency(url, asked or order(), time.monotonic, print)
    return action, {s.name: s.result for s in action.steps}


@pytest.mark.parametrize("role", [None, "replay_gate"])
def test_a_missing_row_of_everybody_s_pause_is_made(
    role: str | None, pg_server: PgServer, migrated_db: str, database: Database
) -> None:
    """An update of no row pauses nobody."""
    database.execute("delete from public.agent_controls")
    action, results = in_emergency(pg_server.url(migrated_db, role))
    assert (action.result, results["pause all agents"]) == ("done", "done")
    assert database.execute("select from public.agent_controls where company_id is null and agents_paused").fetchall()


def test_a_pause_that_cannot_be_made_is_not_done(pg_server: PgServer, migrated_db: str, database: Database) -> None:
    """The row is missing and this login may not insert one; the flag is off all the same."""
    database.execute("delete from public.agent_controls")
    database.execute("revoke insert on public.agent_controls from replay_gate")
    action, results = in_emergency(pg_server.url(migrated_db, "replay_gate"))
    assert results == {"switch off outbox.enabled": "done", "pause all agents": "unknown", **CLEARED}
    assert (action.result, action.headline) == ("failed", "THE AGENTS MAY NOT BE PAUSED")
    assert action.by_hand == "UPDATE public.agent_controls SET agents_paused = true;"
    assert not is_on(database)


CLEARED = {"clear the replay limits": "done"}


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ("drop table public.edge_rate_limits cascade", "clear the replay limits"),
        ("drop table public.agent_controls cascade", "pause all agents"),
        ("drop table public.feature_flags cascade", "switch off outbox.enabled"),
    ],
)
def test_each_part_of_an_emergency_is_tried_whatever_became_of_the_others(
    migrated_url: str, database: Database, change: str, failed: str
) -> None:
    """Two are done, and the third is said with why and with the SQL for it."""
    database.execute(change.encode())
    action, results = in_emergency(migrated_url)
    assert [name for name, result in results.items() if result != "done"] == [failed]
    assert action.result == "failed"
    assert bool(action.headline) is (failed != "clear the replay limits")
    assert action.by_hand.count(";") == 1


def test_a_pause_needs_agents_paused_alone_and_limits_need_key_alone(migrated_url: str, database: Database) -> None:
    """The tables of another make have no more."""
    database.execute("drop table public.agent_controls cascade; drop table public.edge_rate_limits cascade")
    database.execute("create table public.agent_controls (agents_paused boolean)")
    database.execute("insert into public.agent_controls values (null)")
    database.execute("create table public.edge_rate_limits (key text)")
    database.execute("insert into public.edge_rate_limits values ('replay:a:1'), ('other')")
    action, results = in_emergency(migrated_url)
    assert (action.result, set(results.values())) == ("done", {"done"})
    assert database.execute("select agents_paused from public.agent_controls").fetchall() == [{"agents_paused": True}]
    assert database.execute("select key from public.edge_rate_limits").fetchall() == [{"key": "other"}]


def test_limits_that_a_policy_keeps_are_not_cleared(pg_server: PgServer, migrated_db: str, database: Database) -> None:
    """A delete that reaches no row reports no error."""
    database.execute("insert into public.edge_rate_limits (key, hits) values ('replay:x:1', array[now()])")
    database.execute("drop policy replay_gate_deletes on public.edge_rate_limits")
    action, results = in_emergency(pg_server.url(migrated_db, "replay_gate"))
    assert (action.result, results["clear the replay limits"]) == ("failed", "failed")


# --- how it is told ----------------------------------------------------------------------------------------------


def test_a_rollback_that_was_not_carried_out_has_an_exit_code_of_its_own() -> None:
    """21 with a headline; 20 where it was carried out, where there was nothing to do, and where it was only shown."""
    for result, flag, code in (
        ("done", "off", 20),
        ("nothing_to_do", "off", 20),
        ("dry_run", "", 20),
        ("failed", "on", NOT_ROLLED_BACK),
        ("failed", "unknown", NOT_ROLLED_BACK),
        ("not_possible", "", NOT_ROLLED_BACK),
    ):
        verdict = settle(ROLLBACK, Action("none", result=result, flag=flag), "", "")
        assert (verdict.exit_code, bool(verdict.headline)) == (code, code == NOT_ROLLED_BACK), result
    assert act(ROLLBACK, order(), "").headline == "THE FLAG MAY STILL BE ON"
    assert Action.from_json(act(ROLLBACK, order(), "").to_json()) == act(ROLLBACK, order(), "")


@pytest.mark.parametrize("key", ["a'b", "a\\' or true --", "é\u202e\x1b\n", "outbox.enabled", ""])
def test_the_sql_to_run_by_hand_quotes_any_key(key: str, migrated_url: str) -> None:
    """In printable ASCII, and the server reads the very key."""
    literal = quoted(key)
    assert literal.isascii()
    assert literal.isprintable()
    with psycopg.connect(migrated_url) as connection:
        assert connection.execute(f"select {literal}".encode()).fetchone() == (key,)
    assert PASSWORD not in literal


# --- what else could be in the way -------------------------------------------------------------------------------


def test_an_audit_table_that_refuses_at_the_commit_keeps_no_flag_on(migrated_url: str, database: Database) -> None:
    """A deferred trigger raises only when the transaction ends; it takes the audit row with it, and nothing else."""
    database.execute(
        "create function public.refuse() returns trigger language plpgsql as $$ begin raise 'no room'; end $$"
    )
    database.execute(
        "create constraint trigger late after insert on public.audit_logs deferrable initially deferred"
        " for each row execute function public.refuse()"
    )
    action = rolled_back(migrated_url)
    assert (action.result, action.flag) == ("done", "off")
    assert (
        "no audit row (flag_rolled_back) could be written: failed inside your function public.refuse(): no room"
        in action.message
    )
    assert not is_on(database)


def test_a_dry_run_without_a_database_is_no_failed_rollback() -> None:
    """Nothing was to be done: 20, and it says what would be missing."""
    action = act(ROLLBACK, dataclasses.replace(order(), dry_run=True), "")
    assert settle(ROLLBACK, action, "", "").exit_code == 20
    assert "DATABASE_URL is not set" in action.message


@pytest.mark.parametrize("carry", [roll_back, emergency])
def test_a_dry_run_that_cannot_tell_ends_as_the_real_one(migrated_url: str, database: Database, carry: Any) -> None:
    """A database that does not answer, a flag that is not there: 21, and nothing is said to be switched off."""
    for url, flag in (("postgresql://127.0.0.1:1/none", FLAG), (migrated_url, "outbox.enabeld")):
        asked = dataclasses.replace(order(flag=flag), dry_run=True)
        action = carry(url, asked, time.monotonic, print)
        assert settle(ROLLBACK, action, "", "").exit_code == NOT_ROLLED_BACK
        assert "would be" not in action.message
    shown = carry(migrated_url, dataclasses.replace(order(), dry_run=True), time.monotonic, print)
    assert (shown.result, shown.from_percent, is_on(database)) == ("dry_run", 10, True)


def test_a_rollback_needs_no_thread(migrated_url: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives none, nobody looks who holds a lock; the flag goes off."""

    def none(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    assert rolled_back(migrated_url).flag == "off"
    assert not is_on(database)


def test_an_audit_row_is_owed_until_it_is_written(
    migrated_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trail is locked while the flag goes off, and the look is lost. The next try finds it off, and writes it."""
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


@pytest.mark.parametrize("sent", sorted(ENDING_SIGNALS))
@pytest.mark.parametrize("command", ["rollback", "emergency"])
def test_a_signal_ends_a_rollback_with_the_sql_to_run(
    command: str, sent: signal.Signals, migrated_url: str, database: Database, tmp_path: Path
) -> None:
    """A job is cancelled while a lock keeps the flag on: 21, and what is not known is said."""
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
