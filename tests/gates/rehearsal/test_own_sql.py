"""`gate rehearse DIR --sql FILE...`: a user's checks against the schema, and whether a breach makes them fail."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gates.errors import ConfigError
from gates.rehearsal.command import rehearsal
from gates.rehearsal.execution import perform
from gates.rehearsal.own_sql import OwnFile, read_queries
from gates.rehearsal.postgres.server import Rehearsed, throw_away
from gates.rehearsal.reading.sources import SqlSource, read_migrations
from gates.rehearsal.reading.splitting import split
from tests.gates.rehearsal.rehearsed import MARK
from tests.sources import ROOT

CHECKLIST = ROOT.parent / "shared" / "spec" / "hardening-checklist.md"
MIGRATIONS = ROOT / "replay_service" / "migrations"
STOP = "\\set ON_ERROR_STOP on\n"

WRONG = {
    "column.sql": ("select count(*) from public.event_outbox where ‸proccessed_at is null;", "Write processed_at"),
    "relation.sql": ("-- ü\nselect 1;\nselect * from\n  ‸public.outbox_events;", "event_outbox"),
    "function.sql": ("select ‸public.is_feature_on('x', null);", "Did you mean is_feature_enabled"),
    "types.sql": (
        "select 1 from public.events e join public.audit_logs a on e.company_id ‸= a.scope;",
        "cast one side",
    ),
    "variables.sql": (
        (
            "select 1 from public.events where company_id = :'company' and\n"
            "created_at > now() - interval :'w' limit :n;\n"
            "\\set days 3\nselect (array[1, 2])[1:array_length(array[1], 1)], :days + 1, ':x' from public.events;\n"
            "select ‸knid from public.events where event_type = :'kind';"
        ),
        "Add the column",
    ),
    "driver.py.sql": (
        (
            "select id from public.events where event_type = %(kind)s and created_at > %s limit %s;\n"
            "select id from public.events where ‸knid = %(kind)s and event_type like 'a%s%%';"
        ),
        "Add the column",
    ),
    "gset.sql": ("select ‸lag as x from public.event_outbox \\gset\n\\if :x\n\\quit\n\\endif\n", "Add the column"),
    "block.sql": (
        "do $$\nbegin\n  if exists (select from public.events where ‸kind = 'x') then raise 'x'; end if; end $$;",
        "Add the column",
    ),
    "steps.md": ("# It's\n\n```sql\nselect ‸enabledd from public.feature_flags\n```\n", "Write enabled"),
    "0001_mine.sql": (
        (
            "-- id: sql/spot/mine\n-- claim: x\n-- cost: x\n-- severity: page\n"
            "select 'x' as subject, o.id as detail, null as witness from public.event_outbox o\n"
            "where {{not_excluded}} and ‸o.companyid is null;\n\n"
            "-- seen:\nselect count(*) as seen from public.event_outbox;\n"
        ),
        "Write company_id",
    ),
    "unqualified.sql": (
        (
            "-- id: sql/spot/mine\n-- claim: x\n-- cost: x\n-- severity: page\nselect 1 from ‸event_outbox;\n\n"
            "-- seen:\nselect 1;\n"
        ),
        "Write public.event_outbox",
    ),
    "rules.yaml": (
        (
            "groups:\n  - name: x\n    rules:\n      - alert: one\n        query: |\n          with {{waiting}}\n"
            "          select 'all' as subject,\n                 ‸lag_s as value from waiting\n"
        ),
        "Add the column",
    ),
    "inline.yaml": ("groups:\n  - rules:\n      - query: select 1 from ‸public.nobody\n", "Add the migration"),
}
"""Files with one mistake behind the mark, and what to do about it."""

SEEN = {
    "raises.sql": (
        STOP + "do $$ begin if exists (select from public.events) then raise exception 'x'; end if; end $$;",
        True,
    ),
    "asserts.sql": (STOP + "do $$ begin assert (select count(*) from public.events) = 0, 'some'; end $$;", True),
    "divides.sql": (STOP + "select 1 / (case when exists (select from public.events) then 0 else 1 end);", True),
    "calls.sql": (STOP + "select public.shout(count(*)) from public.events;", True),
    "prints.sql": ("select * from public.events;", False),
    "prints-and-stops.sql": (STOP + "select * from public.events where id is null;", False),
    "does-not-stop.sql": ("do $$ begin raise exception 'x'; end $$;", False),
    "stops-too-late.sql": ("do $$ begin raise exception 'x'; end $$;\n" + STOP + "select 1;", False),
    "only-warns.sql": (
        STOP + "do $$ begin raise warning 'raise exception'; -- raise exception\nend $$;\nselect 1;",
        False,
    ),
    "quits.sql": (STOP + "select true as bad \\gset\n\\if :bad\n\\quit 3\n\\endif\nselect 2 / 1, 'a/b';", False),
    "only-tells.sql": (
        STOP + "do $$ begin if exists (select from public.events) then raise notice 'x'; end if; end $$;",
        False,
    ),
    "catches.sql": (
        STOP + "do $$ begin begin raise exception 'x'; exception when others then null; end; end $$;",
        False,
    ),
    "asserts-and-catches.sql": (
        STOP + "do $$ begin assert false, 'x'; exception when others then raise notice 'y'; end $$;",
        True,
    ),
    "raises-again.sql": (STOP + "do $$ begin raise 'x'; exception when others then raise; end $$;", True),
    "never-raises.sql": (STOP + "do $$ begin if false then raise exception 'x'; end if; end $$;", False),
    "stops-no-more.sql": (STOP + "\\unset ON_ERROR_STOP\ndo $$ begin raise exception 'x'; end $$;", False),
    "divides-by-null.sql": (STOP + "select round(1.0 / nullif(count(*) - 1, 0), 2) from public.events;", False),
    "divides-by-one.sql": (STOP + "select 1 / greatest(count(*) - 1, 1), 1 / (60 * 60) from public.events;", False),
    "divides-by-a-default.sql": (STOP + "select 1 / coalesce(nullif(count(*) - 1, 0), 1) from public.events;", False),
    "divides-by-nothing.sql": (STOP + "select 1 / greatest(count(*) - 1, 0) from public.events;", True),
    "makes-and-calls.sql": (
        STOP + "create function pg_temp.chk() returns void language plpgsql as $$\n"
        "begin if exists (select from public.events) then raise exception 'x'; end if; end $$;\nselect pg_temp.chk();",
        True,
    ),
    "writes.sql": ("update public.feature_flags set enabled = false;", None),
}
"""Files, and whether psql's exit code shows a breach."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, OwnFile]:
    """One rehearsal of the reference with every file."""
    folder, migrations = tmp_path_factory.mktemp("own"), tmp_path_factory.mktemp("migrations")
    shutil.copytree(MIGRATIONS, migrations, dirs_exist_ok=True)
    (migrations / "20250101_001_shout.sql").write_text(
        "create function public.shout(n bigint) returns void language plpgsql as $$\n"
        "begin if n > 0 then raise exception 'breach'; end if; end $$;",
        encoding="utf-8",
    )
    for name, (text, _) in [*WRONG.items(), *SEEN.items()]:
        (folder / name).write_text(text.replace(MARK, ""), encoding="utf-8")
    result = rehearsal(read_migrations(migrations), os.environ, own=sorted(folder.iterdir()))
    assert (result.obstacles, result.exit_code) == ((), 10)
    return {Path(one.file).name: one for one in result.own}


