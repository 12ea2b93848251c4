"""pytest collects files as checks: drop-in folders, exclusion of companies, checkpoints, evidence, blind roles."""

import os
from pathlib import Path

import psycopg
import pytest

from gates.config import environment_of
from gates.decision.floor import is_optional
from gates.decision.policy_file import Settings
from gates.deployment.target import Target
from gates.evidence import Evidence, Outcome, TargetKind
from gates.evidence_file import read_lines
from gates.stages import suite
from gates.stages.context import Context
from gates.stages.suite import SuiteRun
from tests.drills.examination import run_pytest
from tests.postgres_fixture import PgServer
from tests.sources import ROOT
from tests.sql_checks.conftest import COMPANY

OWN_CHECK = """-- id: sql/spot/companies-named
-- claim: Every company has a name.
-- cost: Nobody knows whom to call.
-- severity: warn
select id::text as subject, 'no name' as detail, null::text as witness
from public.companies where coalesce(name, '') = '';

-- seen:
select count(*) as seen from public.companies;
"""
OTHER = "00000000-0000-4000-8000-0000000000bb"


def run(url: str, tmp_path: Path, *options: str) -> dict[str, Evidence]:
    """Run the suite in this process with a gate's arguments and variables; the evidence by check."""
    target = Target(TargetKind.STAGING, database_url=url, test_company_id=COMPANY)
    evidence = tmp_path / "evidence.ndjson"
    evidence.unlink(missing_ok=True)
    words = [str(ROOT / "sql_checks"), f"--evidence={evidence}", "--run-id=run", *options]
    said = run_pytest(words, environment_of(target, {}))
    assert evidence.exists(), said
    return {one.check: one for one in read_lines(evidence)}


def run_as_the_gate_does(url: str, tmp_path: Path) -> dict[str, Evidence]:
    """Run the suite in its own process."""
    target = Target(TargetKind.STAGING, database_url=url, test_company_id=COMPANY)
    context = Context(target, Settings(), tmp_path, "run", environ=os.environ)
    suite.run(SuiteRun("sql", "sql_checks", (), 120.0, (), http=False), context)
    return {one.check: one for one in read_lines(context.evidence)}


@pytest.mark.parametrize("role", [None, "replay_gate"])
def test_everything_passes_on_the_reference(role: str | None, pg_server: PgServer, clone: str, tmp_path: Path) -> None:
    """Every check passes for superuser and least role; cohorts need more tenants."""
    found = run_as_the_gate_does(pg_server.url(clone, role), tmp_path)
    assert len(found) > 100
    assert {c: e.message for c, e in found.items() if e.outcome is not Outcome.PASS and not is_optional(c)} == {}
    assert {e.outcome for c, e in found.items() if is_optional(c)} == {Outcome.UNKNOWN}


