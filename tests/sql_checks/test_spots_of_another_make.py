"""Spot checks pass on schemas that keep the contract in another way than the reference."""

import pytest

from gates.deployment.sql.database import script
from sql_checks.spotfile import read_folder
from sql_checks.spotrun import judge_spot
from tests.sql_checks.conftest import PlantedSession, outcome_of

SPOTS = {spot.spec.id.removeprefix("sql/spot/"): spot for spot in read_folder()}

SPLIT_BY_SCOPE = """
alter table public.audit_logs drop constraint audit_logs_pkey;
alter table public.audit_logs add primary key (scope, id)
"""
STATES_OF_A_TYPE = """
create type task_state as enum ('queued', 'running', 'completed', 'failed');
drop table public.agent_tasks cascade;
create table public.agent_tasks (id bigserial primary key, company_id uuid not null, agent_name text,
  event_id uuid unique,
  status task_state not null default 'completed',
  created_at timestamptz default now(), updated_at timestamptz default now());
insert into public.agent_tasks (company_id) select id from public.companies
"""
PARTITION_WITHOUT_POLICIES = """
create table parted (company_id uuid not null) partition by hash (company_id);
create table parted_0 partition of parted for values with (modulus 1, remainder 0);
alter table parted enable row level security;
alter table parted_0 enable row level security;
create policy own on parted for select to authenticated using (company_id is null)
"""
KEY_INDEXED_WHERE_SET = """
create table "Note" (id int primary key, "Run" uuid references replay_runs (id));
create index on "Note" ("Run") where "Run" is not null
"""
PARTITIONS = """
alter table public.events rename to events_before;
create table events (like events_before including defaults) partition by range (created_at);
create table events_before_2020 partition of events for values from (minvalue) to ('2020-01-01');
create table events_since partition of events for values from ('2020-01-01') to ('2120-01-01');
create table events_rest partition of events for values from ('2120-01-01') to (maxvalue)
"""
INDEXES = """
create index by_type on public.event_outbox (event_type);
create index by_type_in_bytes on public.event_outbox (event_type collate "C");
create index twin_ccnew on public.event_outbox (event_type);
update pg_index set indisvalid = false where indexrelid = 'twin_ccnew'::regclass
"""
ONE_EFFECT_WITHIN_A_TENANT = """
alter table public.agent_tasks drop constraint agent_tasks_event_id_key;
alter table public.agent_tasks add unique (company_id, event_id)
"""


@pytest.mark.parametrize(
    ("name", "statements"),
    [
        ("unique-keys", SPLIT_BY_SCOPE),
        ("known-states", STATES_OF_A_TYPE),
        ("partitions-ahead", PARTITIONS),
        ("lint-duplicate-indexes", INDEXES),
        ("lint-policies-in-use", PARTITION_WITHOUT_POLICIES),
        ("one-effect-per-event", ONE_EFFECT_WITHIN_A_TENANT),
        ("lint-foreign-keys-indexed", KEY_INDEXED_WHERE_SET),
    ],
)
def test_green_on_another_make(name: str, statements: str, planted: PlantedSession) -> None:
    """What the contract leaves open is no violation."""
    planted.planted.execute("set local search_path = public, pg_catalog")
    script(planted.planted, statements)
    planted.planted.execute("set local search_path = pg_catalog, pg_temp")
    outcome, message, _ = outcome_of(lambda seen: judge_spot(SPOTS[name], planted, seen))
    assert (outcome, message) == ("pass", "")
