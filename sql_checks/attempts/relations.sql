-- Tables and views that tenants may read and that have no column of the tenant, but for those of the contract and of extensions.
select format('%I.%I', n.nspname, c.relname) as name,
       -- it keeps events or dead letters, whatever its column of the tenant is called
       (select count(distinct a.attname) > 1
        from unnest(array['public.events.event_type', 'public.events.payload', 'public.events.aggregate_key',
                          'public.dead_letter_queue.error_type', 'public.dead_letter_queue.error_message']) k
        join pg_attribute a on a.attrelid = c.oid and a.attname = (parse_ident(k))[3] and not a.attisdropped) as is_archive
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
