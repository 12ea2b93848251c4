"""The fingerprint equals the reference; a weakening pages, an addition warns, another release is unknown."""

import psycopg
import pytest
from psycopg.rows import dict_row

from gates.deployment.sql.database import script
from gates.evidence import Severity
from sql_checks.fingerprint import KINDS, compare, load_manifest, other_release, read_schema
from tests.sql_checks.conftest import PlantedSession

PAGE, WARN = Severity.PAGE, Severity.WARN


def test_the_shipped_manifest_is_the_reference(planted: PlantedSession) -> None:
    """The repository's manifest is what the migrations make."""
    shipped = load_manifest(None)
    assert shipped is not None
    with planted.snapshot() as connection:
        found = read_schema(connection)
    assert shipped.migrations == found.migrations, "write it again: python -m sql_checks write-manifest"
    for kind in KINDS:
        assert not compare(kind, shipped.kinds[kind], found.kinds[kind])


@pytest.mark.parametrize(
    ("kind", "statement", "severity"),
    [
        ("columns", "alter table public.events drop column path", PAGE),
        ("columns", "alter table public.events alter payload drop not null", PAGE),
        ("columns", "alter table public.companies add column region text default 'eu'", WARN),
        ("columns", "create table regions (name text)", WARN),
        ("constraints", "alter table public.event_outbox drop constraint event_outbox_one_state", PAGE),
        ("constraints", "alter table public.companies add check (length(name) < 500)", WARN),
        ("indexes", "drop index event_outbox_event_idx", WARN),
        ("indexes", "create index extra on companies (name)", WARN),
        ("indexes", "alter table public.agent_tasks drop constraint agent_tasks_event_id_key", PAGE),
        ("triggers", "drop trigger audit_logs_chain on audit_logs", PAGE),
        ("triggers", "alter table public.audit_logs disable trigger audit_logs_chain", PAGE),
        ("policies", "drop policy tenant_sees_own on events", PAGE),
        ("policies", "alter policy tenant_sees_own on events using (true)", PAGE),
        ("policies", "create policy more on events for select to authenticated using (id is null)", PAGE),
        ("policies", "create policy less on events as restrictive for select to authenticated using (true)", WARN),
        ("grants", "grant insert on events to authenticated", PAGE),
        ("grants", "grant execute on function public.is_company_paused(uuid) to public", PAGE),
        ("grants", "grant select on events to pg_monitor", WARN),
        ("grants", "create table regions (name text); grant select on regions to authenticated", WARN),
        ("grants", "revoke select on events from replay_gate", WARN),
        ("functions", "alter function public.is_feature_enabled(text, uuid) security invoker", PAGE),
        (
            "functions",
            "create or replace function auth.jwt() returns jsonb language sql stable as $$ select '{}'::jsonb $$",
            PAGE,
        ),
        ("functions", "create function extra() returns int language sql as 'select 1'", WARN),
        ("views", "alter view feature_flags_status reset (security_invoker)", PAGE),
        ("row_security", "alter table public.events no force row level security", PAGE),
        ("row_security", "create table regions (name text)", WARN),
        ("roles", "alter role replay_service bypassrls", PAGE),
        ("roles", "alter role replay_gate createdb", WARN),
    ],
)
def test_a_difference_is_as_bad_as_what_it_weakens(
    kind: str, statement: str, severity: Severity, planted: PlantedSession
) -> None:
    """A weakening is a page; an addition of its own, or less than promised to the gate, at most a warn."""
    shipped = load_manifest(None)
    assert shipped is not None
    planted.planted.execute("set local search_path = public, pg_catalog")
    script(planted.planted, statement)
    planted.planted.execute("set local search_path = pg_catalog, pg_temp")
    differences = compare(kind, shipped.kinds[kind], read_schema(planted.planted).kinds[kind])
    assert differences
    assert differences[0].severity is severity, differences[0].text


def test_row_security_that_was_added_is_no_weakening() -> None:
    """Added row security warns at most; lost row security pages."""
    (added,) = compare("row_security", {"t": "off, not forced"}, {"t": "enabled, forced"})
    (lost,) = compare("row_security", {"t": "enabled, forced"}, {"t": "enabled, not forced"})
    assert (added.severity, lost.severity) == (WARN, PAGE)


@pytest.mark.parametrize(
    ("what", "differs"),
    [("member of anon, authenticated", False), ("superuser", True), ("member of anon, replay_owner", True)],
)
def test_the_login_of_the_gate_came_after_the_manifest(what: str, differs: bool) -> None:
    """The gate's own login that only steps into tenants' roles is no drift; one with more power is."""
    assert bool(compare("roles", {}, {"replay_gate": what}, "replay_gate")) is differs
    assert compare("roles", {}, {"replay_gate": what}, "another")


def test_the_login_of_the_gate_was_given_more_since() -> None:
    """What the gate's own login was given for deep drills after the manifest is no drift; what it lost is."""
    had, has = {"t to release_gate": "SELECT"}, {"t to release_gate": "SELECT, UPDATE"}
    assert compare("grants", had, has, "release_gate") == []
    assert compare("grants", had, has, "another")
    assert compare("grants", had, {}, "release_gate")


def test_a_schema_is_read_without_a_right_on_others(migrated_url: str) -> None:
    """The fingerprint needs no right on `public` or the schema of `auth.jwt()`: a deployment may revoke it."""
    with psycopg.connect(migrated_url, row_factory=dict_row) as connection:
        connection.execute("revoke usage on schema auth from public, replay_gate, authenticated")
        connection.execute("drop table public.schema_migrations")
        connection.execute("revoke usage on schema public from public, replay_gate, authenticated")
        connection.execute("set local role replay_gate")
        functions = read_schema(connection).kinds["functions"]
        connection.rollback()
    assert "auth.jwt()" in functions


def test_another_release_is_unknown(migrated_url: str) -> None:
    """If none of its migrations is recorded as applied, the manifest proves nothing."""
    shipped = load_manifest(None)
    assert shipped is not None
    with psycopg.connect(migrated_url, row_factory=dict_row) as connection:
        assert not other_release(shipped, read_schema(connection).migrations)
        connection.execute("update public.schema_migrations set checksum = 'other'")
        assert "another release" in other_release(shipped, read_schema(connection).migrations)
        connection.execute("drop table public.schema_migrations")
        assert "no version and checksum" in other_release(shipped, read_schema(connection).migrations)


def test_a_manifest_may_be_of_a_deployment_without_recorded_migrations(migrated_url: str) -> None:
    """If neither records migrations, the objects are compared."""
    with psycopg.connect(migrated_url, row_factory=dict_row) as connection:
        connection.execute("drop table public.schema_migrations")
        own = read_schema(connection)
        assert own.migrations == {}
        assert not other_release(own, {})
        assert not compare("columns", own.kinds["columns"], read_schema(connection).kinds["columns"])