@pytest.mark.parametrize("name", WRONG)
def test_a_name_that_is_not_there_is_found_at_its_place(name: str, found: dict[str, OwnFile]) -> None:
    """There is exactly one finding, at its line and column, in any form of file."""
    text, do = WRONG[name]
    (one,) = found[name].obstacles
    before = text.partition(MARK)[0]
    assert (one.place.line, one.place.column) == (before.count("\n") + 1, len(before) - before.rfind("\n")), one
    assert do in one.remedy
    assert found[name].unjudged == ()


@pytest.mark.parametrize("name", SEEN)
def test_a_breach_that_nothing_shows_is_said(name: str, found: dict[str, OwnFile]) -> None:
    r"""Psql exits with 0 after rows, warnings and \quit; errors count only with ON_ERROR_STOP."""
    one = found[name]
    assert (one.breach.seen, one.obstacles) == (SEEN[name][1], ())
    assert one.breach.seen is not False or one.breach.remedy


def test_what_a_file_brings_in_is_not_judged(tmp_path: Path) -> None:
    r"""Included files, \gexec and \copy are named, and the exit code is 10."""
    path, schema = tmp_path / "a.sql", tmp_path / "schema.sql"
    schema.write_text("create table t (id int);\n", encoding="utf-8")
    text = STOP + "\\i checks.sql\n\\copy (select nope from t) to 'x.csv'\nselect 'select 1' \\gexec\n"
    path.write_text(text, encoding="utf-8")
    result = rehearsal(read_migrations(schema), os.environ, own=[path])
    (one,) = result.own
    assert [said.partition(" ")[0] for said in one.unjudged] == [f"{path}:2:1", f"{path}:3:1", f"{path}:4:19"]
    assert result.exit_code == 10


