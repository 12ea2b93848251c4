-- id: sql/spot/audit-privileges
-- claim: Service, worker and tenants hold no right to change audit rows.
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
select format('%s on %s', r.rolname, trail.oid::regclass) as subject,
       format('holds %s', p) as detail,
       null::text as witness
from pg_roles r
cross join trail
cross join unnest(array['UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) p
where r.rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon')
  and not r.rolsuper
  -- a right on one column is one
  and case when p = 'UPDATE' then has_any_column_privilege(r.oid, trail.oid, p) else has_table_privilege(r.oid, trail.oid, p) end;

-- seen:
select count(*) as seen from pg_roles where rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon');
