"""`gate lint --target` finds names that the database lacks, each with its place in gate.yaml."""

import datetime as dt
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg.rows import dict_row

from gates.decision.policy_file import PolicyFile, parse
from gates.deployment.dialect.current import current
from gates.errors import CannotWork
from gates.operator.names_lint import against_target
from tests import renamed
from tests.gates.doctor.databases import SCHEMAS, database
from tests.gates.gate_process import gate
from tests.postgres_fixture import TEMPLATE, PgServer

TODAY = dt.date(2026, 1, 1)
GIVEN = {k: v for k, v in renamed.names().items() if k != "roles"}


@pytest.fixture
def renamed_url(migrated_url: str) -> str:
    with psycopg.connect(migrated_url, row_factory=dict_row) as connection:
        renamed.rename(connection, roles=False)
    return migrated_url


def policy(names: object) -> PolicyFile:
    return parse("version: 1\n" + yaml.safe_dump({"names": names}, sort_keys=False), "gate.yaml", Path(), TODAY)


def test_names_that_are_right_and_names_that_are_wrong(renamed_url: str) -> None:
    """Right names give no finding; every kind of wrong name does."""
    assert against_target(policy(GIVEN), renamed_url) == []
    text = """version: 1
names:
  schema: app
  ids: {event_id: bigint}
  tables:
    companies: {is: app.acounts}
    feature_flags: {is: app.switches, columns: {enabled: is_onn, company_id: tenant_id, rollout_percentage: key}}
    edge_rate_limits: {is: app.call_windows, columns: {hits: calls, count: {sql: cardinality(nothing)}}}
    agent_tasks: {is: public.work, columns: {event_id: fact_id}, also: {slug: "''"}}
  functions: {is_feature_enabled: {is: app.flag_on}}
  roles: {anon: nobody_here}
contract: {claims: [replay, tenancy, outbox, safety-rails, authentication, tokens]}
"""
    found = against_target(parse(text, "gate.yaml", Path(), TODAY), renamed_url)
    print("\n".join(found))
    places = {line.split(": ", 1)[0]: line.split(": ", 1)[1] for line in found if not line.startswith("gate.yaml:5:")}
    assert "no table or view app.acounts" in places["gate.yaml:6:21"]
    assert "no column 'is_onn'" in places["gate.yaml:7:58"]
    assert "app.switches.key is text" in places["gate.yaml:7:109"]
    assert '"nothing" does not exist' in places["gate.yaml:8:76"]
    assert "fact_id is uuid" in places["gate.yaml:9:56"]
    assert "no column 'slug'" in places["gate.yaml:9:79"]
    assert "app.flag_on takes (uuid, text)" in places["gate.yaml:10:40"]
    assert "no role 'nobody_here'" in places["gate.yaml:11:17"]


def test_the_names_are_in_use_afterwards(renamed_url: str) -> None:
    """The look at real names leaves the process with the names of the policy."""
    file = policy(GIVEN)
    against_target(file, renamed_url)
    assert current() == file.names


NUMBERED = """\
create table letters (like dead_letter_queue);
alter table letters alter status type integer using 0;
"""


@pytest.mark.parametrize(("pending", "said"), [("0", ""), ("waiting", "'waiting' is no value of integer")])
def test_states_that_are_kept_as_numbers(pg_server: PgServer, tmp_path: Path, pending: str, said: str) -> None:
    """Numbers that `values` maps are fine; for others the message shows how to map them."""
    values = f"{{pending: '{pending}', replaying: '1', resolved: '2', discarded: '3'}}"
    text = "version: 1\nnames: {tables: {dead_letter_queue: {is: letters%s}}}\n"
    with database(pg_server, NUMBERED, TEMPLATE) as url:
        plain = against_target(parse(text % "", "gate.yaml", tmp_path, TODAY), url)
        mapped = against_target(parse(text % f", values: {{status: {values}}}", "gate.yaml", tmp_path, TODAY), url)
    assert "letters.status is integer" in plain[0]
    assert "`values`" in plain[0]
    assert bool(mapped) == bool(said)
    assert said in "".join(mapped)


NO_NAMES = "version: 1\ncontract: {claims: [replay, tenancy, outbox]}\n"


def test_without_names_the_contracts_own_are_held_against_the_database(pg_server: PgServer, tmp_path: Path) -> None:
    """The reference has them all; an empty database is reported as one mistake."""
    file = parse(NO_NAMES, "gate.yaml", tmp_path, TODAY)
    with database(pg_server, template=TEMPLATE) as url:
        assert against_target(file, url) == []
    with database(pg_server) as url:
        (problem,) = against_target(file, url)
        done = gate("lint", "--target", cwd=tmp_path, environ={"DATABASE_URL": url})
    assert problem.startswith("gate.yaml:1:1: the database has not public.companies, public.replay_runs, ")
    assert "audit_logs" not in problem
    assert done.returncode == 3
    assert "the database has not public.companies" in done.stdout
    assert "no problem found" not in done.stdout + done.stderr


def test_a_column_of_the_contracts_own_that_is_not_there_is_named(pg_server: PgServer, tmp_path: Path) -> None:
    """Without `names:` a missing column of the contract is a mistake."""
    with database(pg_server, "alter table event_outbox drop column txid", TEMPLATE) as url:
        (problem,) = against_target(parse(NO_NAMES, "gate.yaml", tmp_path, TODAY), url)
    assert "public.event_outbox has no column 'txid'" in problem


@pytest.mark.parametrize(
    "text", ["version: 1\n", "version: 1\nnames: {schema: app}\n", "version: 1\ncontract: {preset: river}\n"]
)
def test_a_database_that_does_not_answer_was_not_looked_at(tmp_path: Path, text: str) -> None:
    """It exits with 4 and says so, without a password."""
    (tmp_path / "gate.yaml").write_text(text, encoding="utf-8")
    away = {"DATABASE_URL": "postgresql://u:planted-pw-123@127.0.0.1:9/x"}
    done = gate("lint", "--target", cwd=tmp_path, environ=away)
    assert done.returncode == 4
    assert "the names were not looked at: DATABASE_URL: " in done.stderr
    assert "no problem found" not in done.stdout + done.stderr
    assert "planted-pw-123" not in done.stdout + done.stderr
    with pytest.raises(CannotWork):
        against_target(parse(text, "gate.yaml", tmp_path, TODAY), away["DATABASE_URL"])


def test_the_tables_of_a_queue_are_held_against_the_database(pg_server: PgServer, tmp_path: Path) -> None:
    """A claimed queue library must be in the database."""
    text = "version: 1\ncontract: {preset: pg-boss}\n"
    with database(pg_server) as url:
        (problem,) = against_target(parse(text, "gate.yaml", tmp_path, TODAY), url)
    assert problem.startswith("gate.yaml:2:20: pg-boss is absent: there is no schema pgboss")
    with database(pg_server, (SCHEMAS / "pgboss.sql").read_text(encoding="utf-8")) as url:
        found = against_target(parse(text, "gate.yaml", tmp_path, TODAY), url)
    assert not [one for one in found if "absent" in one]
