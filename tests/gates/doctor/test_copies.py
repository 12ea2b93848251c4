"""The same tables in several schemas: one schema is compared, and the others are named."""

from pathlib import Path

import pytest

from gates.contract.contract import contract
from gates.doctor.comparison.compare import NOT_SEEN, Presence, compare
from gates.doctor.defects import defects
from gates.doctor.matching.columns import Confidence, Pin
from gates.doctor.matching.tables import TableMatch, match
from gates.doctor.reading.schema import Schema, SchemaColumn, SchemaFunction, SchemaTable
from gates.doctor.sqltypes import SPELLED
from gates.text.own_data import data_of
from tests.gates.doctor.databases import database
from tests.gates.gate_process import gate
from tests.postgres_fixture import PgServer

THREE = ("companies", "event_outbox", "dead_letter_queue")
SQL = """
do $$ declare s text; begin foreach s in array array['one', 'two', 'three'] loop
  execute format('create schema %I', s);
  execute format('create table %I.companies (id uuid primary key, name text)', s);
  execute format('create table %I.event_outbox (id bigserial primary key, event_id uuid, company_id uuid,
    event_type text, payload jsonb, inserted_at timestamptz, processed_at timestamptz, attempts int)', s);
  execute format('create table %I.dead_letter_queue (id uuid primary key, company_id uuid, event_type text,
    payload jsonb, error_type text, retry_count int, status text, created_at timestamptz)', s);
end loop; end $$;
"""


def table(schema: str, name: str, called: str = "", less: tuple[str, ...] = (), kind: str = "r") -> SchemaTable:
    """A table of the contract in a schema, with another name or fewer columns if given."""
    columns = {
        n: SchemaColumn(n, SPELLED.get(t, t)) for n, t in contract().relations[name].columns.items() if n not in less
    }
    return SchemaTable(schema, called or name, kind, columns)


def copies(*schemas: str) -> tuple[SchemaTable, ...]:
    """Three tables of the contract in each schema."""
    return tuple(table(s, name) for s in schemas for name in THREE)


def placed(found: dict[str, TableMatch]) -> dict[str, str]:
    """The real table of each object, by name."""
    return {n: m.table.qualified for n, m in found.items()}


def test_copies_are_one_table_and_no_other_one() -> None:
    """Each table is found once, in one schema; the others are named, and a person must choose."""
    found = match(Schema(copies("one", "two", "three")), contract())
    assert placed(found) == {n: f"one.{n}" for n in THREE}
    assert {m.confidence for m in found.values()} == {Confidence.PERHAPS}
    assert all(m.is_likely for m in found.values())
    assert found["event_outbox"].alternatives == ("two.event_outbox", "three.event_outbox")
    assert found["event_outbox"].copies == ("one", "three", "two")


def test_what_gate_yaml_says_of_the_schema_decides() -> None:
    """`names: schema` and mapped tables are followed, and are no guess."""
    schema = Schema(copies("one", "two", "three"))
    found = match(schema, contract(), home="three")
    assert placed(found) == {n: f"three.{n}" for n in THREE}
    assert all(m.has_own_name and not m.alternatives for m in found.values())
    compared = compare(schema, contract(), home="three").of("table", "event_outbox")
    assert compared is not None
    assert compared.is_settled
    pinned = match(schema, contract(), {"event_outbox": Pin("two.event_outbox")})
    assert placed(pinned) == {n: f"two.{n}" for n in THREE}


def test_a_schema_that_is_not_there_decides_nothing() -> None:
    """If the named schema lacks the tables, the choice stays open."""
    found = match(Schema(copies("one", "two")), contract(), home="elsewhere")
    assert {m.confidence for m in found.values()} == {Confidence.PERHAPS}
    assert found["event_outbox"].alternatives == ("two.event_outbox",)


def test_the_schema_that_fits_best_is_taken() -> None:
    """The schema with more of the contract is likely; the others are still named."""
    found = match(Schema((*copies("one", "two"), table("two", "replay_runs"))), contract())
    assert placed(found) == {n: f"two.{n}" for n in (*THREE, "replay_runs")}
    assert found["event_outbox"].confidence is Confidence.LIKELY
    assert found["event_outbox"].alternatives == ("one.event_outbox",)
    assert found["replay_runs"].alternatives == ()


def test_the_contracts_own_schema_comes_first() -> None:
    """`public` is taken; an archive with the same tables is only named."""
    found = match(Schema(copies("archive", "public")), contract())
    assert placed(found) == {n: f"public.{n}" for n in THREE}
    assert all(m.confidence is not Confidence.PERHAPS for m in found.values())
    assert found["event_outbox"].alternatives == ("archive.event_outbox",)


