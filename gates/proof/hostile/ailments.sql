--! sound | a database in order: the control | all
--! no-version | the flags have no version | down
drop trigger feature_flags_touch on public.feature_flags; alter table public.feature_flags drop column version
--! no-percentage | the flags have no percentage | down
drop trigger feature_flags_touch on public.feature_flags;
alter table public.feature_flags drop column rollout_percentage cascade
--! null-cells | every cell of the flag that may be NULL is | down
drop trigger feature_flags_touch on public.feature_flags;
alter table public.feature_flags alter enabled drop not null, alter rollout_percentage drop not null, alter version
  drop not null;
update public.feature_flags set rollout_percentage = null, version = null where key = 'outbox.enabled'
--! percentage-nan | the percentage is NaN | down
drop trigger feature_flags_touch on public.feature_flags;
alter table public.feature_flags drop constraint feature_flags_rollout_range; drop view public.feature_flags_status;
alter table public.feature_flags alter rollout_percentage type float8;
update public.feature_flags set rollout_percentage = 'NaN' where key = 'outbox.enabled'
--! enabled-as-text | enabled is a text | no step
drop trigger feature_flags_touch on public.feature_flags; drop view public.feature_flags_status;
drop policy if exists owner_decides_flags on public.feature_flags;
alter table public.feature_flags alter enabled drop default, alter enabled type text using enabled::text
--! no-flag | the flag has no row | no step
delete from public.feature_flags where key = 'outbox.enabled'
--! no-table | the flags' table has another name | no step
alter table public.feature_flags rename to flags_of_old
--! view-for-table | the flags are a view of two columns | no step
alter table public.feature_flags rename to flags_of_old;
create view public.feature_flags as select key, enabled from public.flags_of_old;
grant select, update on public.feature_flags to replay_gate;
grant select, update on public.flags_of_old to replay_gate
--! no-pause-row | nobody has a row of the pause | all
delete from public.agent_controls
--! no-audit-table | the audit trail is not there | down | | unaudited
alter table public.audit_logs rename to logs_of_old
--! audit-swallowed | a rule swallows every audit row | down | | unaudited
create rule planted as on insert to public.audit_logs do instead nothing
--! change-swallowed | a trigger swallows every change of a flag | no step
create function public.planted() returns trigger language plpgsql as $$ begin return null; end $$;
create trigger planted before update on public.feature_flags for each row execute function public.planted();
--! change-undone | a trigger undoes every change of a flag | no step
create function public.planted() returns trigger language plpgsql as $$ begin return old; end $$;
create trigger planted before update on public.feature_flags for each row execute function public.planted();
--! other-percentage | a trigger sets another percentage than was asked for | off
create function public.planted() returns trigger language plpgsql as $$ begin new.rollout_percentage := 100; return
  new; end $$;
create trigger planted before update on public.feature_flags for each row execute function public.planted();
--! blind-login | a login that row-level security shows nothing | no step | blind
create role $LOGIN login password '$LOGIN' in role pg_monitor; grant usage on schema public to $LOGIN;
grant select, insert, update, delete on all tables in schema public to $LOGIN;
grant usage on all sequences in schema public to $LOGIN
--! reading-login | a login that may read alone | no step | reader
create role $LOGIN login password '$LOGIN' bypassrls; grant usage on schema public to $LOGIN;
grant select on all tables in schema public to $LOGIN
--! half-blind-login | a login that sees the tenants' rows and not the global one | no step | half
create role $LOGIN login password '$LOGIN'; grant usage on schema public to $LOGIN;
grant select, insert, update, delete on all tables in schema public to $LOGIN;
create policy half on public.feature_flags for all to $LOGIN using (company_id is not null)
--! no-connection | the login has no connection left | no step | full
create role $LOGIN login password '$LOGIN' connection limit 0
--! one-connection | the login has one connection alone | as it says | single
create role $LOGIN login password '$LOGIN' in role replay_gate connection limit 1;
alter role $LOGIN set role to replay_gate
--! read-only | the database is read-only by its settings | as it says
alter database $DATABASE set default_transaction_read_only = on
--! odd-settings | dates, intervals, bytes, time zone and search path of the database are odd | all
alter database $DATABASE set datestyle = 'German'; alter database $DATABASE set intervalstyle = 'sql_standard';
alter database $DATABASE set timezone = 'Asia/Kathmandu'; alter database $DATABASE set bytea_output = 'escape';
alter database $DATABASE set extra_float_digits = -15; alter database $DATABASE set search_path = 'nowhere';
alter database $DATABASE set statement_timeout = 1; alter database $DATABASE set lock_timeout = 1;
alter database $DATABASE set default_transaction_isolation = 'serializable';
alter database $DATABASE set standard_conforming_strings = off
--! many-overrides | five thousand tenants have a row of their own | off
insert into public.feature_flags (key, company_id, enabled, rollout_percentage) select 'outbox.enabled',
  pg_catalog.gen_random_uuid(), true, 100 from pg_catalog.generate_series(1, 5000)
--! times-out-of-this-world | audit rows from before Christ and for ever | off
alter table public.audit_logs alter metadata drop not null, alter prev_hash drop not null, alter hash drop not null,
  alter created_at drop not null;
alter table public.audit_logs disable trigger all;
insert into public.audit_logs (action, actor, scope, target_count, success_count, failure_count, metadata, created_at,
  id) select 'flag_promoted', 'x', 'all', 1, 1, 0, '{"key": "outbox.enabled"}', t::timestamptz, 1000000 + row_number()
  over () from pg_catalog.unnest(array['infinity', '-infinity', '0044-03-15 BC', '294276-12-31']) t;
alter table public.audit_logs enable trigger all
--! audit-of-no-object | audit rows whose metadata are a text, a list, NULL and a number | off
alter table public.audit_logs alter metadata drop not null, alter prev_hash drop not null, alter hash drop not null,
  alter created_at drop not null;
alter table public.audit_logs disable trigger all;
insert into public.audit_logs (action, actor, scope, target_count, success_count, failure_count, metadata, id) select
  'flag_promoted', 'x', 'all', 1, 1, 0, m::jsonb, 1000000 + row_number() over () from
  pg_catalog.unnest(array['"text"', '[1]', null, '12', 'true', '{"key": 1}']) m;
alter table public.audit_logs enable trigger all
--! audit-ends-the-session | whoever writes an audit row loses the session | down | | unaudited
create function public.planted() returns trigger language plpgsql as $$ begin
  perform pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid()); return new; end $$;
create trigger planted before insert on public.audit_logs for each row execute function public.planted()
--! other-percentage-late | a trigger sets another percentage than was asked for, at the commit | off
create function public.planted() returns trigger language plpgsql as $$ begin update public.feature_flags
  set rollout_percentage = 100 where key = new.key and rollout_percentage < 100; return null; end $$;
create constraint trigger planted after update on public.feature_flags deferrable initially deferred
  for each row execute function public.planted()
--! no-triggers | no trigger fires in this database | all
alter database $DATABASE set session_replication_role = replica
--! errors-end-sessions | an error ends its session, and the audit trail is not there | down | | unaudited
alter database $DATABASE set exit_on_error = on; alter table public.audit_logs rename to logs_of_old
