"""Rollbacks on incomplete tables and with blind logins, and how they are reported."""

import threading
import time
from functools import partial

import psycopg
import pytest
from psycopg.rows import dict_row

from gates.act import insist, rollback
from gates.act.emergency import emergency
from gates.act.flag import MOST_OVERRIDES, look, look_at_global
from gates.act.rollback import by_hand, quoted
from gates.act.rollout import act
from gates.deployment.sql import database as door
from gates.verdict import NOT_ROLLED_BACK, Action, settle
from tests.gates.act.flagged import FLAG, ROLLBACK, Database, is_on, on_change, order, rolled_back
from tests.postgres_fixture import PASSWORD
from tests.waiting import until, without_threads


def test_a_flag_that_is_switched_on_again_is_not_rolled_back(migrated_url: str, database: Database) -> None:
    """If somebody switches it on while it settles, the rollback has failed, and prints the SQL to run."""
    seen = threading.Thread(target=_switch_on_again, args=(migrated_url,))
    seen.start()
    action = rolled_back(migrated_url, order(settle_s=5))
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
    """The control: after the second that the plan asks for, the flag is off and its recovery is proved."""
    action = rolled_back(migrated_url, order(settle_s=1))
    assert (action.result, action.flag, action.recovery["proved"]) == ("done", "off", True)
    assert 1.0 <= float(str(action.recovery["watched_s"])) < 10.0
    assert not is_on(database)


AWAY = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'replaygate'"


def after_the_rollback(url: str, *statements: str, away: bool = True) -> Action:
    """Roll back and watch; meanwhile a person's statements run, and a failover ends our sessions if asked for."""

    def happen() -> None:
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as somebody:
            until(lambda: not is_on(somebody))
            threading.Event().wait(0.5)
            with somebody.transaction():
                for statement in statements:
                    somebody.execute(statement.encode())
            if away:
                somebody.execute(AWAY.encode())

    seen = threading.Thread(target=happen)
    seen.start()
    action = rolled_back(url, order(settle_s=3))
    seen.join()
    return action


def test_a_change_that_a_failover_lost_is_made_again(migrated_url: str, database: Database) -> None:
    """The server goes away during the watch and returns with the flag on; it is switched off again."""
    again = "update public.feature_flags set enabled = true where key = 'outbox.enabled'"
    action = after_the_rollback(migrated_url, "lock public.feature_flags", again, AWAY)
    assert (action.kind, action.result, action.flag) == ("rollback", "done", "off")
    assert action.recovery["proved"] is True
    assert not is_on(database)


def test_a_change_that_is_lost_between_two_looks_is_made_again(migrated_url: str, database: Database) -> None:
    """A failover that no session met is seen by the flag's old state and version."""
    before = look_at_global(database, FLAG)
    assert before is not None
    action = after_the_rollback(
        migrated_url,
        "alter table public.feature_flags disable trigger user",
        f"update public.feature_flags set enabled = true, version = {before.version} where key = '{FLAG}'",
        "alter table public.feature_flags enable trigger user",
        away=False,
    )
    assert (action.kind, action.result, action.flag) == ("rollback", "done", "off")
    assert not is_on(database)


def test_a_server_that_restarts_while_the_flag_is_watched_is_asked_again(migrated_url: str, database: Database) -> None:
    """The control: the server returns with the flag off."""
    action = after_the_rollback(migrated_url)
    assert (action.kind, action.result, action.recovery["proved"]) == ("rollback", "done", True)


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
    """Without the other columns, the flag still goes off and reads back as off."""
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
def test_an_audit_row_that_is_refused_keeps_no_flag_on(gate_url: str, database: Database, change: str) -> None:
    """The flag goes off, and the missing audit row is reported."""
    database.execute(change.encode())
    action = act(ROLLBACK, order(), gate_url)
    assert (action.result, action.flag) == ("done", "off")
    assert "no audit row (flag_rolled_back) could be written: " in action.message
    assert not is_on(database)


