"""What gate.yaml says comes before every guess, and advice uses all of it."""

import re
from typing import Any

import pytest

from gates.contract.contract import contract
from gates.contract.names import names_of
from gates.doctor.comparison.compare import ComparedObject, Presence, compare
from gates.doctor.diagnosis import judge, view_database
from gates.doctor.grants import grants
from gates.doctor.reading.schema import RowPolicy, Schema, SchemaColumn, SchemaRole, SchemaTable
from gates.doctor.said import settled
from gates.doctor.sqltypes import SPELLED
from tests.gates.doctor.databases import database
from tests.postgres_fixture import PgServer


@pytest.mark.parametrize(
    ("kind", "part", "said", "shown"),
    [
        ("answer member", {"fields": {"status": ["state"]}}, "status", "state"),
        ("answer member", {"fields": {"status": ["state", "phase"]}}, "status", "state or phase"),
        ("refusal", {"codes": {"forbidden": ["not_found", 404]}}, "forbidden", "not_found (404)"),
        ("refusal", {"codes": {"forbidden": "denied"}}, "forbidden", "denied"),
    ],
)
def test_names_over_http_are_shown_as_they_are_said(kind: str, part: dict[str, object], said: str, shown: str) -> None:
    """A member's list shows its names, a code's list its status."""
    one = ComparedObject(kind, f"POST /dlq-replay {said}", "replay", Presence.ABSENT)
    (found,) = settled([one], names_of({"http": part}), Schema())
    assert (found.presence, found.real, found.said) == (Presence.RENAMED, shown, True)


SHOP = """
create table toggles (name text primary key, active boolean not null, percent smallint not null);
insert into toggles values ('outbound_delivery', true, 100), ('retry_api', true, 100);
create table emergency_stop (only_row boolean primary key, stopped boolean not null);
create table merchants (id text primary key, display_name text not null);
create table throttle_windows (merchant_id text not null, client_addr text not null, window_at timestamptz not null,
  hits int not null default 1, primary key (merchant_id, client_addr, window_at));
create table outbound_messages (id bigint generated always as identity primary key, merchant_id text not null,
  event_id text not null, generation int not null, topic text not null, body jsonb not null, tries int not null,
  created_at timestamptz not null, delivered_at timestamptz, unique (event_id, generation));
create table failed_jobs (id bigint generated always as identity primary key, merchant_id text not null,
  event_id text not null, topic text not null, body jsonb not null, error text not null, tries int not null,
  state text not null check (state in ('open', 'requeued', 'discarded')), failed_at timestamptz not null);
create table inbox (event_id text primary key, merchant_id text not null, topic text not null, body jsonb not null,
  received_at timestamptz not null, deliveries int not null default 1);
"""
SAID: dict[str, Any] = {
    "tables": {
        "companies": {"is": "merchants", "columns": {"name": "display_name"}},
        "feature_flags": {
            "is": "toggles",
            "columns": {"key": "name", "enabled": "active", "rollout_percentage": "percent"},
            "values": {"key": {"outbox.enabled": "outbound_delivery", "dlq.replay.enabled": "retry_api"}},
            "absent": ["company_id", "description", "version", "updated_at"],
        },
        "agent_controls": {
            "is": "emergency_stop",
            "columns": {"agents_paused": "stopped"},
            "absent": ["company_id", "pause_reason", "updated_at"],
        },
        "agent_tasks": {
            "is": "inbox",
            "columns": {"id": "event_id", "company_id": "merchant_id", "event_id": "event_id"},
        },
        "events": {"is": "outbound_messages", "columns": {"id": "event_id", "company_id": "merchant_id"}},
        "event_outbox": {"is": "outbound_messages", "columns": {"company_id": "merchant_id", "attempts": "tries"}},
    }
}
PARTS = {"agent_tasks(event_id)", "edge_rate_limits(key)"}


@pytest.mark.parametrize("said", [{}, SAID], ids=["guessed", "said"])
def test_no_advice_harms_a_healthy_schema(pg_server: PgServer, said: dict[str, Any]) -> None:
    """A key within a real key, or a column that stands for two, needs no new key."""
    with database(pg_server, SHOP) as url:
        view = view_database(url, contract(), names_of(said))
    found = judge(view, None, contract(), names_of(said), "outbox.enabled")
    assert not [d.remedy for d in found.defects if " add unique" in d.remedy]
    assert {o.presence for o in found.objects if o.kind == "key" and o.name in PARTS} <= {
        Presence.RENAMED,
        Presence.PRESENT,
        Presence.UNKNOWN,
        Presence.ABSENT,
    }


