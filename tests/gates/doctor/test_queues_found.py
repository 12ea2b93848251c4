"""Queues of known libraries are recognised under each of their names, and the draft says what only a person knows."""

import pytest
import yaml

from gates.contract.contract import contract
from gates.contract.names import Names
from gates.doctor.diagnosis import Diagnosis, judge, view_database
from gates.doctor.draft.draft import draft
from gates.doctor.draft.queue import queues_of
from gates.doctor.grants import grants
from tests.gates.doctor.databases import SCHEMAS, database
from tests.postgres_fixture import PgServer

MESSAGES = "msg_id bigint, read_ct int, enqueued_at timestamptz, archived_at timestamptz, vt timestamptz, message jsonb"
EVENT = "id uuid, aggregatetype text, aggregateid text, type text, payload jsonb"
LIBRARIES = f"""
create schema pgmq;
create table pgmq.q_mail ({MESSAGES}); create table pgmq.a_mail ({MESSAGES});
create table pgmq.q_bulk ({MESSAGES}); create table pgmq.a_bulk ({MESSAGES});
create table outbox ({EVENT});
create table outbox_of_a_relay ({EVENT}, attempts int, processed_at timestamptz);
create table que_jobs (id bigserial, run_at timestamptz, job_class text, error_count int, last_error_message text,
  args jsonb, expired_at timestamptz);
"""


def found_in(server: PgServer, sql: str) -> Diagnosis:
    with database(server, sql) as url:
        return judge(view_database(url, contract(), Names()), None, contract(), Names(), "outbox.enabled")


def test_a_queue_is_recognised_under_each_of_its_names(pg_server: PgServer) -> None:
    """The draft has the first name and mentions the others; one without a preset is reported."""
    found = found_in(pg_server, LIBRARIES)
    assert {(p.name, p.prefix) for p in found.presets} == {("debezium", "outbox"), ("pgmq", "bulk"), ("pgmq", "mail")}
    assert "dead_letter_queue" not in found.comparison.tables
    assert any("Que is here" in said and "no preset" in said for said in found.unjudged)
    text = draft(found, contract())
    assert yaml.safe_load(text) == {"contract": {"preset": "debezium", "options": {"prefix": "outbox"}}}
    assert "preset: pgmq, options: {prefix: mail}" in text
    assert "max_run_time_s" not in text, "Debezium claims nothing"


UNJUDGED = {
    "SAQ": "create table saq_jobs (key text, lock_key int, job bytea, queue text, status text, scheduled bigint);"
    " create table saq_stats (worker_id text, stats jsonb, expire_at bigint)",
    "dramatiq-pg": "create schema dramatiq; create table dramatiq.queue (message_id uuid, queue_name text, state text,"
    " mtime timestamptz, message jsonb)",
    "Huey": "create table task (id int, queue text, data bytea, priority float);"
    " create table schedule (id int, queue text, data bytea, timestamp timestamp);"
    " create table kv (queue text, key text, value bytea)",
    "APScheduler": "create table apscheduler_jobs (id text, next_run_time float, job_state bytea)",
    "Celery over SQL": "create table kombu_queue (id int, name text); create table kombu_message (id int,"
    " visible boolean, payload text, queue_id int)",
    "DBOS": "create schema dbos; create table dbos.workflow_status (workflow_uuid text, status text,"
    " recovery_attempts bigint, queue_name text); create table dbos.workflow_events (workflow_uuid text, key text)",
    "graphile-worker before version 0.16": "create schema graphile_worker; create table graphile_worker.jobs (id int,"
    " task_id int, run_at timestamptz, attempts int, max_attempts int, locked_by text); create table"
    " graphile_worker.job_queues (queue_name text, locked_by text); create table graphile_worker.migrations (id int)",
    "Absurd": "create schema absurd; create table absurd.t_mail (task_id uuid, task_name text, retry_strategy jsonb);"
    " create table absurd.r_mail (run_id uuid, task_id uuid, claim_expires_at timestamptz, wake_event text)",
    "Taskiq": "create table taskiq_messages (id int, task_id text, task_name text, message text, labels jsonb)",
}


@pytest.mark.parametrize("library", UNJUDGED)
def test_a_library_without_a_preset_is_named_with_the_way_out(library: str, pg_server: PgServer) -> None:
    """It is named as not judged, with a view as the way out, and no preset is taken for it."""
    found = found_in(pg_server, UNJUDGED[library])
    assert [p.title for p in found.presets if p.is_judged] == []
    assert any(said.startswith(f"{library} is here") and "through a view" in said for said in found.unjudged)


def test_the_script_of_the_login_grants_what_a_queue_needs(pg_server: PgServer) -> None:
    """The login may read each table of a queue, and says where there is nothing to grant."""
    found = found_in(pg_server, LIBRARIES)
    script = grants(found.schema, found.comparison, "reader", queues=queues_of(found.presets))
    assert 'grant select on "pgmq"."q_mail", "pgmq"."a_mail" to "reader";' in script
    assert script.endswith(";\n")
    assert grants(found.schema, found.comparison).endswith("nor a queue was found\n")


@pytest.mark.parametrize("option", ["tenant", "max_run_time_s", "leave_out", "limits", "probe"])
def test_the_draft_asks_what_only_a_person_knows(option: str, pg_server: PgServer) -> None:
    """Each option that no schema tells stands in the draft as a comment."""
    found = found_in(pg_server, (SCHEMAS / "pgboss.sql").read_text(encoding="utf-8"))
    assert f"  #   {option}: " in draft(found, contract())


def test_a_primary_key_refers_to_no_other_table(pg_server: PgServer) -> None:
    """An outbox's own UUID key is not taken for a replay run's id."""
    found = found_in(
        pg_server,
        "create table event_outbox (id uuid primary key, event_id uuid unique, company_id uuid, event_type text,"
        " payload jsonb, status text, attempts int, created_at timestamptz, processed_at timestamptz)",
    )
    assert "replay_run_id" not in found.comparison.tables["event_outbox"].columns