@pytest.fixture(scope="module")
def server() -> Iterator[Rehearsed]:
    """A server with the reference's schema and one event that breaks the checks above."""
    with throw_away(os.environ, None) as made:
        perform(made, [split(s) for s in read_migrations(MIGRATIONS).sources], database="rehearsal")
        with made.session() as connection:
            connection.execute(
                "insert into public.companies (name) values ('x');"
                "insert into public.events (company_id, event_type, payload)"
                " select id, 'x', '{}' from public.companies;"
                "create function public.shout(n bigint) returns void language plpgsql as "
                "'begin raise exception ''breach''; end'"
            )
        yield made


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
@pytest.mark.parametrize("name", [n for n, (_, seen) in SEEN.items() if seen is not None])
def test_psql_itself_ends_as_was_said(name: str, server: Rehearsed, tmp_path: Path) -> None:
    """On a broken database the real psql fails exactly where a breach was said to show."""
    path = tmp_path / name
    path.write_text(SEEN[name][0], encoding="utf-8")
    words = ["psql", server.owner(), "-X", "-q", "-f", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode != 0) is SEEN[name][1], done.stderr


def test_the_projects_own_checks_are_prepared_without_a_complaint() -> None:
    """Every spot check and alert rule, with its fragments, against the reference: nothing is missing, all is judged."""
    folders = (ROOT / "sql_checks" / "spot").glob("*.sql"), (ROOT / "sql_checks" / "alerts").glob("*.yaml")
    paths = sorted(path for folder in folders for path in folder)
    result = rehearsal(read_migrations(MIGRATIONS), os.environ, own=paths)
    assert len(result.own) == len(paths) > 50
    assert {o.file: (o.obstacles, o.unjudged) for o in result.own if o.obstacles or o.unjudged} == {}
    assert result.exit_code == 0


@pytest.mark.skipif(not CHECKLIST.exists(), reason="the checklist is not beside this repository")
def test_the_checklist_as_its_reader_would_rehearse_it() -> None:
    """All but the placeholder fits the reference, and no breach makes it fail."""
    result = rehearsal(read_migrations(MIGRATIONS), os.environ, own=[CHECKLIST])
    (one,) = result.own
    assert [(o.place.line, o.code) for o in one.obstacles] == [(160, "22P02")]
    assert (one.statements, one.breach.seen) == (12, False)
    alone = rehearsal(read_migrations(CHECKLIST), os.environ)
    assert {o.code for o in alone.obstacles} == {"42P01"}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [("a.yaml", "groups:\n  - rules: [\n", ":3:1: "), ("b.yaml", "groups: []\n", ":1:1: no query")],
)
def test_a_file_that_cannot_be_read_is_named_with_its_place(name: str, text: str, says: str, tmp_path: Path) -> None:
    """Broken YAML, and YAML without a query."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        read_queries(path)
    assert f"{path}{says}" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("select ';' ; select E'\\';' ; select $a$;$$;$a$", ["select ';'", "select E'\\';'", "select $a$;$$;$a$"]),
        ("select 1 /* ; /* ; */ ; */ ; -- ;\nselect 2", ["select 1", "select 2"]),
        (
            "create function f() returns int begin atomic select case when true then 1 end; select 2; end; table t",
            ["create function f() returns int begin atomic select case when true then 1 end; select 2; end", "table t"],
        ),
        ("create rule r as on insert to t do (select 1; select 2); select 3",
         ["create rule r as on insert to t do (select 1; select 2)", "select 3"]),
        ("select '\n\\connect in a text\n'; \\connect x\nselect 2", None),
        ("copy t from stdin;\n;'$$\n\\.\nselect 2", ["copy t from stdin", "select 2"]),
        ("do $$\ncopy t from stdin;\n\\.\n$$; select 2", ["do $$\ncopy t from stdin;\n\\.\n$$", "select 2"]),
        ("begin; select 1; end; select 2", ["begin", "select 1", "end", "select 2"]),
        ("select U&'\\0041;' , \"a;\"\"b\"; select 'é;'; select 1abc; select 2",
         ["select U&'\\0041;' , \"a;\"\"b\"", "select 'é;'", "select 1abc", "select 2"]),
        (";;; ;", []),
    ],
)  # fmt: skip
def test_statements_end_where_the_server_ends_them(text: str, wanted: list[str] | None) -> None:
    """Strings, comments, bodies, rules and COPY rows do not end one, and each has its place."""
    found = split(SqlSource("f.sql", text))
    statements = [s for s in found if not s.meta]
    if wanted is not None:
        assert [s.text for s in statements] == wanted
    for one in found:
        assert text[one.start :].startswith(one.text)
        place = one.place()
        assert text.split("\n")[place.line - 1][place.column - 1 :].startswith(one.text.split("\n")[0])