def test_a_flag_without_a_value_is_not_off(migrated_url: str, database: Database) -> None:
    """NULL does not count as off: the rollback writes false."""
    database.execute("alter table public.feature_flags alter enabled drop not null")
    database.execute("update public.feature_flags set enabled = null where key = %s", (FLAG,))
    assert act(ROLLBACK, order(), migrated_url).flag == "off"
    assert database.execute("select from public.feature_flags where key = %s and not enabled", (FLAG,)).fetchall()


# --- what is not seen is not done --------------------------------------------------------------------------------


def test_a_mistyped_flag_is_not_off_already(migrated_url: str, database: Database) -> None:
    """The rollback fails, and the message suggests the key that there is."""
    action = rolled_back(migrated_url, order(flag="outbox.enabeld"))
    assert (action.kind, action.result, action.flag) == ("none", "failed", "unknown")
    assert action.headline == "THE FLAG MAY STILL BE ON"
    assert "the key may be mistyped" in action.message
    assert "'outbox.enabled'" in action.message
    assert is_on(database)


def test_a_login_that_sees_no_row_proves_nothing(gate_url: str, database: Database) -> None:
    """If row-level security hides every row, that is reported, and nothing is called off."""
    database.execute("drop policy replay_gate_sees_all on public.feature_flags")
    action = rolled_back(gate_url)
    assert (action.result, action.headline) == ("failed", "THE FLAG MAY STILL BE ON")
    assert "row-level security hides them" in action.message
    assert is_on(database)


def test_a_login_that_may_see_but_not_change_proves_nothing(gate_url: str, database: Database) -> None:
    """The update changes no row without an error; only the value read back counts."""
    database.execute("drop policy replay_gate_updates on public.feature_flags")
    action = rolled_back(gate_url)
    assert (action.result, action.headline) == ("failed", "THE FLAG IS STILL ON")
    assert action.by_hand == f"UPDATE public.feature_flags SET enabled = false WHERE key = '{FLAG}';"
    assert is_on(database)


def test_an_override_that_this_login_does_not_see_is_found_by_the_function(gate_url: str, database: Database) -> None:
    """All visible rows are off, but the function says that a tenant has the flag on."""
    company = database.execute("insert into public.companies (name) values ('a') returning id").fetchone()
    assert company
    insert = "insert into public.feature_flags (key, company_id, enabled, rollout_percentage)"
    database.execute(f"{insert} values (%s, %s, true, 100)", (FLAG, company["id"]))
    database.execute("drop policy replay_gate_sees_all on public.feature_flags")
    database.execute(
        "create policy globals on public.feature_flags for select to replay_gate using (company_id is null)"
    )
    action = rolled_back(gate_url)
    assert (action.result, action.headline) == ("failed", "THE FLAG IS STILL ON")
    assert f"is_feature_enabled says on for company {company['id']}" in action.message


@pytest.fixture
def half_blind(gate_url: str, database: Database) -> str:
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
    return gate_url


def replace_function(database: Database, body: str) -> None:
    """The deployment's function runs this first, when the gate asks."""
    database.execute("alter function public.is_feature_enabled(text, uuid) rename to really_enabled")
    database.execute(
        "create function public.is_feature_enabled(key text, company uuid) returns boolean language plpgsql"
        " security definer set search_path = '' as $$ begin if session_user in ('replay_gate', 'postgres') then "
        f"{body} end if; return public.really_enabled(key, company); end $$".encode()
    )


def test_every_company_is_asked_for(half_blind: str) -> None:
    """The function is asked for all of 20,050 tenants: the last one has the flag on."""
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
    """Rows may be hidden, and nothing shows that their tenants have the flag off."""
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
def test_hidden_rows_without_a_word_for_all_prove_nothing(half_blind: str, database: Database, change: str) -> None:
    """A missing function, or hidden tenants, leave open whether the flag is off."""
    database.execute(change.encode())
    action = rolled_back(half_blind)
    assert (action.result, action.headline) == ("failed", "THE FLAG MAY STILL BE ON")
    assert "row-level security may hide rows of the flag" in action.message


