"""A schema compared with the contract: each removed object is named, and of several copies one is compared."""

import uuid
from pathlib import Path

import pytest

from gates.contract.contract import contract
from gates.deployment.sql.database import sql
from gates.doctor.comparison.compare import NOT_SEEN, Comparison, Presence, RowsSeen, compare
from gates.doctor.defects import defects
from gates.doctor.matching.actors import edited_claims, role_in, tenant_claim
from gates.doctor.matching.columns import Confidence, Pin
from gates.doctor.matching.tables import TableMatch, match
from gates.doctor.reading.schema import Schema, SchemaColumn, SchemaFunction, SchemaTable
from gates.doctor.sqltypes import SPELLED
from gates.text.own_data import data_of
from tests.gates.doctor.databases import database, schema_of
from tests.gates.gate_process import gate
from tests.postgres_fixture import TEMPLATE, PgServer

NO_RUN_KEY = "alter table replay_runs drop constraint replay_runs_idempotency_key_company_id_key"
NO_FLAG_KEY = "alter table feature_flags drop constraint feature_flags_key_company_key"
FLAG_KEY = "feature_flags(key, company_id)"
NO_EFFECT_KEY = "alter table agent_tasks drop constraint agent_tasks_event_id_key"
OF_TENANTS = "create unique index on feature_flags (key, company_id) where company_id is not null"
ONE_GLOBAL_ROW = "create unique index on feature_flags (key) where company_id is null"
FLAGS = RowsSeen(dict.fromkeys(contract().flags, (True, 100)), has_pause_row=True)


def reference_after(server: PgServer, sql: str) -> tuple[Schema, Comparison]:
    """The reference's schema after this SQL, compared."""
    with database(server, sql, TEMPLATE) as url:
        schema = schema_of(url)
    return schema, compare(schema, contract(), rows=FLAGS)


def test_all_of_the_reference_is_present(pg_server: PgServer) -> None:
    """Every object is present by its own name; states that no constraint lists are unknown."""
    schema, found = reference_after(pg_server, "")
    other = {(o.kind, o.name, o.presence) for o in found.objects if o.presence is not Presence.PRESENT}
    unlisted = {("values", "audit_logs.action", Presence.UNKNOWN), ("values", "events.path", Presence.UNKNOWN)}
    assert other == unlisted
    assert found.unread == {}
    assert all(d.harm < 40 for d in defects(schema, found, contract(), FLAGS, None, "outbox.enabled"))


@pytest.mark.parametrize(
    ("sql", "kind", "name", "said"),
    [
        ("alter table dead_letter_queue disable row level security", "row security", "dead_letter_queue", "off"),
        ("alter table events no force row level security", "row security", "events", "not forced"),
        (
            "create policy p on events for select to authenticated using (true)",
            "row security",
            "events",
            "policy p shows every row",
        ),
        *(
            (f"create policy p on events for {policy}", "row security", "events", f"policy p {said}")
            for policy, said in (
                ("select to authenticated using (event_type = 'OR (' or (2 = 2 or path = 'x'))", "shows every row"),
                ("all to authenticated using (company_id is not null)", "shows every row"),
                ("select to authenticated using ((select auth.jwt() ->> 'company_id') is null)", "shows every row"),
                ("delete to authenticated using (true)", "lets rows of any tenant be written"),
                ("insert to authenticated with check (true)", "lets rows of any tenant be written"),
                (
                    "select to anon using (company_id::text = (current_setting('request.headers')::jsonb ->> 'x'))",
                    "believes what a client says",
                ),
            )
        ),
        (NO_RUN_KEY, "key", "replay_runs(idempotency_key, company_id)", "no unique key"),
        (
            f"{NO_RUN_KEY}; alter table replay_runs add unique (idempotency_key)",
            "key",
            "replay_runs(idempotency_key, company_id)",
            "unique over idempotency_key alone",
        ),
        (
            f"{NO_FLAG_KEY}; alter table feature_flags add unique (key, company_id)",
            "key",
            "feature_flags(key, company_id)",
            "always distinct",
        ),
        (
            "alter table event_outbox alter dead_at type timestamp",
            "column",
            "event_outbox.dead_at",
            "without time zone",
        ),
        ("alter table agent_tasks drop column agent_name", "column", "agent_tasks.agent_name", ""),
        ("drop table audit_heads cascade", "table", "audit_heads", ""),
        ("drop view feature_flags_status", "view", "feature_flags_status", ""),
        ("drop function is_feature_enabled", "function", "is_feature_enabled(text, uuid)", ""),
        (
            "alter table agent_controls alter company_id set not null",
            "column",
            "agent_controls.company_id",
            "no global row",
        ),
    ],
)
def test_what_is_taken_away_is_named(pg_server: PgServer, sql: str, kind: str, name: str, said: str) -> None:
    """Each change of the reference changes the state of its object and says how."""
    sql = f"delete from agent_controls; {sql}" if "agent_controls" in sql else sql
    _, found = reference_after(pg_server, sql)
    one = found.of(kind, name)
    assert one is not None
    assert one.presence is (Presence.DIFFERS if said else Presence.ABSENT)
    assert said in one.detail


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        (
            FLAG_KEY,
            NO_FLAG_KEY,
            f"create unique index on feature_flags (key, coalesce(company_id, '{uuid.UUID(int=0)}'))",
        ),
        (FLAG_KEY, NO_FLAG_KEY, f"{ONE_GLOBAL_ROW}; alter table feature_flags add unique (key, company_id)"),
        (FLAG_KEY, NO_FLAG_KEY, f"{ONE_GLOBAL_ROW}; {OF_TENANTS}"),
        (
            "agent_tasks(event_id)",
            NO_EFFECT_KEY,
            "create unique index on agent_tasks (event_id) where event_id is not null",
        ),
    ],
)
def test_other_ways_to_the_same_key(pg_server: PgServer, key: str, old: str, new: str) -> None:
    """An index over coalesce, or a second one for global rows, is as good as NULLS NOT DISTINCT."""
    _, found = reference_after(pg_server, f"{old}; {new}")
    one = found.of("key", key)
    assert one is not None
    assert one.presence is Presence.PRESENT


