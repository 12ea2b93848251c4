"""`gate rehearse` and PL/pgSQL bodies: what it finds, what it leaves alone, what it cannot read."""

import os
from pathlib import Path

import pytest

from gates.rehearsal.command import rehearsal
from gates.rehearsal.reading.sources import read_migrations
from gates.rehearsal.report import RehearsalResult
from tests.gates.rehearsal.rehearsed import MARK

SCHEMA = """\
create schema app;
create type app.kind as enum ('a', 'b');
create table app.orders (id int primary key, status text, kind app.kind);
create table public.lines (id int primary key, order_id int, note text);
"""
BROKEN = {
    "a field of a row": "declare v app.orders%rowtype;\nbegin\n  ‸v.statuz := 'x';\n  delete from ‸nope;\nend",
    "a field of a composite": "declare v app.orders;\nbegin\n  if ‸v.statuz = 'x' then null; end if;\nend",
    "a target of INTO": "declare v app.orders%rowtype;\nbegin\n  select 'x' into v.status;\n  delete from ‸nope;\nend",
    "a type of another schema": "declare k app.kind := 'a';\nbegin\n  delete from ‸nope where k = 'b';\nend",
    "a table beside a record": (
        "declare r record;\nbegin\n  for r in select id from app.orders loop\n"
        "    insert into ‸nope values (r.id);\n    update lines set ‸nota = r.id where id = r.id;\n  end loop;\nend"
    ),
    "a table beside an alias": "declare v int; n alias for v;\nbegin\n  delete from ‸nope where id = n;\nend",
    "a function of a record": "declare r record;\nbegin\n select 1 id into r;\n perform ‸nope(r.id, to_json(r));\nend",
}
"""Bodies of functions with mistakes behind the marks."""
HEALTHY = """\
create function app.f(p app.kind, inout w app.orders, n int default 1) language plpgsql as $$
<<here>>
declare v app.orders%rowtype; r record; c cursor for select id from lines; o constant app.kind := 'b'; s text[];
begin
  select * into v from app.orders where kind = p or kind = o or id = f.n;
  v.status := v.status || here.n::text;
  w.status := v.status;
  for r in select l.id, l.note, array[l.id] as ids from lines l loop
    insert into lines (id, note) values (r.id, r.note) on conflict (id) do nothing;
    perform jsonb_build_object('a', r.note, 'b', r), r.ids[1], (r).id, coalesce(r.note, 'r.nope');
    perform 1 from lines r where r.note is null;
    s[1] := r.note;
  end loop;
  for r in c loop
    update lines set note = r.id::text where id = r.id;
  end loop;
  create temp table scratch (id int);
  insert into scratch values (r.id);
end $$;
create function app.touch() returns trigger language plpgsql as $$
begin
  new.status := upper(new.status);
  insert into lines (id, note) values (new.id, to_jsonb(old)->>'gone') on conflict do nothing;
  return new;
end $$;
create trigger touch before update on app.orders for each row execute function app.touch();
create function app.nameless(int, app.orders) returns setof text language plpgsql as $$
declare wanted alias for $1; row_ alias for $2; again alias for wanted;
begin
  return query select note from lines where id = wanted + again and note <> row_.status and order_id > $1;
end $$;
create function app.unnamed(bigint, text) returns setof bigint language plpgsql as $$
begin
  if $1 > 0 then return query select id::bigint from lines where id = $1 and note = $2; end if;
end $$;
create function app.called_alike() returns void language plpgsql as $$
declare k app.kind; n int;
begin
  select l.id, o.kind into n, k from lines l join app.orders o on o.id = l.order_id limit 1;
  perform 1 from app.orders k where k.id = n;
end $$;
create function app.one_out(in_name text, out version int) returns setof int language plpgsql as $$
begin
  return query select id from lines where note = in_name;
end $$;
create function app.unattached() returns trigger language plpgsql as 'begin new.whatever := 1; return new; end';
create function app.gone() returns void language plpgsql as $$ begin delete from nope; end $$;
drop function app.gone();
create function app.v1(variadic a app.kind[]) returns int language plpgsql as $$
begin return array_length(a, 1); end $$;
create function app.v2(p app.orders.id%type, q app.orders default null) returns app.orders language plpgsql as $$
declare x app.orders.id%type; y app.orders[]; begin x := p; y[1] := q; return q; end $$;
create function app.v3(out a int, out b app.kind) returns setof record language plpgsql as $$
declare k app.kind; n int; begin
  for a, b in select id, kind from app.orders loop return next; end loop;
  select id, kind into n, k from app.orders;
end $$;
create function app.v4(c refcursor) returns setof app.orders language plpgsql as $$
declare o app.orders; begin
  open c for select * from app.orders; fetch c into o; o.status := 'x'; return next o; return;
end $$;
create function app.v5(k app.kind default 'a'::app.kind) returns table (id int, of app.kind) language plpgsql as $$
#variable_conflict use_column
begin return query select o.id, o.kind from app.orders o where kind = k; end $$;
create procedure app.v6(inout x int) language plpgsql as $$ begin call app.v6(x); commit; end $$;
create function app.v7() returns event_trigger language plpgsql as $$ declare r record; begin
  for r in select * from pg_event_trigger_ddl_commands() loop raise notice '%', r.object_identity; end loop;
end $$;
do $$ begin
  create table later (id int, old_name int);
  if exists (select from later) then insert into later values (1, 2); update later set old_name = 1; end if;
  alter table later rename old_name to new_name;
end $$;
do $$ begin if to_regclass('elsewhere') is not null then update elsewhere set x = 1; end if; end $$;
do $$ begin
  if false then delete from elsewhere; end if;
exception when undefined_table then null; end $$;
"""


