"""What `gate doctor` writes: a valid draft, a preserved old file, and a working login."""

import datetime as dt
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gates import catalogue, config
from gates.contract.contract import contract
from gates.contract.names import Names
from gates.decision.policy_file import parse
from gates.deployment.dialect.current import AbsentColumn
from gates.deployment.dialect.relations import read
from gates.doctor.diagnosis import DatabaseView, judge
from gates.doctor.draft.draft import draft
from gates.doctor.draft.lines import comment, scalar
from gates.doctor.draft.writing import merged
from gates.doctor.matching.presets import SERVICE_ROLE, SUPABASE
from gates.doctor.matching.tables import guessed_tables
from gates.doctor.reading.schema import SchemaRole
from gates.evidence import TargetKind
from gates.operator.names_lint import against_target
from tests.gates.doctor.databases import SCHEMAS, TRUTH, database, schema_of
from tests.gates.gate_process import gate
from tests.postgres_fixture import TEMPLATE, PgServer

TODAY = dt.date(2026, 1, 1)
STATES = "case state when 0 then 'pending' else 'resolved' end"
WRITES = "(case {} when 'pending' then 0 else 1 end)::smallint"
PROVED = {"safety-rails", "authentication", "tokens", "dry-run", "idempotency", "rate-limit"}
"""The areas of which the proof drill shows a part."""


def drafted(server: PgServer, sql: str, folder: Path, template: str = "template0", *words: str) -> dict[str, Any]:
    """The gate.yaml that the doctor writes for a database."""
    with database(server, sql, template) as url:
        done = gate("doctor", "--write", *words, cwd=folder, environ={"DATABASE_URL": url})
    assert done.returncode in {0, 10}, done.stderr
    text = (folder / "gate.yaml").read_text(encoding="utf-8")
    parse(text, "gate.yaml", folder, TODAY)  # as every command reads it; raises at the first mistake
    data: dict[str, Any] = yaml.safe_load(text)
    return data


