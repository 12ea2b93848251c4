-- id: sql/spot/no-role-escape
-- claim: Service, worker, tenants and gate cannot become an owner or a superuser, nor switch off all triggers, nor tenants and gate
--   become the service, nor tenants a role with policies or with rights over everybody's objects.
-- cost: One SET ROLE undoes all separation.
-- severity: page
-- reads: catalogue
-- covers: J19
with {{contract_tables}}, owners as (
  select distinct c.relowner from pg_class c join contract on c.oid = to_regclass(contract.name)
)
select *
from (
  select r.rolname::text as subject,
         format('is a member of %s', o.rolname)
           || case when o.rolsuper then ', a superuser' when o.rolbypassrls then ', which sees all rows (BYPASSRLS)'
                   when o.oid in (select relowner from owners) then ', which owns tables of the contract' else '' end as detail,
         null::text as witness
  from pg_roles r
  join pg_roles o on o.oid <> r.oid and pg_has_role(r.oid, o.oid, 'MEMBER')
  where r.rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon', 'replay_gate') and not r.rolsuper
    and (o.rolsuper or o.rolbypassrls or o.oid in (select relowner from owners)
      or o.rolname in ('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files', 'pg_write_all_data')
      or r.rolname in ('authenticated', 'anon', 'replay_gate') and o.rolname in ('replay_service', 'replay_worker')
      or r.rolname in ('authenticated', 'anon') and (o.rolname in ('replay_gate', 'pg_read_all_data', 'pg_maintain', 'pg_signal_backend',
          -- they show what everybody's sessions ask, or write to tables from elsewhere
          'pg_monitor', 'pg_read_all_stats', 'pg_create_subscription')
        -- what a member has without SET ROLE, the probe of row security sees for itself
        or not pg_has_role(r.oid, o.oid, 'USAGE') and exists (
          select from pg_policy p join contract on p.polrelid = to_regclass(contract.name)
          where p.polpermissive and o.oid = any(p.polroles))))
  union all
  select r.rolname::text, escape.how, null
  from pg_roles r
  cross join lateral (values
    -- later it may give what it has itself
    ('may give itself any role (CREATEROLE)', r.rolcreaterole and current_setting('server_version_num')::int < 160000),
    ('may switch off all triggers (SET session_replication_role)', has_parameter_privilege(r.oid, 'session_replication_role', 'SET, ALTER SYSTEM')),
    ('may change the server''s settings (ALTER SYSTEM)', exists (
      select from pg_parameter_acl p, aclexplode(p.paracl) a
      where a.privilege_type = 'ALTER SYSTEM' and (a.grantee = 0 or pg_has_role(r.oid, a.grantee, 'MEMBER')))),
    ('may read or write files of the server, or connect to others as the server', exists (
      select from pg_proc f
      where f.proname ~ '^(pg_read_(binary_)?file|pg_file_(write|unlink|rename)|lo_(import|export)|dblink_connect_u)$'
        and has_function_privilege(r.oid, f.oid, 'EXECUTE'))),
    ('may read passwords, or values of everybody''s rows, in the catalogue', r.rolname in ('authenticated', 'anon') and exists (
      select from unnest('{pg_authid,pg_statistic,pg_statistic_ext_data,pg_user_mapping,pg_largeobject}'::text[]) c
      where has_any_column_privilege(r.oid, 'pg_catalog.' || c, 'SELECT'))),
    ('may read every change (REPLICATION)', r.rolreplication and r.rolname in ('authenticated', 'anon'))) escape (how, is_so)
  where r.rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon', 'replay_gate') and not r.rolsuper and escape.is_so
) found
-- the gate has by membership what tenants have: theirs is the cause
order by subject = 'replay_gate', subject;

-- seen:
select count(*) as seen from pg_roles where rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon', 'replay_gate');