@pytest.mark.parametrize("said", [{}, SAID], ids=["guessed", "said"])
def test_rows_for_everybody_need_no_policy(pg_server: PgServer, said: dict[str, Any]) -> None:
    """Flags and pauses without a tenant belong to no tenant."""
    with database(pg_server, SHOP) as url:
        view = view_database(url, contract(), names_of(said))
    found = judge(view, None, contract(), names_of(said), "outbox.enabled")
    security = {o.name: o.presence for o in found.objects if o.kind == "row security"}
    assert {security[n] for n in ("feature_flags", "agent_controls") if n in security} == {Presence.UNKNOWN}
    assert Presence.DIFFERS in security.values(), "tables with a tenant stay judged"


def test_flags_have_the_keys_that_are_said(pg_server: PgServer) -> None:
    """Mapped keys are looked for, those of unclaimed areas are not. A row that may be missing is no defect."""
    names = names_of(SAID).within(["budgets"])
    with database(pg_server, SHOP) as url:
        view = view_database(url, contract(), names)
    found = judge(view, None, contract(), names, "outbox.enabled")
    flags = {o.name: o for o in found.objects if o.kind == "flag"}
    assert (flags["outbox.enabled"].presence, flags["outbox.enabled"].real) == (Presence.RENAMED, "outbound_delivery")
    assert flags["security.signing_v2_required"].presence == Presence.ABSENT
    assert not [d for d in found.defects if "global row" in d.seen]


@pytest.mark.parametrize(("said", "asks"), [({"authenticated": "shop_api"}, "postgres"), ({}, "release_gate")])
def test_a_login_of_the_gate_is_no_tenants_role(said: dict[str, str], asks: str) -> None:
    """Most policies are for it; the current login and gate.yaml outweigh that."""
    mine = [RowPolicy(f"release_gate_{p}", "*", True, ("release_gate",), "mine()") for p in ("inserts", "deletes")]
    all_rows = RowPolicy("release_gate_sees_all", "r", True, ("release_gate",), "true")
    theirs = RowPolicy("own", "*", True, ("shop_api",), "company_id = me()")
    columns = {n: SchemaColumn(n, SPELLED.get(t, t)) for n, t in contract().relations["event_outbox"].columns.items()}
    tables = (SchemaTable("public", "event_outbox", "r", columns, policies=(theirs, *mine, all_rows), secured=True),)
    roles = tuple(SchemaRole(n, login=True) for n in ("shop_api", "release_gate"))
    schema, names = Schema(tables=tables, roles=roles, login=asks), names_of({"roles": said} if said else {})
    found = compare(schema, contract(), names=names)
    assert found.roles["authenticated"].role.name == "shop_api"
    script = grants(schema, found, "release_gate")
    assert 'grant "shop_api" to "release_gate"' in script
    assert 'grant "release_gate" to' not in script


def test_the_login_may_empty_what_the_service_fills_for_a_tenant(pg_server: PgServer) -> None:
    """Each table of `own_tables` is granted, to be read and emptied; one that nobody names is none of the gate's. The
    script can be run again: every policy of its own goes before it is made. No transaction locks two tables: beside a
    service at work it would end in a deadlock, of the script or of a customer.
    """
    own = "create schema app; create table app.allowance_use (merchant_id text not null references public.merchants);"
    with database(pg_server, f"{SHOP}; {own} alter table app.allowance_use enable row level security") as url:
        view = view_database(url, contract(), names_of(SAID))
    found = judge(view, None, contract(), names_of(SAID), "outbox.enabled")
    named = names_of({**SAID, "own_tables": {"app.allowance_use": "merchant_id"}})
    assert "allowance_use" not in grants(found.schema, found.comparison)
    script = grants(found.schema, found.comparison, names=named)
    assert 'grant select, delete on "app"."allowance_use" to "replay_gate";' in script
    assert 'grant usage on schema "app"' in script
    made = re.findall(r"^create policy (\S+ on \S+)", script, re.MULTILINE)
    assert '"replay_gate_deletes" on "app"."allowance_use"' in made
    assert re.findall(r"^drop policy if exists (\S+ on \S+);", script, re.MULTILINE) == made
    alone = re.findall(r"^begin;.*?$(.*?)^commit;$", script, re.MULTILINE | re.DOTALL)
    locked = [re.findall(r"^create policy \S+ on (\S+)", one, re.MULTILINE) for one in alone]
    assert all(len(set(one)) <= 1 for one in locked)
    assert len(made) == sum(map(len, locked))
