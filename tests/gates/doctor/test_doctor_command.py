"""`gate doctor` as people run it: output, exit code, and that it is inert and read-only."""

import json
from pathlib import Path

import psycopg
import pytest

from tests.gates.doctor.databases import SCHEMAS, database
from tests.gates.gate_process import gate
from tests.postgres_fixture import TEMPLATE, PgServer

FLAGS = """
insert into feature_flags (key, enabled, rollout_percentage)
  select k, true, 100 from unnest(array['outbox.enabled', 'dlq.replay.enabled', 'dlq.replay.budget_control',
  'security.signing_v2_required']) as k
"""
HOSTILE = """
create schema "sch\u202eema; drop";
create table "sch\u202eema; drop"."dead\nletter\x1b[31m""queue" (
  "id" uuid primary key, "tenant\u2028id" uuid, "event\x07type" text, payload jsonb, error_type text, retry_count int, "sta'tus" text
);
create table "::error title=x::y" (company_id uuid, "retry_after" timestamptz, status text check (status in ('a''b', E'c\x1b')));
create policy "p\x1b]0;owned\x07" on "::error title=x::y" using (true);
do $$ begin execute format('comment on table "::error title=x::y" is %L', repeat('dead_letter_queue \x1b[2J', 500000)); end $$;
do $$ begin for i in 1..300 loop execute format('create table %I (id bigint primary key, tenant_id uuid, status text, payload jsonb)', 'audit_failed_event_' || i); end loop; end $$;
"""  # noqa: E501


def test_the_reference_needs_nothing(pg_server: PgServer, tmp_path: Path) -> None:
    """With its flags in place all of the reference's schema is there, whatever other variables are: exit code 0. Where
    the other door is named and nobody answers there, not everything was seen: 10.
    """
    with database(pg_server, FLAGS, TEMPLATE) as url:
        done = gate("doctor", cwd=tmp_path, environ={"DATABASE_URL": url})
        odd = gate(
            "doctor", cwd=tmp_path, environ={"DATABASE_URL": url, "TEST_COMPANY_ID": "1025", "ADMIN_JWT": "none"}
        )
        silent = gate("doctor", cwd=tmp_path, environ={"DATABASE_URL": url, "BASE_URL": "http://127.0.0.1:9"})
    assert (done.returncode, odd.returncode, silent.returncode) == (0, 0, 10), done.stdout + odd.stderr
    assert "12 of 12 tables of the contract" in done.stdout
    assert "BASE_URL is not set" in done.stdout
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", ["", "shop", "blog"])
def test_what_is_nothing_like_it_is_said_to_be(pg_server: PgServer, tmp_path: Path, name: str) -> None:
    """An empty or foreign database gives one sentence, exit code 10 and no draft."""
    with database(pg_server, (SCHEMAS / f"{name}.sql").read_text(encoding="utf-8") if name else "") as url:
        done = gate("doctor", "--write", cwd=tmp_path, environ={"DATABASE_URL": url})
    assert done.returncode == 10
    assert "nothing here looks like the contract: 0 of 12 tables" in done.stdout
    assert "under another name" not in done.stdout
    assert "row-level security" not in done.stdout
    assert "not written" in done.stderr
    assert [*tmp_path.iterdir()] == []


def test_without_a_door_or_an_answer_the_exit_code_says_so(tmp_path: Path) -> None:
    """No variable is 3, no answer is 4, without a traceback or password."""
    assert gate("doctor", cwd=tmp_path).returncode == 3
    away = {"DATABASE_URL": "postgresql://u:planted-pw-123@127.0.0.1:9/x", "BASE_URL": "http://127.0.0.1:9"}
    done = gate("doctor", cwd=tmp_path, environ=away)
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert "planted-pw-123" not in done.stdout + done.stderr


def test_a_foreign_schema_is_shown_with_its_names(pg_server: PgServer, tmp_path: Path) -> None:
    """--json has every object with its state, its real name and how sure the guess is."""
    with database(pg_server, (SCHEMAS / "supabase.sql").read_text(encoding="utf-8")) as url:
        done = gate("doctor", "--json", cwd=tmp_path, environ={"DATABASE_URL": url})
    assert done.returncode == 10
    data = json.loads(done.stdout)
    objects = {f"{o['kind']} {o['name']}": o for o in data["objects"]}
    letters = objects["table dead_letter_queue"]
    said = [letters[name] for name in ("presence", "real", "confidence")]
    assert said == ["under another name", "ops.dlq_items", "sure"]
    assert objects["column dead_letter_queue.company_id"]["real"] == "team_id"
    assert data["defects"][0]["harm"] >= 98
    assert {a["area"] for a in data["areas"]} >= {"replay", "tenancy", "outbox"}


def test_a_hostile_schema_is_inert_and_changes_nothing(pg_server: PgServer, tmp_path: Path) -> None:
    """Names, states, policies and comments cannot command the terminal or the pipeline, nor flood them."""
    with database(pg_server, HOSTILE) as url:
        for words in (("doctor", "--all"), ("doctor", "--json")):
            done = gate(*words, cwd=tmp_path, environ={"DATABASE_URL": url})
            said = done.stdout + done.stderr
            assert done.returncode == 10, said[-500:]
            assert not {"\x1b", "\x07", "\u202e", "\u2028"} & set(said)
            assert "\n::error" not in said
            assert len(said) < 500_000
        json.loads(done.stdout)


def test_a_locked_table_and_a_blind_login_are_said(pg_server: PgServer, tmp_path: Path) -> None:
    """A locked table costs a part of the picture at most; a login that sees no rows is a defect."""
    with database(pg_server, FLAGS, TEMPLATE) as url, psycopg.connect(url) as other:
        other.execute("drop role if exists doctor_blind")
        other.execute("create role doctor_blind login password 'blind-pw'")
        other.execute("grant usage on schema public to doctor_blind; grant select on events to doctor_blind")
        other.commit()
        other.execute("lock table feature_flags, event_outbox in access exclusive mode")
        blind = psycopg.conninfo.make_conninfo(url, user="doctor_blind", password="blind-pw")
        done = gate("doctor", "--json", cwd=tmp_path, environ={"DATABASE_URL": blind})
        other.rollback()
        other.execute("drop owned by doctor_blind; drop role doctor_blind")
    data = json.loads(done.stdout)
    assert data["tables"] == 12
    seen = {d["seen"] for d in data["defects"]}
    assert {"row-level security hides rows from this login", "this login may not read it"} <= seen
