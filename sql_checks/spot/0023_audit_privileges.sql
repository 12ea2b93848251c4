-- id: sql/spot/audit-privileges
-- claim: Service, worker and tenants hold no right to change audit rows.
-- cost: One trigger is all that stands between a bug and the trail.
-- severity: warn
-- reads: catalogue
-- covers: I08
select r.rolname || ' on ' || 'public.audit_logs' as subject,
       format('holds %s', p) as detail,
       null::text as witness
from pg_roles r
cross join unnest(array['UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) p
where r.rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon')
  and not r.rolsuper
  -- a right on one column is one
  and case when p = 'UPDATE' then has_any_column_privilege(r.oid, to_regclass('public.audit_logs'), p)
           else has_table_privilege(r.oid, to_regclass('public.audit_logs'), p) end;

-- seen:
select count(*) as seen from pg_roles where rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon');
