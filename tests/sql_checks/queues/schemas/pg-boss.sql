-- schema 46 (12.38), with the table of the jobs in one piece
create schema pgboss;
create type pgboss.job_state as enum ('created', 'retry', 'active', 'completed', 'cancelled', 'failed');
create table pgboss.version (version int primary key, cron_on timestamptz);
insert into pgboss.version values (46);
create table pgboss.queue (name text primary key, policy text, dead_letter text references pgboss.queue (name));
insert into pgboss.queue values ('mail'), ('slow');
create table pgboss.schedule (
  name text references pgboss.queue, key text not null default '', created_on timestamptz not null default now(),
  primary key (name, key)
);
create table pgboss.job (
  id uuid not null default gen_random_uuid(),
  name text not null references pgboss.queue (name),
  priority integer not null default 0,
  data jsonb,
  state pgboss.job_state not null default 'created',
  retry_limit integer not null default 2,
  retry_count integer not null default 0,
  retry_delay integer not null default 0,
  retry_backoff boolean not null default false,
  retry_delay_max integer,
  expire_seconds integer not null default 900,
  heartbeat_on timestamptz,
  heartbeat_seconds integer,
  singleton_key text,
  policy text,
  start_after timestamptz not null default now(),
  created_on timestamptz not null default now(),
  started_on timestamptz,
  completed_on timestamptz,
  keep_until timestamptz not null default now() + interval '14 days',
  blocked boolean not null default false,
  blocking boolean not null default false,
  pending_dependencies integer not null default 0,
  source_root_id uuid,
  primary key (name, id)
);
create index on pgboss.job (name, priority desc, created_on, start_after) where state < 'active' and not blocked;
create table pgboss.job_dependency (
  child_name text, child_id uuid, parent_name text, parent_id uuid, primary key (child_name, child_id, parent_name, parent_id)
);
create table pgboss.bam (id uuid, command text, table_name text, status text);
create table pgboss.instance (
  id uuid primary key, heartbeat_on timestamptz, heartbeat_seconds integer not null default 30, stopped_on timestamptz,
  workers jsonb not null default '[]'
);
