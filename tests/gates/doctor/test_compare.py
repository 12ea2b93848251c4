"""A schema compared with the contract: the reference is complete, and each removed object is named."""

import uuid
from pathlib import Path

import pytest

from gates.contract.contract import contract
from gates.deployment.sql.database import sql
from gates.doctor.comparison.compare import NOT_SEEN, Comparison, Presence, RowsSeen, compare
from gates.doctor.defects import defects
from gates.doctor.matching.actors import edited_claims, role_in, tenant_claim
from gates.doctor.reading.schema import Schema
from tests.gates.doctor.databases import database, schema_of
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
