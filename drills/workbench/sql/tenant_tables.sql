-- Every ordinary table beside these (schema.name) with a column of the tenant, of the type of its id, that we may read
-- and whose owner may run code as the gate: its real name, and that column.
select n.nspname::text as schema, c.relname::text as name, a.attname::text as tenant
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid
where n.nspname = any('{public}') and c.relkind in ('r', 'p') and not c.relispartition
  and a.attname = any('{company_id,tenant_id}') and not a.attisdropped
  and a.atttypid = (select t.atttypid from pg_attribute t
                    where t.attrelid = to_regclass('public.companies') and t.attname = (parse_ident('public.companies.id'))[3])
  and has_table_privilege(c.oid, 'select') and format('%%s.%%s', n.nspname, c.relname) <> all(%s)
  and {{trusted_owner}}
order by 2
