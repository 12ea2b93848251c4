"""Rehearsed SQL is foreign: it can reach nothing but its own database, and cannot end or hang the rehearsal."""

import os
import secrets
import tempfile
from pathlib import Path

import pytest

from gates.rehearsal.command import rehearsal
from gates.rehearsal.postgres.installation import versions
from gates.rehearsal.reading.sources import read_migrations


def test_nothing_foreign_gets_out_of_the_server(tmp_path: Path) -> None:
    """Programs, files, other servers, untrusted languages and more rights are refused, on every version."""
    witness = tmp_path / "witness"
    doors = [
        "grant pg_execute_server_program to postgres",
        f"copy (select 1) to program 'touch {witness}'",
        f"copy (select 1) to '{witness}'",
        f"do $$ begin execute 'copy (select 1) to program ''touch {witness}'''; end $$",
        "select pg_read_file('/etc/passwd')",
        "select lo_import('/etc/passwd')",
        "create extension dblink",
        "create extension file_fdw",
        "alter system set archive_command = 'touch /tmp/x'",
        "create function c() returns int language c as '/lib/x.so', 'y'",
        "set role rehearsal_admin",
        "alter role postgres superuser",
        "update pg_catalog.pg_authid set rolsuper = true",
        "create subscription s connection 'host=192.0.2.1' publication p",
    ]
    path = tmp_path / "doors.sql"
    path.write_text(";\n".join(doors) + ";\n", encoding="utf-8")
    for version in {None, *versions()}:
        result = rehearsal(read_migrations(path), os.environ, version=version)
        assert [o.place.line for o in result.obstacles] == list(range(1, len(doors) + 1))
        assert not witness.exists()


PLANTED = """
create function public.planted(name, name) returns boolean language plpgsql as $$
begin
  if (select rolsuper from pg_catalog.pg_roles where rolname operator(pg_catalog.=) current_user) then
    execute 'copy (select 1) to program ''touch WITNESS''';
  end if;
  return $1 operator(pg_catalog.=) $2;
end $$;
create function public.planted(text, text) returns boolean language sql as 'select public.planted($1::name, $2::name)';
create function public.planted(text[], text) returns text[] language sql as
  'select case when public.planted($2, $2) then pg_catalog.array_append($1, $2) end';
create operator public.= (leftarg = text, rightarg = text, function = public.planted);
create aggregate public.array_agg(text) (sfunc = public.planted, stype = text[]);
alter database rehearsal set search_path = public, pg_catalog;
create table public.made (at timestamptz);
create index on public.made ((at::text));
"""


def test_no_superuser_runs_what_the_migrations_planted_for_him(tmp_path: Path) -> None:
    """A planted operator or aggregate on every search path cannot start a program."""
    witness = Path(tempfile.gettempdir()) / f"planted-{secrets.token_hex(8)}"  # where the server's account may write
    path = tmp_path / "planted.sql"
    path.write_text(PLANTED.replace("WITNESS", str(witness)), encoding="utf-8")
    try:
        result = rehearsal(read_migrations(path), os.environ)
        assert not witness.exists()
    finally:
        witness.unlink(missing_ok=True)
    assert [o.code for o in result.obstacles] == ["42P17"]


HINDRANCES = """
create table public."tür" (a int);
create function public.asks() returns void language plpgsql as $$ begin perform nope from "tür"; end $$;
create function public.triggered() returns trigger language plpgsql as $$ begin perform 1; end $$;
create function public.endless(oid, oid) returns boolean language plpgsql as $$ begin loop null; end loop; end $$;
create operator public.= (leftarg = oid, rightarg = oid, function = public.endless);
alter role postgres set client_encoding = 'SQL_ASCII';
alter role postgres set idle_session_timeout = 1;
alter database rehearsal set search_path = public, pg_catalog;
set statement_timeout = 0; set search_path = public, pg_catalog;
create table public.last (a int);
create trigger asks before insert on public.last for each row execute function public.triggered();
"""


def test_no_setting_of_migrations_ends_or_hangs_the_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that end, names as bytes and an endless operator neither stop the rehearsal nor exceed its limits."""
    monkeypatch.setattr("gates.rehearsal.execution.STATEMENT_LIMIT_S", 1)
    monkeypatch.setattr("gates.rehearsal.postgres.server.STATEMENT_LIMIT_S", 2)
    path = tmp_path / "hindrances.sql"
    path.write_text(HINDRANCES, encoding="utf-8")
    result = rehearsal(read_migrations(path), os.environ)
    assert result.obstacles == ()
    assert [o.code for o in result.bodies] == ["42703"]
