-- The contract's tables without rules, and functions that fill them: fixtures of the alert rules, the tables in `public`, the rest in a schema of their own.
create table public.companies (id uuid, name text);
create table public.event_outbox (
  id bigint generated always as identity, event_id uuid default gen_random_uuid(), company_id uuid, aggregate_key text,
  inserted_at timestamptz default now(), processed_at timestamptz, dead_at timestamptz, claimed_until timestamptz,
  next_attempt_at timestamptz default now(), txid xid8 default pg_current_xact_id());
create table public.agent_tasks (company_id uuid, status text, updated_at timestamptz);
create table public.agent_controls (company_id uuid, agents_paused boolean, updated_at timestamptz);
create table public.feature_flags (key text, company_id uuid, enabled boolean, updated_at timestamptz);
create table public.replay_runs (
  id uuid default gen_random_uuid(), company_id uuid, status text default 'completed', success_count int default 0,
  failure_count int default 0, requested_at timestamptz, completed_at timestamptz, txid xid8 default pg_current_xact_id());
create table public.audit_logs (
  action text, scope text, metadata jsonb default '{}', created_at timestamptz, txid xid8 default pg_current_xact_id());
create table public.audit_heads (scope text);
create table public.dead_letter_queue (
  company_id uuid, status text default 'pending', retry_count int default 0, max_retries int default 5, created_at timestamptz);
create table switched_off (company_id uuid);

create function c(n int) returns uuid language sql immutable as $$ select md5('company ' || n)::uuid $$;
create function excluding(n int) returns text language sql as $$ select set_config('replaygate.excluded', '{' || fixture.c(n) || '}', true) $$;
create function public.is_feature_enabled(key text, company uuid) returns boolean language sql stable as $$
  select key = 'outbox.enabled' and not exists (select from fixture.switched_off o where o.company_id = company) $$;

-- `count` events of company n, delivered `age` ago, `lag` after they came in
create function delivered(n int, count int, lag interval, age interval default '1 minute') returns void language sql as $$
  insert into public.event_outbox (company_id, inserted_at, processed_at)
  select fixture.c(n), now() - age - lag, now() - age from generate_series(1, count) $$;
-- `count` events of company n that came in `age` ago and wait
create function waiting(n int, count int, age interval, key text default null, due interval default null) returns void language sql as $$
  insert into public.event_outbox (company_id, inserted_at, next_attempt_at, aggregate_key)
  select fixture.c(n), now() - age, now() - coalesce(due, age), key from generate_series(1, count) $$;
create function tasks(n int, completed int, failed int, age interval default '1 minute') returns void language sql as $$
  insert into public.agent_tasks
  select fixture.c(n), case when i <= completed then 'completed' else 'failed' end, now() - age
  from generate_series(1, completed + failed) i $$;
create function run(n int, success int, failure int, age interval default '1 minute', status text default 'completed') returns void language sql as $$
  insert into public.replay_runs (company_id, status, success_count, failure_count, requested_at, completed_at)
  values (fixture.c(n), status, success, failure, now() - age - interval '1 second',
          case when status <> 'started' then now() - age end) $$;
create function company(n int) returns void language sql as $$ insert into public.companies values (fixture.c(n), 'company') $$;
create function audited(n int, action text, count int, age interval default '1 minute', metadata jsonb default '{}') returns void language sql as $$
  insert into public.audit_logs (action, scope, metadata, created_at)
  select action, fixture.c(n)::text, metadata, now() - age from generate_series(1, count) $$;
create function items(n int, count int, age interval, status text default 'pending', retries int default 0) returns void language sql as $$
  insert into public.dead_letter_queue (company_id, status, retry_count, created_at)
  select fixture.c(n), status, retries, now() - age from generate_series(1, count) $$;

-- the server's own views and functions, as far as rules read them; filled by the case
create table pg_stat_database (numbackends int);
create table pg_settings (name text, setting text);
create table pg_database (oid oid default 1, datname text, datfrozenxid int, datminmxid int default 1, datallowconn boolean default true);
create function age(transactions int) returns int language sql immutable as $$ select transactions $$;
create function mxid_age(members int) returns int language sql immutable as $$ select members $$;
create table pg_prepared_xacts (prepared timestamptz, database text default current_database());
create table pg_stat_activity (
  datname text default current_database(), pid int, xact_start timestamptz, query text default '', backend_type text default 'client backend');
create function pg_current_snapshot() returns pg_snapshot language sql immutable as $$ select '10:20:'::pg_snapshot $$;
create function pg_backend_pid() returns int language sql immutable as $$ select 1 $$;
create table pg_replication_slots (slot_name text, restart_lsn numeric);
create function pg_current_wal_lsn() returns numeric language sql immutable as $$ select 1099511627776 $$;
create function pg_wal_lsn_diff(a numeric, b numeric) returns numeric language sql immutable as $$ select a - b $$;
create table database_size (bytes bigint);
create function pg_database_size(database oid) returns bigint language sql stable as $$ select max(bytes) from fixture.database_size $$;
create table pg_stat_user_tables (relname text, n_live_tup bigint);
-- row security applies to the login, unless `bypassed` has a row
create table bypassed ();
create function row_security_active(t regclass) returns boolean language sql stable as $$ select not exists (select from fixture.bypassed) $$;
create table pg_policy (polrelid regclass, polcmd "char" default 'r', polpermissive boolean default true, polroles oid[] default '{0}', polqual text default 'true');
create function pg_get_expr(expression text, relation oid) returns text language sql immutable as $$ select $1 $$;
