"""Without its audit row a step is not taken; no text in a note prevents an act."""

import json
import time
import uuid
from dataclasses import replace

import pytest

from gates.act.emergency import emergency
from gates.act.flag import look_at
from gates.act.rollout import promote
from replay_service.migrate import migrate
from tests.gates.act.flagged import FLAG, Database, flag, flagged, on_change, order, rolled_back
from tests.postgres_fixture import PgServer

ORDER = order(patience_s=1)
FOREIGN = replace(ORDER, actor="gate:Łukasz", reason="users see errors – stop 🛑", release="größe")
LOSES = (
    "return null;",
    "new.action := 'noted'; return new;",
    "new.scope := 'company:' || gen_random_uuid(); return new;",
    "new.metadata := new.metadata - 'key'; return new;",
    "new.metadata := new.metadata || '{\"to\": 1}'; return new;",
)


@pytest.mark.parametrize("body", LOSES)
def test_no_step_is_taken_whose_audit_row_does_not_stay(body: str, migrated_url: str, database: Database) -> None:
    """A trigger that drops or changes the row prevents the step: the next one could not know of it."""
    _keep_out(database, body)
    step = promote(migrated_url, replace(ORDER, seen=look_at(migrated_url, FLAG)))
    assert (step.kind, step.result, step.holds) == ("none", "failed", True), step
    assert "public.audit_logs" in step.message
    assert flag(database) == (True, 10)


@pytest.mark.parametrize("body", LOSES)
def test_a_rollback_happens_all_the_same_and_says_that_its_audit_row_is_missing(
    body: str, migrated_url: str, database: Database
) -> None:
    """The flag is off, and the message names the missing row."""
    _keep_out(database, body)
    action = rolled_back(migrated_url, ORDER)
    assert (action.result, action.flag, flag(database)[0]) == ("done", "off", False)
    assert "no audit row (flag_rolled_back) could be written" in action.message


def _keep_out(database: Database, body: str) -> None:
    of_the_flag = "row when (new.action in ('flag_promoted', 'flag_rolled_back'))"
    on_change(database, "before insert on public.audit_logs", body, of_the_flag)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "WIN1250", "KOI8R", "UTF8", "EUC_TW"])
def test_no_letter_of_a_note_keeps_an_act_from_happening(encoding: str, pg_server: PgServer) -> None:
    """Characters that the database cannot encode are written as escapes."""
    name = f"test_{uuid.uuid4().hex}"
    create = f"create database {name} template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'"
    pg_server.superuser.execute(create.encode())
    try:
        whole = f"{pg_server.url(name)}?client_encoding=utf8"
        migrate(whole)
        url = pg_server.url(name, "replay_gate")
        with flagged(whole) as database:
            step = promote(url, replace(FOREIGN, seen=look_at(url, FLAG)))
            assert (step.result, step.to_percent) == ("done", 50), step
            action = emergency(url, FOREIGN, time.monotonic, print)
            assert (action.result, action.flag) == ("done", "off"), action
            assert "no audit row" not in action.message
            rows = database.execute("select actor, metadata from public.audit_logs where scope = 'all'").fetchall()
            paused = database.execute("select pause_reason from public.agent_controls where agents_paused").fetchall()
    finally:
        pg_server.drop_database(name)
    assert len(rows) == 4
    told, narrow = json.dumps([*rows, *paused], ensure_ascii=False), {"LATIN1", "KOI8R", "EUC_TW"}
    assert "ukasz" in told
    assert "stop" in told
    assert ("\\\\u2013" in told) is (encoding in narrow)
    assert ("–" in told) is (encoding not in narrow)
