-- A hub for parcels: four schemas, ids of type text with a prefix, enums in capitals, a native partition whose primary key
-- has the tenant in it, flags and a trail with words of their own.
create schema core;
create schema messaging;
 create schema control; create schema compliance;

create table core.account (
  account_ref text primary key default 'acc_' || gen_random_uuid(),
  display_name text not null,
  onboarded_at timestamptz not null default now()
);

create type messaging.route as enum ('QUEUED', 'INLINE');
create type messaging.phase as enum ('WAITING', 'IN_FLIGHT', 'DONE', 'DROPPED');
create type messaging.outcome as enum ('RUNNING', 'FINISHED', 'HALTED', 'BROKEN');
create type messaging.work_state as enum ('WAITING', 'WORKING', 'SUCCEEDED', 'FAILED');

create table messaging.domain_event (
  event_ref text primary key default 'evt_' || gen_random_uuid(),
  account_ref text not null references core.account on delete cascade,
  kind text not null,
  ordering_key text,
  body jsonb not null,
  route messaging.route not null default 'QUEUED',
  recorded_at timestamptz not null default now(),
  tx xid8 not null default pg_current_xact_id()
);

create table messaging.redrive (
  redrive_ref text primary key default 'rdv_' || gen_random_uuid(),
  dedupe_token text not null,
  account_ref text not null references core.account on delete cascade,
  started_by text not null,
  request_digest text not null,
  outcome messaging.outcome not null default 'RUNNING',
  planned int not null default 0,
  ok_count int not null default 0,
  bad_count int not null default 0,
  answer jsonb,
  requested_at timestamptz not null default now(),
  finished_at timestamptz,
  tx xid8 not null default pg_current_xact_id(),
  constraint redrive_once unique (account_ref, dedupe_token)
);

create table messaging.outgoing (
  seq bigint generated always as identity,
  event_ref text not null default 'evt_' || gen_random_uuid(),
  account_ref text not null references core.account on delete cascade,
  kind text not null,
  ordering_key text,
  body jsonb not null,
  enqueued_at timestamptz not null default clock_timestamp(),
  sent_at timestamptz,
  buried_at timestamptz,
  leased_until timestamptz,
  tries int not null default 0,
  due_at timestamptz not null default now(),
  redrive_ref text references messaging.redrive on delete cascade,
  tx xid8 not null default pg_current_xact_id(),
  primary key (account_ref, seq)
) partition by hash (account_ref);
create table messaging.outgoing_p0 partition of messaging.outgoing for values with (modulus 2, remainder 0);
create table messaging.outgoing_p1 partition of messaging.outgoing for values with (modulus 2, remainder 1);

create table messaging.parked (
  parked_ref text primary key default 'prk_' || gen_random_uuid(),
  account_ref text not null references core.account on delete cascade,
  event_ref text,
  kind text not null,
  ordering_key text,
  body jsonb not null,
  fault_code text not null,
  fault_text text,
  tries int not null default 0,
  tries_allowed int not null default 5,
  eligible_at timestamptz not null default now(),
  phase messaging.phase not null default 'WAITING',
  parked_at timestamptz not null default now(),
  redrive_ref text references messaging.redrive on delete set null
);

create table messaging.handled (
  handled_no bigint generated always as identity primary key,
  account_ref text not null references core.account on delete cascade,
  handler text not null default 'dispatcher',
  event_ref text,
  state messaging.work_state not null default 'WAITING',
  begun_at timestamptz not null default clock_timestamp(),
  changed_at timestamptz not null default clock_timestamp(),
  tx xid8 not null default pg_current_xact_id(),
  constraint handled_once unique (event_ref)
);

create table control.switch (
  switch_no bigint generated always as identity primary key,
  switch_name text not null,
  account_ref text references core.account on delete cascade,
  is_on boolean not null default false,
  percent smallint not null default 100 check (percent between 0 and 100),
  note text,
  changed_at timestamptz not null default now(),
  revision bigint not null default 1,
  constraint switch_once unique nulls not distinct (switch_name, account_ref)
);

create function control.switch_on(p_name text, p_account text) returns boolean
language sql stable security definer set search_path = control, pg_catalog as $$
  select coalesce(
    (select s.is_on and (
        ('x' || substr(encode(sha256(convert_to(lower(p_name || ':' || p_account::text), 'UTF8')), 'hex'), 1, 8))::bit(32)::bigint % 100) < s.percent
     from control.switch s
     where s.switch_name = p_name and (s.account_ref = p_account or s.account_ref is null)
     order by s.account_ref nulls last limit 1),
    p_name = 'quota.enforced', false)
$$;
create view control.switch_overview with (security_invoker = true) as
select s.switch_name, s.account_ref, a.display_name, s.is_on, s.percent, s.note, s.changed_at
from control.switch s left join core.account a using (account_ref);

create table control.quota (
  account_ref text primary key references core.account on delete cascade,
  per_day int not null default 500 check (per_day >= 0),
  per_month int not null default 10000 check (per_month >= 0),
  used_today int not null default 0 check (used_today >= 0),
  used_this_month int not null default 0 check (used_this_month >= 0),
  today date not null default (now() at time zone 'UTC')::date,
  this_month date not null default date_trunc('month', now() at time zone 'UTC')::date
);
create view control.quota_overview with (security_invoker = true) as
select q.account_ref, a.display_name, q.per_day, q.per_month, d.used as used_today, m.used as used_this_month,
  greatest(q.per_day - d.used, 0) as left_today, greatest(q.per_month - m.used, 0) as left_this_month,
  case when d.used >= q.per_day or m.used >= q.per_month then 'EXHAUSTED' else 'OK' end as standing
from control.quota q join core.account a using (account_ref)
cross join lateral (select case when q.today = (now() at time zone 'UTC')::date then q.used_today else 0 end as used) d
cross join lateral (select case when q.this_month = date_trunc('month', now() at time zone 'UTC')::date then q.used_this_month else 0 end as used) m;

create table control.throttle (
  bucket text primary key,
  stamps timestamptz[] not null default '{}',
  calls int generated always as (cardinality(stamps)) stored,
  opened_at timestamptz generated always as (stamps[1]) stored
);

create table control.brake (
  brake_no bigint generated always as identity primary key,
  account_ref text references core.account on delete cascade,
  engaged boolean not null default false,
  why text,
  changed_at timestamptz not null default now(),
  constraint brake_once unique nulls not distinct (account_ref)
);

create table compliance.trail (
  entry_no bigint generated always as identity,
  verb text not null,
  who text not null,
  realm text not null,
  planned int,
  ok_count int,
  bad_count int,
  extra jsonb not null default '{}',
  trace_ref text,
  at timestamptz not null default clock_timestamp(),
  prev_digest text not null default '',
  digest text not null default '',
  tx xid8 not null default pg_current_xact_id(),
  primary key (entry_no)
);
create table compliance.trail_tip (
  realm text primary key, last_no bigint not null default 0,
  last_digest text not null default repeat('0', 64), entries bigint not null default 0
);
