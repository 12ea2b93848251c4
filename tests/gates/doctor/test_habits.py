"""Common habits of deployments are drafted, with their evidence and how sure it is."""

import datetime as dt
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from gates.contract.contract import contract
from gates.contract.names import Names
from gates.decision.policy_file import parse
from gates.doctor.diagnosis import judge, view_database
from gates.doctor.draft.draft import draft
from tests.gates.doctor.databases import database
from tests.postgres_fixture import TEMPLATE, PgServer

SCHEMA = """
create schema hub;
create function hub.token() returns jsonb language sql stable as
  $$ select coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb $$;
create function hub.mine() returns text language sql stable as $$ select hub.token() -> 'ctx' -> 'shop' ->> 'id' $$;
create table hub.shops (id text primary key, name text not null);
insert into hub.shops select 'shop_' || md5(n::text), 'n' from generate_series(1, 9) n;
create table hub.toggles (
  name text not null, shop_id text references hub.shops, is_on boolean not null, percent int not null, note text,
  changed_at timestamptz, revision bigint, deleted_at timestamptz);
create unique index once on hub.toggles (name, shop_id) nulls not distinct where deleted_at is null;
create function hub.open_for(shop text, toggle text) returns boolean language sql stable as
  $$ select is_on from hub.toggles where name = toggle and shop_id = shop and deleted_at is null $$;
create table hub.failed_jobs (
  id bigserial primary key, shop_id text references hub.shops, event_id uuid, event_type text, payload jsonb,
  error_type text, error_message text, retry_count int, max_retries int, retry_after timestamptz,
  created_at timestamptz, is_archived boolean not null,
  state text check (state in ('waiting', 'replaying', 'resolved', 'discarded')));
alter table hub.failed_jobs enable row level security;
create policy own on hub.failed_jobs using (shop_id = hub.mine());
create table hub.outbox (
  id bigserial primary key, event_id uuid, shop_id text references hub.shops, event_type text, payload jsonb,
  created_at timestamptz, published_at timestamptz, locked_until timestamptz, attempts int, deleted_at timestamptz);
create unique index of_event on hub.outbox (event_id) where deleted_at is null;
create table hub.replay_calls (
  id bigserial primary key, route text not null, shop_id text not null references hub.shops, client_ip inet not null,
  called_at timestamptz not null);
create function hub.count_call(shop text, ip inet) returns boolean language plpgsql as $$ begin
  if (select count(*) from hub.replay_calls c where c.shop_id = shop and c.client_ip = ip
      and called_at > now() - interval '2 minutes') >= 7 then return false; end if;
  insert into hub.replay_calls (route, shop_id, client_ip, called_at) values ('replay', shop, ip, now()); return true;
end $$;
"""
CALLS = "calls: {at: called_at, company: shop_id, address: client_ip}  # likely: by"
DRAFTED = {
    "a nested claim, read through another function": r"  tenant_claim: ctx\.shop\.id  # likely",
    "ids that begin alike": r'company_id: "shop_\{hex\}".*# likely: so are the ids of its rows',
    "flags by who reads them": r"is_feature_enabled: \{is: open_for, arguments: \[company, key\]",
    "a rate limit of single calls": re.escape(CALLS),
    "of several routes, by a person": r"""# rows: "route = 'replay'"  # does it count other calls""",
    "what a row of the gate's needs": r"""also:.*\n +route: "'gate'" """.rstrip(),
    "deleted flags, by their key": r'      rows: "deleted_at is null"  # likely: the unique key once leaves',
    "archived letters, which nothing shows": r'      # rows: "not is_archived"  # perhaps: .*take the # away',
    "what was counts for good": r'      # rows: "deleted_at is null"  # perhaps: the unique key of_event',
    "limits, by the function": r"    calls: 7  # likely: hub\.count_call counts so\n    window_s: 120  # likely",
    "and what nothing tells": r"  # limits: nothing tells these, .*batch 50.*token_leeway_s 30",
}


@pytest.fixture(scope="module")
def drafted(pg_server: PgServer) -> str:
    with database(pg_server, SCHEMA) as url:
        found = judge(view_database(url, contract(), Names()), None, contract(), Names(), "outbox.enabled")
    return draft(found, contract())


@pytest.mark.parametrize("habit", DRAFTED)
def test_drafted(habit: str, drafted: str) -> None:
    """Each habit shows its evidence and how sure it is; without evidence it is a comment."""
    assert re.search(DRAFTED[habit], drafted), drafted


def test_a_table_of_which_nothing_is_sure_is_a_comment_whole(pg_server: PgServer, tmp_path: Path) -> None:
    """A table with only unsure lines is commented out, so that the draft is valid YAML."""
    sql = "alter table dead_letter_queue add column deleted_at timestamptz"
    with database(pg_server, sql, TEMPLATE) as url:
        found = judge(view_database(url, contract(), Names()), None, contract(), Names(), "outbox.enabled")
    text = draft(found, contract())
    assert '      # rows: "deleted_at is null"  # perhaps' in text
    parse("version: 1\n" + text, "gate.yaml", tmp_path, dt.date(2026, 1, 1))


UNLIKE: Mapping[str, str] = {
    "visits of pages": "create table {}.page_visits (shop_id text references hub.shops, ip inet, seen_at timestamptz);",
    "calls of nobody": "create table {}.api_calls (ip inet, called_at timestamptz);",
    "calls with two times": "create table {}.calls (shop_id text references hub.shops, ip inet, began_at timestamptz,"
    " ended_at timestamptz);",
}


@pytest.mark.parametrize("what", UNLIKE)
def test_what_is_no_rate_limit(what: str, pg_server: PgServer) -> None:
    """A log of visits is none, nor is a table of calls without a caller or with two times."""
    sql = re.sub(r"create table hub\.replay_calls \([^;]*;", UNLIKE[what].format("hub"), SCHEMA)
    with database(pg_server, sql) as url:
        found = judge(view_database(url, contract(), Names()), None, contract(), Names(), "outbox.enabled")
    assert "calls: {" not in draft(found, contract())