def rehearsed(tmp_path: Path, text: str) -> RehearsalResult:
    path = tmp_path / "a.sql"
    path.write_text(text.replace(MARK, ""), encoding="utf-8")
    return rehearsal(read_migrations(path), os.environ, preset="none")


def marks(text: str) -> list[tuple[int, int]]:
    """The places of the marks, not counting earlier marks in the line."""
    lines = enumerate(text.split("\n"), 1)
    return [(n, line.replace(MARK, "", i).index(MARK) + 1) for n, line in lines for i in range(line.count(MARK))]


@pytest.mark.parametrize("form", ["function", "do"])
def test_what_a_body_names_is_looked_at_whatever_its_variables_are(form: str, tmp_path: Path) -> None:
    """Rows, composites, records and foreign types are checked, also in code that does not run."""
    text = SCHEMA
    for number, body in enumerate(BROKEN.values()):
        if form == "do":
            guarded = body.replace("begin\n", "begin\n  if not exists (select from lines) then return; end if;\n")
            text += f"do $$\n{guarded} $$;\n"
        else:
            text += f"create function app.f{number}(k app.kind) returns void language plpgsql as $$\n{body} $$;\n"
    result = rehearsed(tmp_path, text)
    assert result.obstacles == ()
    assert [(o.place.line, o.place.column) for o in result.bodies] == marks(text)
    assert result.exit_code == 10


def test_a_trigger_is_looked_at_with_the_columns_of_its_table(tmp_path: Path) -> None:
    """Fields that are read or written, and other tables, are checked."""
    text = (
        f"{SCHEMA}create function t() returns trigger language plpgsql as $$\nbegin\n  ‸new.statuz := 'x';\n"
        "  if ‸new.user_idd is null then return null; end if;\n  insert into ‸nope values (new.id);\n  return new;\n"
        "end $$;\ncreate trigger t before insert on app.orders for each row execute function t();\n"
    )
    result = rehearsed(tmp_path, text)
    assert [(o.place.line, o.place.column) for o in result.bodies] == marks(text)


def test_healthy_bodies_are_left_alone(tmp_path: Path) -> None:
    """Records, labels, temporary tables, unattached triggers and guarded blocks give no finding."""
    result = rehearsed(tmp_path, SCHEMA + HEALTHY)
    assert (result.obstacles, result.bodies, result.exit_code) == ((), (), 0)


def test_names_are_looked_for_where_the_callers_of_a_function_may_look(tmp_path: Path) -> None:
    """The migration's search path counts; one that a body sets is not known."""
    body = "as $$\nbegin\n  {}delete from {} where id = 1;\nend $$;\n"
    head = "create procedure {}() language plpgsql "
    made = (
        ("set search_path = app, public;\n" + head.format("plain") + body.format("", "orders"), 0),
        (head.format("app.qualified") + body.format("", "‸orders"), 1),
        (
            "set search_path = app;\n"
            + head.format("fixed")
            + "set search_path = public "
            + body.format("", "‸orders"),
            1,
        ),
        (head.format("app.sets") + body.format("perform set_config('search_path', 'app', true);\n  ", "orders"), 0),
    )
    for text, mistakes in made:
        result = rehearsed(tmp_path, SCHEMA + text)
        assert (result.obstacles, [(o.place.line, o.place.column) for o in result.bodies]) == ((), marks(SCHEMA + text))
        assert len(result.bodies) == mistakes
        assert any("set the search path themselves" in note for note in result.notes) is ("app.sets" in text)


def test_a_body_that_cannot_be_read_is_no_success(tmp_path: Path) -> None:
    """It is reported as unknown, with its place."""
    result = rehearsed(
        tmp_path, "create function f() returns text language plpgsql as 'begin return (select ''x'' from nope); end';"
    )
    assert [(o.kind, o.place.line) for o in result.bodies] == [("not judged", 1)]
    assert result.exit_code == 10