def test_a_dropped_in_file_is_a_check(pg_server: PgServer, clone: str, tmp_path: Path) -> None:
    """A .sql file in a named folder is a check, without Python; a violation in it fails it."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "0001_companies_named.sql").write_text(OWN_CHECK, encoding="utf-8")
    words = ("--spot-folder", str(folder), "--only", "sql/spot/companies-named")
    url = pg_server.url(clone)
    assert run(url, tmp_path, *words)["sql/spot/companies-named"].outcome is Outcome.PASS
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("insert into public.companies (id, name) values (gen_random_uuid(), '')")
    failed = run(url, tmp_path, *words)["sql/spot/companies-named"]
    assert failed.outcome is Outcome.FAIL
    assert failed.samples == 2


def test_exactly_the_listed_companies_are_left_out(pg_server: PgServer, clone: str, tmp_path: Path) -> None:
    """Listed tenants are left out, but never TEST_COMPANY_ID."""
    url = pg_server.url(clone)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("insert into public.companies (id, name) values (%s, 'drill-x')", (OTHER,))
        connection.execute(
            "insert into public.agent_tasks (company_id, status) select %s, 'failed' from generate_series(1, 99)",
            (OTHER,),
        )
    listed = tmp_path / "companies"
    words = ("--exclude-companies", str(listed), "--only", "alert/agent-success")
    listed.write_text("", encoding="utf-8")
    assert run(url, tmp_path, *words)["alert/agent-success"].outcome is Outcome.FAIL
    listed.write_text(f"{OTHER}\n{COMPANY}\n", encoding="utf-8")
    assert run(url, tmp_path, *words)["alert/agent-success"].outcome is Outcome.PASS


@pytest.mark.parametrize("role", ["replay_service_blind", "empty"])
def test_a_role_that_sees_nothing_judges_nothing(role: str, pg_server: PgServer, clone: str, tmp_path: Path) -> None:
    """If row security hides rows, checks of data neither pass nor fail."""
    with psycopg.connect(pg_server.url(clone), autocommit=True) as connection:
        connection.execute("drop role if exists blind")
        connection.execute("create role blind login password 'blindblind'")
        connection.execute("grant usage on schema public to blind")
        if role != "empty":
            connection.execute("grant select on all tables in schema public to blind")
            connection.execute("grant execute on all functions in schema public to blind")
        connection.execute("analyze")
    url = pg_server.url(clone).replace("//postgres:", "//blind:")
    password = pg_server.url(clone).partition("//")[2].partition(":")[2].partition("@")[0]
    found = run(url.replace(password, "blindblind"), tmp_path, "--only", "alert/*", "--only", "sql/spot/outbox*")
    with psycopg.connect(pg_server.url(clone), autocommit=True) as connection:
        connection.execute("drop owned by blind")
        connection.execute("drop role blind")
    assert found
    assert {e.outcome for e in found.values()} == {Outcome.UNKNOWN}


def test_a_trail_that_was_replaced_is_noticed(pg_server: PgServer, clone: str, tmp_path: Path) -> None:
    """A run remembers how far it verified; a trail that is replaced afterwards fails, however often it is run."""
    url, state = pg_server.url(clone), tmp_path / "state"
    words = ("--state", str(state), "--only", "sql/spot/audit-*")
    for _ in range(2):
        assert {e.outcome for e in run(url, tmp_path, *words).values()} == {Outcome.PASS}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("alter table public.audit_logs disable trigger audit_logs_append_only")
        connection.execute("truncate public.audit_logs, public.audit_heads")
        connection.execute("alter table public.audit_logs enable always trigger audit_logs_append_only")
        connection.execute(
            "insert into public.audit_logs (action, actor, scope) values ('dlq_replay', 'x', %s)", (COMPANY,)
        )
    for _ in range(2):
        found = run(url, tmp_path, *words)
        assert found["sql/spot/audit-chain"].outcome is Outcome.PASS
        assert found["sql/spot/audit-checkpoint"].outcome is Outcome.FAIL


def test_a_service_that_logs_in_as_superuser_is_seen(pg_server: PgServer, clone: str, tmp_path: Path) -> None:
    """While no role of the service is connected it fails `service-sessions-bound` alone, since it may be a monitor.
    A session that asks for logins is one of a pooler; of one that hides what it does nothing is said.
    """
    words = ("--only", "sql/spot/service-sessions*")
    bound, exempt = "sql/spot/service-sessions-bound", "sql/spot/service-sessions"
    with psycopg.connect(pg_server.url(clone), application_name="service", autocommit=True) as service:
        found = run(pg_server.url(clone), tmp_path, *words)
        assert (found[bound].outcome, found[exempt].outcome) == (Outcome.FAIL, Outcome.PASS)
        found = run(pg_server.url(clone, "replay_gate"), tmp_path, *words)
        assert (found[bound].outcome, found[exempt].outcome) == (Outcome.PASS, Outcome.PASS)
        service.execute("select usename, passwd from pg_shadow where usename = 'app'")
        found = run(pg_server.url(clone), tmp_path, *words)
        assert (found[bound].outcome, found[exempt].outcome) == (Outcome.PASS, Outcome.PASS)
    with psycopg.connect(pg_server.url(clone, "replay_service"), application_name="service"):
        found = run(pg_server.url(clone), tmp_path, *words)
        assert (found[bound].outcome, found[exempt].outcome) == (Outcome.PASS, Outcome.PASS)


def test_the_steps_of_the_plan(pg_server: PgServer, clone: str, tmp_path: Path) -> None:
    """A canary under the first step is no deviation; a rollout between two steps of the policy is one."""
    url, check = pg_server.url(clone), "sql/spot/flags-as-planned"
    for percent, steps, outcome in (
        (1, "", Outcome.PASS),
        (25, "", Outcome.FAIL),
        (25, "5,25,100", Outcome.PASS),
        (10, "5,25,100", Outcome.FAIL),
        (0, "5,25,100", Outcome.PASS),
    ):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "update public.feature_flags set rollout_percentage = %s where key = 'outbox.enabled'", (percent,)
            )
        found = run(url, tmp_path, "--only", check, *([f"--steps={steps}"] if steps else []))
        assert found[check].outcome is outcome, (percent, steps)
