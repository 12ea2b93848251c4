"""`gate rehearse` against folders of migrations: healthy ones run, and each planted mistake is found at its place."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gates.errors import ConfigError, UsageError
from gates.rehearsal.command import rehearsal
from gates.rehearsal.obstacles import at
from gates.rehearsal.postgres.installation import versions
from gates.rehearsal.reading.sources import read_migrations
from gates.rehearsal.report import RehearsalResult
from tests.gates.gate_process import gate
from tests.gates.rehearsal.rehearsed import APP, MARK
from tests.launched import launched
from tests.sources import ROOT
from tests.waiting import until


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary directory that PostgreSQL's user can enter; it must be empty at the end."""
    with tempfile.TemporaryDirectory(prefix="replaygate-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []


def rehearsed(path: Path, text: str = "", **options: Any) -> RehearsalResult:
    """The rehearsal of the migrations there; a given text is written there first."""
    if text:
        path.write_text(text, encoding="utf-8")
    return rehearsal(read_migrations(path), os.environ, **options)


BODIES = (
    ("select ‸nn into v_n from public.companies", "42703", "a column nn in companies"),
    ("select c.name into v_t from public.companies c where ‸c.ids = p_id", "42703", "a column ids in companies"),
    ("perform ‸public.not_there(p_id, v_n)", "42883", "No migration makes the function public.not_there"),
    ("insert into public.companies (‸named) values (v_t)", "42703", "the nearest is companies.name"),
    ("v_n := (select count(*) from ‸public.nobody)", "42P01", "No migration makes the table or view public.nobody"),
    ("if p_id ‸= v_t then null; end if", "42883", "no = between uuid and text"),
    (
        "for v_n in select ‸o.seen from public.event_outbox o loop null; end loop",
        "42703",
        "a column seen in event_outbox",
    ),
    ("return query select ‸m.tier from public.memberships m", "42703", "a column tier in memberships"),
    ("raise notice '%', (select ‸attempts from public.event_outbox)", "42703", "was renamed to attempt_count at"),
    ("begin null; exception when others then delete from ‸public.errs; end", "42P01", "public.errs"),
)
"""Statements of a PL/pgSQL body with a mistake behind the mark."""


def test_mistakes_in_function_bodies_are_found_without_a_call(tmp_path: Path) -> None:
    """Each has its line and column, in triggers too; what cannot be known is not reported."""
    shutil.copytree(APP, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "supabase" / "migrations" / "20240601000000_bodies.sql"
    lines = [
        "create function public.bodies(p_id uuid) returns setof text language plpgsql as $body$",
        "declare v_n int; v_t text; v_r record;",
        "begin",
        *(f"  {text};" for text, _, _ in BODIES),
        "  select * into v_r from public.companies;",
        "  update public.companies set name = v_r.name where id = v_r.id;  -- a record: not known, and not blamed",
        "  execute format('delete from %I where ids = 1', v_t);",
        "end $body$;",
        "create function public.stamp() returns trigger language plpgsql as $$ begin",
        "  if ‸new.modified is null then return old; end if;",
        "  new.name := upper(new.name) || tg_op;",
        "  return new;",
        "end $$;",
        "create trigger stamp before update on public.companies for each row execute function public.stamp();",
    ]
    path.write_text("\n".join(lines).replace(MARK, ""), encoding="utf-8")
    result = rehearsed(tmp_path)
    assert result.obstacles == ()
    wanted = [(n, line.index(MARK) + 1) for n, line in enumerate(lines, 1) if MARK in line]
    assert [(o.place.line, o.place.column) for o in result.bodies] == wanted
    for (_, code, says), found in zip(BODIES, result.bodies, strict=False):
        assert (found.code, says in found.meaning) == (code, True), found
    assert result.exit_code == 10


def test_what_many_statements_miss_is_one_cause(tmp_path: Path) -> None:
    """A role that three statements miss is one cause with two consequences."""
    path = tmp_path / "grants.sql"
    grants = "grant select on t to reporting;\n" * 3
    path.write_text(f"create table t (id int);\n{grants}", encoding="utf-8")
    result = rehearsed(path)
    assert [o.kind for o in result.obstacles] == ["cause", "follows", "follows"]
    assert rehearsed(path, roles=["reporting"]).exit_code == 0


def test_defects_by_the_contract_are_named_before_the_deploy(tmp_path: Path) -> None:
    """A table without row-level security is named as by the doctor, with exit code 10."""
    for source in (ROOT / "replay_service" / "migrations").glob("*.sql"):
        text = source.read_text(encoding="utf-8")
        text += "\nreset role;\nalter table public.events disable row level security;\n" * ("20241202" in source.name)
        (tmp_path / source.name).write_text(text, encoding="utf-8")
    result = rehearsed(tmp_path)
    assert (result.obstacles, result.exit_code) == ((), 10)
    assert result.contract is not None
    assert [(d.subject, d.seen) for d in result.contract.defects] == [("public.events", "row-level security is off")]
    assert any("differs: row security events" in line for line in result.contract.lines())


def test_a_healthy_app_runs_whole() -> None:
    """Supabase's layout is seen; platform, extensions and seed are there; each stub is named; exit code 0."""
    result = rehearsed(APP)
    assert result.obstacles == ()
    assert (result.exit_code, result.preset, result.files) == (0, "supabase", 3)
    assert {"schema auth", "extension pg_cron", "extension uuid-ossp"} <= set(result.stubs)
    assert result.again is not None
    assert result.again.failed > 0
    assert not any("cannot run" in note for note in result.notes)


def test_what_extensions_and_platforms_have_is_there(tmp_path: Path) -> None:
    """Functions and tables of queue, job, request and login extensions exist."""
    result = rehearsed(
        tmp_path / "calls.sql",
        "create extension pgmq; create extension pg_cron; create extension http; create extension pgjwt cascade;\n"
        "select pgmq.create('a'), pgmq.create_unlogged('b'), pgmq.create_partitioned('c', '1 day', '7 days');\n"
        "select pgmq.send('a', '{}'), pgmq.send('a', '{}', 5), pgmq.send_batch('a', array['{}'::jsonb]);\n"
        "select msg_id from pgmq.read('a', 30, 1); select msg_id from pgmq.read_with_poll('a', 1, 1, 1, 100);\n"
        "select pgmq.delete('a', 1), pgmq.delete('a', array[1]), pgmq.archive('a', array[1]), pgmq.set_vt('a', 1, 3);\n"
        "select pgmq.purge_queue('a'); select queue_length from pgmq.metrics('a'); select * from pgmq.list_queues();\n"
        "select cron.schedule_in_database('a', '* * * * *', 'select 1', 'postgres');\n"
        "select content from http(('GET', 'x', array[http_header('a', 'b')], null, null)::http_request);\n"
        "select sign('{}'::json, 's'), armor('a');\n"
        "select token from auth.refresh_tokens; select status from auth.mfa_factors; select auth.uid();\n"
        "select payload from auth.audit_log_entries; alter role authenticator set pgrst.db_schemas = 'public,api';\n",
    )
    assert (result.obstacles, result.exit_code) == ((), 0)


def test_the_reference_runs_whole_without_a_preset() -> None:
    """It makes the platform's roles and schema itself."""
    result = rehearsed(ROOT / "replay_service" / "migrations")
    assert result.obstacles == ()
    assert (result.preset, result.exit_code) == ("none", 0)


@pytest.mark.parametrize(
    ("name", "content", "place", "says"),
    [
        ("a.sql", b"select 1;\nselect 'never ends;\n", ":2:8: ", "unterminated quoted string"),
        ("b.sql", b"select 1; /* never /* ends */", ":1:11: ", "unterminated /* comment"),
        ("c.sql", b"select 1;\nselect \xff;", ":2:8: ", "the byte 0xff"),
        ("d.sql", b"PGDMP\x01\x0e", ":1:1: ", "pg_restore -f"),
        ("e.sql", b"select\x00 1;", ":1:7: ", "a NUL character"),
        ("f.md", b"text 'with one quote\n\n```sql\nselect $$ open\n```\n", ":4:8: ", "unterminated dollar-quoted"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(
    name: str, content: bytes, place: str, says: str, tmp_path: Path
) -> None:
    """File, line and column are named, and no server is started."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        rehearsal(read_migrations(path), {"TMPDIR": "/nowhere"})
    assert f"{path}{place}" in str(raised.value)
    assert says in str(raised.value)


def test_a_folder_without_migrations_says_where_some_are(tmp_path: Path) -> None:
    """If the platform's folder is empty, the one that has SQL is named. A path that is not there is another error."""
    folder = tmp_path / "db" / "sql"
    folder.mkdir(parents=True)
    (tmp_path / "supabase" / "migrations").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"no migration was found; .* fences\. Name the folder"):
        read_migrations(tmp_path)
    (folder / "1.sql").write_text("select 1;", encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(f"fences ({folder} has some). Name the folder")):
        read_migrations(tmp_path)
    with pytest.raises(UsageError, match="there is no such file or folder"):
        read_migrations(tmp_path / "nowhere")


def test_a_foreign_app_runs_whole() -> None:
    """The edge-function example runs with its platform's roles."""
    roles = ["edge_api", "edge_owner", "edge_relay"]
    result = rehearsed(ROOT / "examples" / "edge-function", roles=roles)
    assert (result.obstacles, result.bodies, result.exit_code) == ((), (), 0)
    assert result.contract is not None
    assert result.contract.alike


def test_the_tables_of_any_application_are_not_asked_for_what_the_contract_asks(tmp_path: Path) -> None:
    """A chat with events, flags and a rate limit is no replay service, so it needs no row security."""
    script = tmp_path / "chat.sql"
    script.write_text(
        "create table users (user_id text primary key, name text not null);"
        "create table events (event_id text primary key, user_id text references users, type text, payload text,"
        " received_at timestamptz not null);"
        "create table rate_limits (user_id text primary key, count bigint, window_start timestamptz);"
        "create table feature_flags (key text primary key, enabled boolean, rollout_percentage int);"
    )
    result = rehearsed(script)
    assert result.contract is not None
    assert (result.contract.alike, result.contract.defects, result.exit_code) == (False, (), 0)


def test_an_unknown_version_names_those_that_are_there() -> None:
    """The embedded one, and what the system has."""
    with pytest.raises(UsageError, match=r"allowed: .*18"):
        rehearsed(APP, version=11)


@pytest.mark.skipif(not versions(), reason="no PostgreSQL is installed beside the embedded one")
def test_another_version_of_the_server_has_the_same_platform() -> None:
    """The healthy app runs on the oldest PostgreSQL that is installed."""
    version = min(versions())
    result = rehearsed(APP, version=version)
    assert (result.obstacles, result.server_version) == ((), version)


def test_an_endless_statement_is_ended_and_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the migration switches the server's own limit off, as dumps do; so many rows end it as well."""
    monkeypatch.setattr("gates.rehearsal.execution.STATEMENT_LIMIT_S", 1)
    monkeypatch.setattr("gates.rehearsal.postgres.server.STATEMENT_LIMIT_S", 1)
    result = rehearsed(
        tmp_path / "slow.sql",
        "do $$ begin loop null; end loop; end $$; set statement_timeout = 0;"
        "\nselect pg_sleep(600);\nselect * from generate_series(1, 1000000000);\nselect 1;\n",
    )
    assert [(o.place.line, o.kind) for o in result.obstacles] == [(n, "not judged") for n in (1, 2, 3)]


def test_a_dump_is_restored_as_a_superuser_does_it(tmp_path: Path) -> None:
    """A role that may make nothing in a schema owns a table there; in a migration that is not judged."""
    text = (
        "create schema app;\ncreate role reader;\ncreate table app.t (id int);\nalter table app.t owner to reader;\n"
        "do $$ begin assert not has_schema_privilege('reader', 'app', 'create'); end $$;\n"
    )
    (tmp_path / "dump.sql").write_text(f"-- PostgreSQL database dump\n{text}", encoding="utf-8")
    (tmp_path / "plain.sql").write_text(text, encoding="utf-8")
    assert rehearsed(tmp_path / "dump.sql").obstacles == ()
    (one,) = rehearsed(tmp_path / "plain.sql").obstacles
    assert (one.kind, one.place.line) == ("not judged", 4)
    assert "GRANT CREATE ON SCHEMA app" in one.remedy


def test_psqls_variables_and_branches_are_taken_as_psql_does(tmp_path: Path) -> None:
    """Values that are set stand in the statements, at the places of the file; one branch is run, a nested one, too."""
    result = rehearsed(
        tmp_path / "script.sql",
        "\\set tbl a_long_name_of_a_table\n\\set on true\n"
        "create table :tbl (id int);\nselect idd, :'tbl' from :\"tbl\";\n"
        "\\if :{?nothing}\n\\if :on\nselect 1 from nowhere;\n\\endif\n\\elif :on\ncreate table b (id int);\n\\else\n"
        "create table b (text text);\n\\endif\nselect id from b;\n"
        "\\if :unknown\nselect 1;\n\\endif\nselect :unknown from b;\n",
    )
    found = [(o.place.line, o.place.column, o.kind.value) for o in result.obstacles]
    assert found == [(4, 8, "cause"), (18, 8, "not judged"), (15, 1, "not judged")]


def test_a_dump_runs_with_its_rows_and_without_psql_commands(tmp_path: Path) -> None:
    """COPY rows are written, psql's commands skipped with a word, and roles that the dump only names are made."""
    result = rehearsed(
        tmp_path / "dump.sql",
        "-- PostgreSQL database dump\n\\restrict abc'd\n\nSET statement_timeout = 0;\n"
        "SELECT pg_catalog.set_config('search_path', '', false);\n"
        "CREATE TABLE public.notes (id integer NOT NULL, text text);\nALTER TABLE public.notes OWNER TO app_owner;\n"
        "COPY public.notes (id, text) FROM stdin;\n1\tit's; \\\\ $$ here\n2\t\\N\n\\.\n\n"
        "ALTER TABLE ONLY public.notes ADD CONSTRAINT notes_pkey PRIMARY KEY (id);\n"
        "DO $$ BEGIN ASSERT (SELECT count(*) FROM public.notes) = 2; END $$;\n"
        "GRANT SELECT ON TABLE public.notes TO app_reader;\n\\unrestrict abc'd\n",
    )
    assert result.obstacles == ()
    assert any("app_owner, app_reader" in note for note in result.notes)
    assert any("\\restrict, \\unrestrict" in note for note in result.notes)


def test_a_dump_of_a_platform_finds_the_platform_there(tmp_path: Path) -> None:
    """Roles that the preset makes are not made twice, whether the dump names them or the user does."""
    result = rehearsed(
        tmp_path / "dump.sql",
        "-- PostgreSQL database dump\nCREATE TABLE public.t (id uuid DEFAULT auth.uid());\n"
        "ALTER TABLE public.t OWNER TO app;\nGRANT ALL ON TABLE public.t TO anon;\n",
        roles=["anon", "postgres", "app", "app"],
    )
    assert (result.obstacles, result.preset) == ((), "supabase")


def test_migrations_that_lock_themselves_out_are_rehearsed_to_the_end(tmp_path: Path) -> None:
    """A new password, no connections, a session that ends itself: the next statement and file run all the same."""
    (tmp_path / "1.sql").write_text("alter role postgres password 'x';\n", encoding="utf-8")
    (tmp_path / "2.sql").write_text(
        "select pg_terminate_backend(pg_backend_pid());\nalter database rehearsal connection limit 0;\n"
        "create table t (id int);\n",
        encoding="utf-8",
    )
    (tmp_path / "3.sql").write_text("select idd from t;\n", encoding="utf-8")
    result = rehearsed(tmp_path)
    assert [Path(o.place.file).name for o in result.obstacles] == ["2.sql", "3.sql"]
    assert (result.obstacles[0].place.line, result.obstacles[1].code) == (1, "42703")


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    """Included SQL is not judged, so it is no success; files in subfolders are named."""
    (tmp_path / "1.sql").write_text("\\set x 1\nselect 1;\n\\i other.sql\nselect 'x' \\gexec\n", encoding="utf-8")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "2.sql").write_text("select 2;\n", encoding="utf-8")
    result = rehearsed(tmp_path)
    assert [(o.place.line, o.kind) for o in result.obstacles] == [(3, "not judged"), (4, "not judged")]
    assert result.exit_code == 10
    assert any("not run: 1 file (.sql) in subfolders" in note for note in result.notes)


def test_fences_of_markdown_run_in_their_order_with_its_lines(tmp_path: Path) -> None:
    """Only SQL in fences is run; a fence ends its last statement; indented fences and other languages are known."""
    path = tmp_path / "steps.md"
    result = rehearsed(
        path,
        "# It's a title\n\n```sql\ncreate table t (id int)\n```\n\n```bash\nrm -rf 'x\n```\n\n"
        "1. step\n\n   ```sql\n   select idd from t;\n   ```\n",
    )
    assert [at(o.place) for o in result.obstacles] == [f"{path}:14:11"]


def test_the_command_prints_its_findings_and_leaves_nothing(tmp_path: Path, place: Path) -> None:
    """Exit codes 0 and 10, the same as data with --json; the temporary folder is empty at the end."""
    good, bad = tmp_path / "good.sql", tmp_path / "bad.sql"
    good.write_text("create table t (id int);\n", encoding="utf-8")
    bad.write_text('create table t (id int);\nselect "\x1b[31midd" from t;\n', encoding="utf-8")
    environ = {**os.environ, "TMPDIR": str(place)}
    done = gate("rehearse", str(good), environ=environ)
    assert (done.returncode, "REHEARSAL: all 1 statement in 1 file run" in done.stdout) == (0, True), done.stderr
    done = gate("rehearse", str(bad), "--json", environ=environ)
    (one,) = json.loads(done.stdout)["obstacles"]
    assert (one["file"], one["line"], one["column"], one["kind"]) == (str(bad), 2, 8, "cause")
    done = gate("rehearse", str(bad), environ=environ)
    assert done.returncode == 10
    assert f"cannot run {bad}:2:8" in done.stdout
    assert "\x1b" not in done.stdout


def test_an_interrupt_leaves_nothing(tmp_path: Path, place: Path) -> None:
    """Ctrl-C while its server is up exits with 130, and leaves no folder."""
    path = tmp_path / "slow.sql"
    path.write_text("select pg_sleep(25);\n", encoding="utf-8")
    process = subprocess.Popen(
        launched(sys.executable, "-m", "gates", "rehearse", str(path)),
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(place)},
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: any(place.glob("replaygate-*/pg/data/postmaster.pid")), 60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
