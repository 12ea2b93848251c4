-- id: sql/spot/audit-privileges
-- claim: Service, worker and tenants hold no right to change audit rows, and may call no function that switches off what guards them.
-- cost: One trigger is all that stands between a bug and the trail.
-- severity: warn
-- reads: catalogue
-- covers: I08
with recursive trail as (
  -- its partitions, too, and what inherits from it
  select to_regclass('public.audit_logs')::oid as oid
  union
  select i.inhrelid from trail join pg_inherits i on i.inhparent = trail.oid
)
select distinct format('%s on %s', r.rolname, trail.oid::regclass) as subject,
       format('holds %s', p) || case when not pg_has_role(r.oid, o.oid, 'USAGE') then format(' once it is %s (SET ROLE)', o.rolname) else '' end as detail,
       null::text as witness
from pg_roles r
-- itself, and whoever it may become
join pg_roles o on pg_has_role(r.oid, o.oid, 'MEMBER') and not o.rolsuper
cross join trail
cross join unnest(array['UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) p
where r.rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon')
  and not r.rolsuper
  -- a right on one column is one
  and case when p = 'UPDATE' then has_any_column_privilege(o.oid, trail.oid, p) else has_table_privilege(o.oid, trail.oid, p) end
  -- who is the owner, sql/spot/service-roles and no-role-escape say
  and not pg_has_role(o.oid, (select relowner from pg_class where pg_class.oid = trail.oid), 'MEMBER')
union all
select f.oid::regprocedure::text, format('%s may call it: it switches off what guards the trail', r.rolname), f.prosrc
from pg_proc f
join pg_class t on t.oid = to_regclass('public.audit_logs') and f.proowner = t.relowner
join pg_roles r on r.rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon') and not r.rolsuper
where f.prosecdef and has_function_privilege(r.oid, f.oid, 'EXECUTE') and has_schema_privilege(r.oid, f.pronamespace, 'USAGE')
  and f.prosrc ~ ('\m' || regexp_replace(t.relname, '\W', '.', 'g') || '\M')
  and f.prosrc ~* '\m(disable|drop)\s+trigger\M|\msession_replication_role\M';

-- seen:
select count(*) as seen from pg_roles where rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon');