def test_copies_that_differ_a_little_are_copies() -> None:
    """A tenant's schema that lacks one migration is still a copy."""
    behind = table("two", "event_outbox", less=("txid", "replay_run_id", "dead_at"))
    found = match(Schema((table("one", "event_outbox"), behind)), contract())
    assert placed(found) == {"event_outbox": "one.event_outbox"}


def test_tables_of_one_name_and_another_meaning_are_no_copies() -> None:
    """A calendar's `events` is not an outbox, and does not hide one."""
    calendar = {n: SchemaColumn(n, t) for n, t in {"id": "bigint", "title": "text", "venue": "text"}.items()}
    other = SchemaTable("public", "event_outbox", "r", calendar)
    found = match(Schema((*copies("app"), other)), contract())
    assert placed(found) == {n: f"app.{n}" for n in THREE}
    assert found["event_outbox"].copies == ()


@pytest.mark.parametrize(
    "called", ["event_outbox_archive", "event_outbox_old", "event_outbox_2024", "old_event_outbox"]
)
def test_a_table_kept_beside_its_successor_is_no_other_table(called: str) -> None:
    """An archive table stands for no other table of the contract."""
    found = match(Schema((*copies("public"), table("public", "event_outbox", called))), contract())
    assert placed(found) == {n: f"public.{n}" for n in THREE}


def test_a_view_is_no_copy_of_a_table() -> None:
    """An API schema of views over the tables leaves no choice open."""
    views = tuple(table("api", n, kind="v") for n in THREE)
    found = match(Schema((*views, *copies("app"))), contract())
    assert placed(found) == {n: f"app.{n}" for n in THREE}
    assert all(m.confidence > Confidence.PERHAPS and not m.alternatives for m in found.values())


def test_a_view_in_the_place_of_a_table_is_told_and_taken_where_it_is_named() -> None:
    """It is not guessed; if gate.yaml names it, keys and row security are those of its tables."""
    schema = Schema((table("public", "event_outbox", kind="v"),))
    guessed = compare(schema, contract()).of("table", "event_outbox")
    assert guessed is not None
    assert (guessed.presence, "public.event_outbox is a view" in guessed.detail) == (Presence.ABSENT, True)
    found = compare(schema, contract(), {"event_outbox": Pin("public.event_outbox")})
    named = found.of("table", "event_outbox")
    assert named is not None
    assert named.presence is Presence.PRESENT
    parts = [o.presence for o in found.objects if o.kind in {"key", "row security"} and "event_outbox" in o.name]
    assert parts == [Presence.UNKNOWN] * 2
    assert [d.subject for d in defects(schema, found, contract(), NOT_SEEN, None, "")] == []


def test_the_function_beside_the_flags_is_the_one() -> None:
    """Of equal functions, the one in the flags' schema counts, or the one that gate.yaml names."""
    functions = tuple(
        SchemaFunction(s, "is_feature_enabled", ("text", "uuid"), ("k", "c"), "boolean") for s in ("a", "b", "c")
    )
    schema = Schema((table("b", "feature_flags"),), functions)
    assert compare(schema, contract()).functions["is_feature_enabled"].function.schema == "b"
    said = compare(schema, contract(), home="c").functions["is_feature_enabled"]
    assert (said.function.schema, said.is_own) == ("c", True)


def test_of_many_equal_schemas_the_first_is_taken() -> None:
    """Five hundred schemas with the same tables, one for each tenant, are no obstacle."""
    found = match(Schema(copies(*(f"t{n:03}" for n in range(500)))), contract())
    assert placed(found) == {n: f"t000.{n}" for n in THREE}


def test_the_draft_names_all_candidates(pg_server: PgServer, tmp_path: Path) -> None:
    """The draft leaves the tables out and names the schemas; once one is named, it is complete."""
    with database(pg_server, SQL) as url:
        environ = {"DATABASE_URL": url}
        done = gate("doctor", "--write", cwd=tmp_path, environ=environ)
        path = tmp_path / "gate.yaml"
        text = path.read_text(encoding="utf-8")
        path.write_text("version: 1\nnames: {schema: two}\n", encoding="utf-8")
        again = gate("doctor", "--write", "--force", cwd=tmp_path, environ=environ)
        data = data_of(path)
    assert "3 of 12 tables of the contract" in done.stdout
    assert "3 schemas have the same tables: one, three, two" in done.stdout
    assert "not written" not in done.stderr
    line = next(line for line in text.splitlines() if line.startswith("    event_outbox:"))
    assert "absent: true" in line
    assert all(f"{s}.event_outbox" in line for s in ("one", "two", "three"))
    assert "# schema: one  # which is it? or three, two" in text
    assert again.returncode == 10
    assert data["names"]["schema"] == "two"
    assert "absent" not in str(data["names"]["tables"].get("companies"))
