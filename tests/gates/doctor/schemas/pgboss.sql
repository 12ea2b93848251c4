-- The tables of pg-boss, as far as they make it known.
create schema pgboss;
create type pgboss.job_state as enum ('created', 'retry', 'active', 'completed', 'cancelled', 'failed');
create table pgboss.version (version int primary key, maintained_on timestamptz, cron_on timestamptz);
create table pgboss.queue (name text primary key, policy text, retry_limit int, retry_delay int, dead_letter text, created_on timestamptz, updated_on timestamptz);
create table pgboss.job (
  id uuid not null default gen_random_uuid(), name text not null, priority int not null default 0, data jsonb, state pgboss.job_state not null default 'created',
  retry_limit int not null default 2, retry_count int not null default 0, retry_delay int not null default 0, start_after timestamptz not null default now(),
  started_on timestamptz, singleton_key text, singleton_on timestamp, created_on timestamptz not null default now(), completed_on timestamptz,
  keep_until timestamptz, output jsonb, dead_letter text, primary key (name, id)
) partition by list (name);
create table pgboss.schedule (name text primary key, cron text, timezone text, data jsonb, created_on timestamptz);
