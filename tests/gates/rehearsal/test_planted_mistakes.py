"""Planted mistakes are found in one rehearsal, each at its place and for its reason."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from gates.rehearsal.command import rehearsal
from gates.rehearsal.obstacles import Obstacle
from gates.rehearsal.report import RehearsalResult
from gates.rehearsal.sources import read_migrations
from tests.gates.rehearsal.rehearsed import APP, MARK


@dataclass(frozen=True)
class Planted:
    """A migration with a mistake behind the mark; what its obstacle must say."""

    name: str
    sql: str
    code: str
    says: str
    do: str = ""
    kind: str = "cause"


PLANTED = (
    Planted(
        "time-in-predicate",
        "create index i1 on public.event_outbox (id) where created_at > ‸now() - interval '5 minutes';",
        "42P17",
        "now() gives another answer later",
        "Leave it out of the index",
    ),
    Planted(
        "uuid-is-text",
        "create view public.x1 as select 1 as one from public.event_outbox o\n"
        "join public.dead_letter_queue d on o.event_id ‸= d.error_type;",
        "42883",
        "no = between uuid and text",
        "cast one side to uuid",
    ),
    Planted(
        "column-that-nobody-makes",
        "create view public.x2 as select id, ‸recieved_at from public.dead_letter_queue;",
        "42703",
        "No migration makes a column recieved_at in dead_letter_queue",
        "Add the column",
    ),
    Planted(
        "column-nearly",
        "create index on public.dead_letter_queue (‸retry_counts);",
        "42703",
        "the nearest is dead_letter_queue.retry_count",
        "Write retry_count",
    ),
    Planted(
        "column-of-an-alias",
        "-- ä comment with letters of two bytes: ü\nselect c.name, ‸d.created_on from public.companies c,"
        " public.dead_letter_queue as d;",
        "42703",
        "in dead_letter_queue",
        "Add the column",
    ),
    Planted(
        "column-renamed",
        "update public.event_outbox set ‸attempts = 0;",
        "42703",
        "was renamed to attempt_count at",
        "Write attempt_count",
    ),
    Planted(
        "column-dropped", "select ‸legacy_state from public.event_outbox;", "42703", "was dropped at", "Take it out"
    ),
    Planted(
        "column-made-later",
        "select ‸made_later from public.companies;",
        "42703",
        "is made only later, at",
        "Move that statement",
    ),
    Planted(
        "relation-made-later",
        "grant select on ‸public.late_table to authenticated;",
        "42P01",
        "is made only later, at",
        "Move that statement",
    ),
    Planted(
        "function-nobody-makes",
        "create policy p9 on public.event_outbox using (‸public.is_member(company_id));",
        "42883",
        "No migration makes the function public.is_member",
        "Add the migration",
    ),
    Planted(
        "function-of-other-arguments",
        "select ‸public.bury('0a000000-0000-4000-8000-000000000001'::uuid, 'x');",
        "42883",
        "bury is there, but not for (uuid, unknown)",
        "Cast the arguments",
    ),
    Planted(
        "role-nobody-makes",
        "grant select on public.companies to ‸reporting;",
        "42704",
        "role reporting",
        "--role reporting",
    ),
    Planted(
        "schema-nobody-makes", "create table ‸billing.invoices (id int);", "3F000", "schema billing", "CREATE SCHEMA"
    ),
    Planted(
        "concurrently-in-a-transaction",
        "‸create index concurrently i3 on public.companies (name);",
        "25001",
        "cannot run inside a transaction",
        "a file of its own",
    ),
    Planted(
        "constraint-nobody-makes",
        "alter table public.companies drop constraint ‸nope;",
        "42704",
        "No migration makes the constraint nope of companies",
        "Correct the name",
    ),
    Planted(
        "trigger-nobody-makes",
        "drop trigger ‸nope on public.companies;",
        "42704",
        "No migration makes the trigger nope of companies",
        "IF EXISTS",
    ),
    Planted(
        "built-in-of-other-arguments",
        "select ‸round(1.5::float8, 2);",
        "42883",
        "round is there, but not for (double precision, integer): there is round(numeric, integer)",
        "Cast the arguments",
    ),
    Planted("built-in-nearly", "select ‸lenght('x');", "42883", "the function lenght", "Did you mean length?"),
    Planted("letters", 'create table public."Po" (a int);\ntable ‸public.po;', "42P01", "view public.po", 'Write "Po"'),
    Planted("setting", "set ‸no_such_setting = 1;", "42704", "has no setting of this name", "--server-version"),
    Planted("counts", "insert into public.companies (id, ‸name) select null;", "42601", "do not fit together"),
    Planted("distinct", "select distinct id from public.companies order by ‸name;", "42P10", "do not fit together"),
    Planted(
        "build-of-the-server",
        "‸create table public.x7 (t text compression lz4);",
        "0A000",
        "was built without it",
        "your server has it",
        kind="not judged",
    ),
    Planted("made-twice", "create table ‸public.companies (id uuid);", "42P07", "was made at", "IF NOT EXISTS"),
    Planted(
        "schema-of-the-platform",
        "‸create function auth.tenant() returns uuid language sql as 'select null::uuid';",
        "42501",
        "Supabase keeps the schema auth to itself",
        "in public",
    ),
    Planted(
        "key-without-unique",
        "create table public.x4 (t text references ‸public.dead_letter_queue (error_type));",
        "42830",
        "no UNIQUE constraint",
        "Add one",
    ),
    Planted("grammar", "create ‸tabel public.x5 (id int);", "42601", "not SQL", "grammar"),
    Planted(
        "sql-function-body",
        "create function public.f6() returns bigint language sql as $f$\n  select count(*) from ‸public.nowhere;\n$f$;",
        "42P01",
        "No migration makes the table or view public.nowhere",
        "Add the migration",
    ),
    Planted(
        "inside-a-block",
        "do $$\nbegin\n  perform 1;\n  insert into ‸public.nobody_made_this values (1);\nend\n$$;",
        "42P01",
        "No migration makes the table or view public.nobody_made_this",
        "Add the migration",
    ),
    Planted(
        "enum-value-at-once",
        "alter type public.member_role add value 'auditor';\n"
        "insert into public.memberships select null, null, ‸'auditor'::public.member_role;",
        "55P04",
        "cannot be used in the transaction that adds it",
        "a migration of its own",
    ),
    Planted(
        "placeholder", "delete from public.companies where id = ‸'company-id';", "22P02", "placeholder", "value of"
    ),
    Planted(
        "extension-nobody-has",
        "create extension ‸postgis;",
        "0A000",
        "no stub stands for it",
        "your server has it",
        kind="not judged",
    ),
    Planted(
        "column-inside-a-block",
        "do $$\ndeclare n int;\nbegin\n  select count(*) into n from public.companies where ‸nam = 'x';\nend $$;",
        "42703",
        "the nearest is companies.name",
        "Write name",
    ),
    Planted("no-number", "select ‸1abc;", "42601", "not SQL", "grammar"),
    Planted(
        "program", "copy public.companies to ‸program 'cat > /dev/null';", "42501", "reaches beyond", kind="refused"
    ),
    Planted("file", "select ‸pg_read_file('/etc/passwd');", "42501", "reaches beyond", kind="refused"),
    Planted("superuser", "‸create role root_of_all superuser;", "42501", "needs a superuser", kind="not judged"),
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[RehearsalResult, Path]:
    """One rehearsal of the healthy app with every mistake in a file of its own."""
    root = tmp_path_factory.mktemp("planted")
    shutil.copytree(APP, root, dirs_exist_ok=True)
    folder = root / "supabase" / "migrations"
    for number, one in enumerate(PLANTED):
        (folder / f"2024030100{number:04d}_{one.name}.sql").write_text(one.sql.replace(MARK, ""), encoding="utf-8")
    (folder / "20250101000000_last.sql").write_text(
        "alter table public.companies add column made_later text;\ncreate table public.late_table (id int);\n"
        "create view public.first_broken as select nothing_such from public.companies;\n"
        "create view public.second as select * from public.first_broken;\n"
        "grant select on public.second to anon;\n",
        encoding="utf-8",
    )
    return rehearsal(read_migrations(root), os.environ), folder


def obstacles_of(found: tuple[RehearsalResult, Path], name: str) -> list[Obstacle]:
    return [o for o in found[0].obstacles if name in o.place.file]


@pytest.mark.parametrize("one", PLANTED, ids=lambda p: p.name)
def test_a_mistake_is_found_at_its_place_for_its_reason(one: Planted, planted: tuple[RehearsalResult, Path]) -> None:
    """Exactly one obstacle: code, file, line and column, the meaning in words, what to do."""
    (found,) = obstacles_of(planted, f"_{one.name}.sql")
    before = one.sql.partition(MARK)[0]
    wanted = (before.count("\n") + 1, len(before) - before.rfind("\n"))
    assert (found.code, found.place.line, found.place.column) == (one.code, *wanted), found
    assert one.says in found.meaning
    assert one.do in found.remedy
    assert found.kind == one.kind


def test_what_follows_from_a_mistake_names_its_cause(planted: tuple[RehearsalResult, Path]) -> None:
    """A view on a view that could not be made, and a grant on that: both follow from the first, which is the cause."""
    first, second, third = obstacles_of(planted, "_last.sql")
    assert first.kind == "cause"
    assert [second.kind, third.kind] == ["follows", "follows"]
    assert second.caused_by == third.caused_by == first.place


def test_the_healthy_parts_stay_healthy_beside_the_mistakes(planted: tuple[RehearsalResult, Path]) -> None:
    """No statement of the app itself is blamed, and each mistake costs one file alone."""
    files = {Path(o.place.file).name for o in planted[0].obstacles}
    assert len(files) == len(PLANTED) + 1
    assert planted[0].exit_code == 10
