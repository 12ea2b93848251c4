-- Tables and views that tenants may read and that have no column of the tenant, but for those of the contract and of extensions.
select format('%I.%I', n.nspname, c.relname) as name
from pg_class c
join pg_namespace n on n.oid = c.relnamespace and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
where c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
  and has_schema_privilege('authenticated', n.oid, 'USAGE') and has_table_privilege('authenticated', c.oid, 'SELECT')
  and c.oid <> all(array[to_regclass('public.companies')::oid, to_regclass('public.edge_rate_limits'), to_regclass('public.audit_logs'),
                         to_regclass('public.audit_heads')])
  and not exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = any('{company_id,tenant_id}') and not a.attisdropped)
  and not exists (select from pg_depend d where d.objid = c.oid and d.classid = 'pg_class'::regclass and d.deptype = 'e')
  and {{trusted_owner}}
order by 1;