def test_a_login_that_sees_every_row_needs_no_word_for_every_company(
    gate_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows are off; the function is asked for as many tenants as time allows."""
    monkeypatch.setattr(rollback, "ASK_S", 1)
    database.execute(
        "insert into public.companies (id, name) select gen_random_uuid(), 'c' from generate_series(1, 1000)"
    )
    replace_function(database, "perform pg_catalog.pg_sleep(0.01);")
    action = rolled_back(gate_url)
    assert (action.result, action.flag, action.recovery["proved"]) == ("done", "off", True)


def test_a_function_that_does_not_follow_the_rows_is_heard(migrated_url: str, database: Database) -> None:
    """Service and worker ask the function, so it counts even if every row is off."""
    database.execute("insert into public.companies (name) values ('a')")
    replace_function(database, "return true;")
    action = rolled_back(migrated_url)
    assert (action.result, action.headline) == ("failed", "THE FLAG IS STILL ON")
    assert "it does not follow the rows" in action.message


def test_a_function_that_lacks_something_itself_is_no_missing_function(migrated_url: str, database: Database) -> None:
    """A function that fails under our search_path gave no answer, so nothing is proved."""
    database.execute("insert into public.companies (name) values ('a')")
    database.execute(
        "create or replace function public.is_feature_enabled(key text, company uuid) returns boolean language plpgsql"
        " stable as $$ begin return exists (select from feature_flags); end $$"
    )
    action = rolled_back(migrated_url)
    assert (action.result, action.headline) == ("failed", "THE FLAG MAY STILL BE ON"), action
    assert "failed inside your function" in action.message


def test_a_rollback_reads_no_tenant_s_row(migrated_url: str, database: Database) -> None:
    """It reads the global row alone; a look at the flag reads overrides up to a limit, the least on first."""
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
    """Any exception becomes exit code 21 with the SQL to run."""

    def broken(*_given: object, **_more: object) -> None:
        raise error

    monkeypatch.setattr(f"gates.act.{place}", broken)
    for action in (rolled_back(migrated_url), emergency(migrated_url, order(), time.monotonic, print)):
        assert settle(ROLLBACK, action, "", "").exit_code == NOT_ROLLED_BACK
        assert by_hand(FLAG) in action.by_hand


def test_an_emergency_without_a_thread_is_not_done(
    migrated_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three parts are reported as to be done by hand."""
    without_threads(monkeypatch)
    action = emergency(migrated_url, order(), time.monotonic, print)
    assert (action.kind, settle(ROLLBACK, action, "", "").exit_code) == ("emergency", NOT_ROLLED_BACK)
    assert action.by_hand.count(";") == 3


def test_a_trigger_that_undoes_the_rollback_is_seen(migrated_url: str, database: Database) -> None:
    """The update reports one row, but the flag reads back as on."""
    on_change(database, "before update on public.feature_flags", "new.enabled := true; return new;")
    action = rolled_back(migrated_url)
    assert (action.result, action.headline) == ("failed", "THE FLAG IS STILL ON")
    assert "a trigger or rule of its table, or somebody else, undoes it" in action.message


@pytest.mark.parametrize("kind", ["also notify flags", "instead update public.held set enabled = new.enabled"])
def test_a_rule_of_the_table_keeps_no_flag_on(kind: str, gate_url: str, database: Database) -> None:
    """PostgreSQL accepts the checklist's statement under such a rule, and so the rollback must be possible."""
    if "instead" in kind:
        database.execute(
            "alter table public.feature_flags rename to held;"
            " create view public.feature_flags with (security_invoker) as select * from public.held;"
            " grant select, update on public.feature_flags to replay_gate"
        )
        kind += " where key = old.key"
    database.execute(f"create rule zz_planted as on update to public.feature_flags do {kind}".encode())
    action = rolled_back(gate_url)
    assert (action.result, action.flag, is_on(database)) == ("done", "off", False), action


# --- how it is told ----------------------------------------------------------------------------------------------


def test_a_rollback_that_was_not_carried_out_has_an_exit_code_of_its_own() -> None:
    """21 and a headline if it failed; 20 if done, not needed or a dry run."""
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
    """It is printable ASCII, and the server reads the same key."""
    literal = quoted(key)
    assert literal.isascii()
    assert literal.isprintable()
    with psycopg.connect(migrated_url) as connection:
        assert connection.execute(f"select {literal}".encode()).fetchone() == (key,)
    assert PASSWORD not in literal