def test_defects_come_by_harm(pg_server: PgServer) -> None:
    """Open tenants come before repeated runs, and those before a rollout without steps."""
    schema, found = reference_after(
        pg_server,
        f"{NO_RUN_KEY};"
        " alter table companies disable row level security; drop trigger audit_logs_append_only on audit_logs",
    )
    rows = RowsSeen({}, has_pause_row=False)
    seen = [d.subject for d in defects(schema, found, contract(), rows, None, "outbox.enabled")]
    assert seen[:3] == ["public.companies", "public.replay_runs", "public.feature_flags: outbox.enabled"]
    assert "public.audit_logs" in seen


def test_a_claim_that_users_edit_is_a_defect() -> None:
    """It is reported, and drafted only without another claim of the tenant."""
    both = "select coalesce(auth.jwt() #>> '{user_metadata,org_id}', auth.jwt() #>> '{app_metadata,org_id}')"
    schema = Schema(claim_readers={"org": both})
    found = defects(schema, compare(schema, contract()), contract(), NOT_SEEN, None, "outbox.enabled")
    assert [(d.harm, d.subject) for d in found] == [(97, "user_metadata.org_id")]
    assert tenant_claim([], schema).claim == "app_metadata.org_id"
    assert not edited_claims([], Schema(claim_readers={"org": both.replace("user_metadata", "app_metadata")}))


def test_states_that_rows_hold_are_not_all_there_are(pg_server: PgServer) -> None:
    """If nothing lists the states, one that no row has at the moment is not missing."""
    with database(pg_server, "", TEMPLATE) as url:
        schema = schema_of(url)
    rows = RowsSeen(FLAGS.flags, has_pause_row=True, values={("public.events", "path"): ("outbox",)})
    one = compare(schema, contract(), rows=rows).of("values", "events.path")
    assert one is not None
    assert one.presence is Presence.PRESENT


def test_what_could_not_be_read_is_unknown_and_not_absent() -> None:
    """Without an answer of the catalogue nothing is called missing."""
    found = compare(Schema(unread={"tables": "not read: the lock"}), contract())
    assert {o.presence for o in found.objects if o.kind in {"table", "column"}} == {Presence.UNKNOWN}


@pytest.mark.parametrize("part", ["keys", "references", "enums", "checks", "policies", "triggers"])
def test_a_part_that_was_not_read_is_no_defect(pg_server: PgServer, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """If one part of the catalogue is slow, keys or row security may be unknown, and nothing differs or is absent."""

    def slow(path: Path) -> str:
        return "select pg_sleep(%(oids)s::text::int)" if path.stem == part else sql(path)

    monkeypatch.setattr("gates.doctor.reading.catalogue.sql", slow)
    schema, found = reference_after(pg_server, "")
    assert set(found.unread) == {part}
    assert not [o for o in found.objects if o.presence in {Presence.DIFFERS, Presence.ABSENT}]
    doubtful = {"keys": "key", "policies": "row security"}.get(part)
    assert {o.presence for o in found.objects if o.kind == doubtful} == ({Presence.UNKNOWN} if doubtful else set())
    assert all(d.harm < 40 for d in defects(schema, found, contract(), FLAGS, None, "outbox.enabled"))


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ({"role": "platform"}, ("role", "platform")),
        ({"realm_access": {"roles": ["root"]}}, ("realm_access.roles[]", "root")),
        ({"roles": ["a", "b"], "scope": "admin"}, ("scope", "admin")),
        ({"role": 7, "app_metadata": "x"}, ("", "")),
        ({}, ("", "")),
    ],
)
def test_an_administrators_token_shows_its_role(claims: dict[str, object], found: tuple[str, str]) -> None:
    """It shows the place of the role and its name; of several roles it is unclear which counts."""
    assert role_in(claims) == found


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