@pytest.mark.parametrize("name", TRUTH)
def test_the_draft_says_what_a_person_would(pg_server: PgServer, tmp_path: Path, name: str) -> None:
    """Every mapped table is right, and each guess has a comment."""
    data = drafted(pg_server, (SCHEMAS / f"{name}.sql").read_text(encoding="utf-8"), tmp_path)
    names = data["names"]
    home = names.get("schema", "public")
    for table, said in names["tables"].items():
        if said.get("absent") is True:
            assert table not in TRUTH[name] or name == "terse", table
            continue
        real = said.get("is", table)
        assert (real if "." in real else f"{home}.{real}") == TRUTH[name][table]["is"]
    text = (tmp_path / "gate.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if re.match(r"^        \w+: [^{]", line)]
    assert lines
    assert all(re.search(r"  # (sure|likely|perhaps|\w)", line) for line in lines)
    told = {line.split()[3].strip(";"): line for line in text.splitlines() if line.startswith("  # not claimed: ")}
    assert all(("nothing is promoted without it" in line) == (area in PROVED) for area, line in told.items())
    assert {"replay", "tenancy"} <= set(data["contract"]["claims"]) <= set(contract().areas)


def test_the_reference_needs_no_names(pg_server: PgServer, tmp_path: Path) -> None:
    """All is claimed, nothing is mapped, and the manifest is beside the policy."""
    data = drafted(pg_server, "", tmp_path, TEMPLATE)
    assert set(data["contract"]["claims"]) == set(contract().areas) - {"gate", "queue"}
    assert "names" not in data
    assert data["sql"] == {"manifest": "schema-manifest.json"}
    assert json.loads((tmp_path / "schema-manifest.json").read_text(encoding="utf-8"))["format"] == 1
    config.load_policy(tmp_path / "gate.yaml", TODAY).policy(catalogue.load(), TargetKind.PRODUCTION, "", deep=True)


def test_members_are_drafted_where_policies_look_the_caller_up(pg_server: PgServer, tmp_path: Path) -> None:
    """The membership table with its columns is drafted, and lint accepts it."""
    sql = (SCHEMAS / "members.sql").read_text(encoding="utf-8")
    data = drafted(pg_server, sql, tmp_path)
    assert data["names"]["members"] == {
        "is": "organization_members",
        "company": "organization_id",
        "user": "user_id",
        "users": ["auth.users", "public.profiles"],
        "also": {"invited_by": "'gate'", "role": "'admin'"},
    }
    assert "realtime" not in (tmp_path / "gate.yaml").read_text(encoding="utf-8")
    with database(pg_server, sql) as url:
        assert against_target(config.load_policy(tmp_path / "gate.yaml", TODAY), url) == []
        script = gate("doctor", "--grants", cwd=tmp_path, environ={"DATABASE_URL": url}).stdout
        wrong = (tmp_path / "gate.yaml").read_text(encoding="utf-8").replace("user: user_id", "user: usr_id")
        (tmp_path / "gate.yaml").write_text(wrong, encoding="utf-8")
        (problem,) = against_target(config.load_policy(tmp_path / "gate.yaml", TODAY), url)
    assert 'grant select, insert, delete on "public"."organization_members"' in script
    line = next(n for n, text in enumerate(wrong.splitlines(), 1) if "usr_id" in text)
    assert f"gate.yaml:{line}:" in problem
    assert "has no column 'usr_id'" in problem


def test_the_roles_of_supabase_are_the_platforms(pg_server: PgServer) -> None:
    """Its roles make the preset; service_role is drafted for nobody, and no remedy would change it."""
    roles = tuple(SchemaRole(n, bypasses=n == SERVICE_ROLE) for n in ("anon", "authenticated", SERVICE_ROLE))
    with database(pg_server, (SCHEMAS / "members.sql").read_text(encoding="utf-8")) as url:
        schema = schema_of(url)
    assert not schema.unread
    granted_all = tuple(replace(t, grantees=(SERVICE_ROLE,)) for t in schema.tables)
    schema = replace(schema, roles=roles, tables=granted_all)
    found = judge(DatabaseView(schema, guessed=guessed_tables(schema, contract(), {})), None, contract(), Names(), "")
    assert [p.name for p in found.presets] == [SUPABASE]
    data = yaml.safe_load(draft(replace(found, key="SUPABASE_ANON_KEY"), contract()))
    assert data["contract"]["preset"] == SUPABASE
    assert data["names"]["roles"] == {"replay_service": None, "replay_worker": None}
    assert any("organization_members" in text for text in schema.claim_readers.values())
    assert not any("realtime.topic" in text for text in schema.claim_readers.values())
    told = {d.subject: d for d in found.defects}
    assert "alter role" not in told[SERVICE_ROLE].remedy
    open_to_all = next(d for d in found.defects if "TRUNCATE" in d.seen)
    assert open_to_all.subject == "public.dead_letter_queue, public.event_outbox"
    assert data["checks"]["sql/spot/tenants-cannot-truncate"] == {"decides": "hold"}
    text = merged("version: 1\nchecks: {}\n", draft(found, contract()))
    assert yaml.safe_load(text)["checks"] == {}
    assert "checks" not in yaml.safe_load(draft(replace(found, presets=()), contract()))


def test_an_outbox_alone_claims_no_more_than_it_has(pg_server: PgServer, tmp_path: Path) -> None:
    """Dead letters are found under another name; nothing that needs runs is claimed, and lint agrees."""
    sql = (SCHEMAS / "outbox_app.sql").read_text(encoding="utf-8")
    data = drafted(pg_server, sql, tmp_path)
    tables = data["names"]["tables"]
    assert tables["dead_letter_queue"]["is"] == "outbox_deadletter"
    assert tables["event_outbox"]["is"] == "outbox_outboxmessage"
    assert "event_id" in tables["dead_letter_queue"]["absent"], "a number of the outbox is no id of an event"
    assert tables["replay_runs"] == tables["events"] == {"absent": True}
    assert "dead-letters" in data["contract"]["claims"]
    assert not {"idempotency", "outbox", "audit"} & {*data["contract"]["claims"]}
    text = (tmp_path / "gate.yaml").read_text(encoding="utf-8")
    assert re.search(r"# not claimed: idempotency; it lacks .*table replay_runs", text)
    with database(pg_server, sql) as url:
        assert against_target(config.load_policy(tmp_path / "gate.yaml", TODAY), url) == []


def test_each_absent_column_says_what_comes_of_it(pg_server: PgServer, tmp_path: Path) -> None:
    """It is read as null if the contract allows that; otherwise what needs it is unknown."""
    drafted(pg_server, (SCHEMAS / "outbox_app.sql").read_text(encoding="utf-8"), tmp_path)
    names = parse((tmp_path / "gate.yaml").read_text(encoding="utf-8"), "gate.yaml", tmp_path, TODAY).names
    said: dict[str, set[str]] = {}
    for line in (tmp_path / "gate.yaml").read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"        - (\w+)  # found nothing that is it: (.*)", line):
            said.setdefault(found[1], set()).add(found[2])
    assert {"aggregate_key", "claimed_until", "max_retries", "txid"} <= set(said)
    for table in ("event_outbox", "dead_letter_queue"):
        one = names.relations[table]
        for column in one.absent:
            try:
                assert "null" in read(one, names, column)
                assert "read as null" in said[column]
            except AbsentColumn:
                assert "checks that need it are unknown" in said[column]


NUMBERED = """\
create table dead_letters (like dead_letter_queue including defaults);
drop table dead_letter_queue cascade;
alter table dead_letters alter status drop default, alter status type integer using 0;
"""


def test_states_that_are_kept_as_numbers_are_asked_for(pg_server: PgServer, tmp_path: Path) -> None:
    """The draft has lines to fill in, which are valid once filled in."""
    drafted(pg_server, NUMBERED, tmp_path, TEMPLATE)
    file = tmp_path / "gate.yaml"
    text = file.read_text(encoding="utf-8")
    assert '      # values:\n      #   status: {pending: "?", replaying: "?", resolved: "?", discarded: "?"}' in text
    for number in "0123":
        text = text.replace('"?"', f'"{number}"', 1)
    file.write_text(text.replace("      # values:", "      values:").replace("      #   status", "        status"))
    with database(pg_server, NUMBERED, TEMPLATE) as url:
        assert not [p for p in against_target(config.load_policy(file, TODAY), url) if "status" in p]


def test_tables_that_go_with_a_tenant_are_not_asked_for(pg_server: PgServer, tmp_path: Path) -> None:
    """Of the tables outside the contract, only those are drafted as `own_tables` whose rows outlive a tenant."""
    kept = "create table kept (company_id uuid references companies);"
    gone = "create table gone (company_id uuid references companies on delete cascade)"
    drafted(pg_server, kept + gone, tmp_path, TEMPLATE)
    assert "# own_tables: {public.kept: company_id}  #" in (tmp_path / "gate.yaml").read_text(encoding="utf-8")


def test_a_known_queue_is_drafted_as_its_preset(pg_server: PgServer, tmp_path: Path) -> None:
    """pg-boss alone: the preset, no claims, no names; with that in place nothing is left to do."""
    sql = (SCHEMAS / "pgboss.sql").read_text(encoding="utf-8")
    data = drafted(pg_server, sql, tmp_path)
    assert data["contract"] == {"preset": "pg-boss"}
    assert "names" not in data
    with database(pg_server, sql) as url:
        done = gate("doctor", cwd=tmp_path, environ={"DATABASE_URL": url})
    assert done.returncode == 0, done.stdout
    assert "this looks like pg-boss" in done.stdout
    assert "absent" not in done.stdout


def test_a_file_that_is_there_is_not_overwritten(pg_server: PgServer, tmp_path: Path) -> None:
    """Without --force nothing changes; with it the other members stay, and the old file is kept as it was."""
    old = "# mine\nversion: 1\n\n# why we wait\nrollout: {bake_minutes: 5}\n\ncontract:\n  claims: [replay, tenancy]\n"
    path = tmp_path / "gate.yaml"
    path.write_text(old, encoding="utf-8")
    with database(pg_server, "", TEMPLATE) as url:
        done = gate("doctor", "--write", cwd=tmp_path, environ={"DATABASE_URL": url})
    assert (done.returncode, path.read_text(encoding="utf-8")) == (3, old)
    assert "--force" in done.stderr
    data = drafted(pg_server, "", tmp_path, TEMPLATE, "--force")
    assert data["rollout"] == {"bake_minutes": 5}
    assert len(data["contract"]["claims"]) > 2
    assert "# why we wait" in path.read_text(encoding="utf-8")
    kept = [p.read_text(encoding="utf-8") for p in tmp_path.glob("gate.yaml.*.bak")]
    assert kept == [old]


def test_what_a_person_said_survives_a_new_draft(pg_server: PgServer, tmp_path: Path) -> None:
    """Expressions, own tables and HTTP words are kept in the next draft."""
    said = {
        "tables": {"dead_letter_queue": {"columns": {"status": {"is": "state", "sql": STATES, "write": WRITES}}}},
        "own_tables": {"calls": "company_id"},
        "http": {"values": {"status": {"started": "accepted"}}, "metrics": {"dlq_items": None}},
        "token": {"roles": {"company_admin": "account"}},
    }
    sql = "alter table dead_letter_queue drop column status; alter table dead_letter_queue add column state smallint;"
    sql += "create table calls (company_id uuid references companies)"
    (tmp_path / "gate.yaml").write_text(yaml.safe_dump({"version": 1, "names": said}), encoding="utf-8")
    names = drafted(pg_server, sql, tmp_path, TEMPLATE, "--force")["names"]
    assert names["tables"]["dead_letter_queue"]["columns"]["status"] == {"is": "state", "sql": STATES, "write": WRITES}
    assert {part: names[part] for part in said if part != "tables"} == {k: v for k, v in said.items() if k != "tables"}


@pytest.mark.parametrize(
    "sql", ["sql: {require_checkpoint: true}\n", "sql:\n  require_checkpoint: true\n", "", "sql: {}\n"]
)
def test_the_manifest_joins_what_is_said_of_sql(sql: str) -> None:
    """Other `sql` settings stay in any style, and an existing manifest entry wins."""
    text = merged(f"version: 1\n{sql}", "contract:\n  claims: [replay, tenancy]\n", "m.json")
    data = yaml.safe_load(text)
    assert data["sql"]["manifest"] == "m.json"
    assert data["sql"].get("require_checkpoint", True) is True
    assert data["contract"] == {"claims": ["replay", "tenancy"]}
    assert yaml.safe_load(merged(text, "contract: {}\n", "other.json"))["sql"]["manifest"] == "m.json"


def test_what_a_person_has_said_is_no_guess(pg_server: PgServer, tmp_path: Path) -> None:
    """Mapped tables are certain; one that does not exist is named with its place."""
    sql = (SCHEMAS / "django.sql").read_text(encoding="utf-8")
    with database(pg_server, sql) as url:
        environ = {"DATABASE_URL": url}
        assert gate("doctor", "--write", cwd=tmp_path, environ=environ).returncode == 10
        again = json.loads(gate("doctor", "--json", cwd=tmp_path, environ=environ).stdout)
        path = tmp_path / "gate.yaml"
        text = path.read_text(encoding="utf-8").replace("is: core_account", "is: core_acount")
        path.write_text(text.replace("retry_count: tries", "retry_count: trys"), encoding="utf-8")
        wrong = json.loads(gate("doctor", "--json", cwd=tmp_path, environ=environ).stdout)
    said = {f"{o['kind']} {o['name']}": o for o in again["objects"]}
    assert {o["detail"] for o in said.values() if o["kind"] == "table"} == {"gate.yaml says so"}
    seen = {f"{o['kind']} {o['name']}": o for o in wrong["objects"]}
    lines = path.read_text(encoding="utf-8").splitlines()
    for name, typo in (("table companies", "core_acount"), ("column dead_letter_queue.retry_count", "trys")):
        place, _, detail = seen[name]["detail"].partition(": ")
        file, line, column = place.split(":")
        assert file == "gate.yaml"
        assert lines[int(line) - 1][int(column) - 1 :].startswith(typo)
        assert re.fullmatch(rf"gate\.yaml says (public\.)?{typo}, which is not there", detail)


@given(st.text(max_size=80))
def test_any_name_is_one_value_and_any_comment_ends_with_its_line(text: str) -> None:
    """YAML reads every name back unchanged, and no comment becomes a member."""
    name = text.encode("utf-8", "replace").decode()
    line = f"a: {scalar(name)}{comment(name, name)}"
    assert len(line.splitlines()) == 1
    assert yaml.safe_load(f"{line}\nb: 1\n") == {"a": name, "b": 1}


@contextmanager
def granted(server: PgServer, url: str, folder: Path) -> Iterator[str]:
    """A login made by the --grants script, which ran twice, and its URL."""
    done = gate("doctor", "--grants", "doctor_gate", cwd=folder, environ={"DATABASE_URL": url})
    assert done.returncode == 0, done.stderr
    told: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:
        script = done.stdout.replace(":'gate_password'", "'granted-pw'").encode()
        try:
            connection.add_notice_handler(lambda notice: told.append(str(notice.message_primary)))
            for _ in range(2):
                connection.execute(script)
            assert not told, "who runs the script reads what is no news"
            yield psycopg.conninfo.make_conninfo(url, user="doctor_gate", password="granted-pw")
        finally:
            connection.execute("drop owned by doctor_gate; drop role doctor_gate")


@pytest.mark.parametrize("name", ["reference", "supabase", "typeorm"])
def test_the_login_of_the_script_sees_all_and_writes_its_own(pg_server: PgServer, tmp_path: Path, name: str) -> None:
    """On the reference and under foreign names: no superuser, not blind, and no row of a tenant that is not its own."""
    sql = "" if name == "reference" else (SCHEMAS / f"{name}.sql").read_text(encoding="utf-8")
    with (
        database(pg_server, sql, TEMPLATE if name == "reference" else "template0") as url,
        granted(pg_server, url, tmp_path) as login,
    ):
        done = gate("doctor", "--json", cwd=tmp_path, environ={"DATABASE_URL": login})
        seen = {d["seen"] for d in json.loads(done.stdout)["defects"]}
        assert not {s for s in seen if "this login" in s or "gate's login" in s}
        if name == "reference":
            with psycopg.connect(login, autocommit=True) as connection:
                connection.execute("insert into companies (name) values ('drill-doctor')")
                connection.execute("update feature_flags set enabled = false")
                for refused in ("insert into companies (name) values ('a customer')", "delete from audit_logs"):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(refused.encode())


def test_the_commented_lines_of_the_script_let_deep_drills_end_sessions_and_hold_heads(
    pg_server: PgServer, tmp_path: Path
) -> None:
    """Without them the login locks no head; with them it may end sessions and locks a head of a trail."""
    with database(pg_server, "", TEMPLATE) as url, granted(pg_server, url, tmp_path) as login:
        done = gate("doctor", "--grants", "doctor_gate", cwd=tmp_path, environ={"DATABASE_URL": url})
        deep = re.findall(r"^-- ((?:grant|drop policy|create policy) .*;)$", done.stdout, re.MULTILINE)
        with psycopg.connect(url, autocommit=True) as owner, psycopg.connect(login, autocommit=True) as gates_own:
            owner.execute("select from audit_heads for update")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                gates_own.execute("select from audit_heads for update")
            for line in deep:
                owner.execute(line.encode())
            gates_own.execute("select from audit_heads for update")
            assert gates_own.execute("select pg_has_role('pg_signal_backend', 'usage')").fetchone() == (True,)


def test_no_name_adds_a_statement_to_the_script_of_a_login(pg_server: PgServer, tmp_path: Path) -> None:
    """Each line is our statement or comment for that very table, whatever it is called."""
    name = 'audit_heads\ncreate role doctor_evil superuser; -- \u202e"\\'
    quoted = psycopg.sql.Identifier(name).as_string()
    with database(pg_server, f"alter table public.audit_heads rename to {quoted}", TEMPLATE) as url:
        with granted(pg_server, url, tmp_path) as login, psycopg.connect(login) as connection:
            connection.execute(f"select from public.{quoted}".encode())
            evil = connection.execute("select from pg_roles where rolname = 'doctor_evil'").fetchall()
        done = gate("doctor", "--grants", cwd=tmp_path, environ={"DATABASE_URL": url})
    assert evil == []
    of_rights = ("alter role ", "grant ", "drop policy ", "create policy ")
    ours = ("--", "begin;", "do ", "exception ", *of_rights, "commit;")
    assert [line for line in done.stdout.splitlines() if not line.startswith(ours)] == []
