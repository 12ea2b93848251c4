{{contract_tables}}, tenant_tables as materialized (
  -- every table with tenant data in a schema that tenants can reach, found from the catalogue: those of the contract, their
  -- partitions, any with a tenant column, any that refers to companies
  select c.oid, format('%s.%s', n.nspname, c.relname) as name, c.relkind, c.relowner, c.relacl, c.relrowsecurity,
         c.relforcerowsecurity, c.oid in (select to_regclass(contract.name) from contract) as promised,
         n.nspname = any('{public}') as is_public,
         -- what tenants hold no right on is nobody's leak
         exists (select from pg_roles r
                 where r.rolname in ('anon', 'authenticated') and not r.rolsuper and has_schema_privilege(r.oid, n.oid, 'USAGE')
                   and (has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
                     or has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE'))) as is_reachable,
         -- what nobody else holds a right on is read through its parent alone, under the parent's policies
         c.relispartition and not exists (
           select from pg_attribute a
           cross join aclexplode(coalesce(a.attacl, c.relacl)) g
           where a.attrelid = c.oid and g.grantee <> c.relowner) as is_behind
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p')
    and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and (n.nspname = any('{public}') or exists (
          select from pg_roles r where r.rolname in ('anon', 'authenticated') and has_schema_privilege(r.oid, n.oid, 'USAGE')))
    and (c.oid in (select to_regclass(contract.name) from contract where contract.tenant is not null)
      or exists (select from pg_attribute a
                 where a.attrelid = c.oid and a.attname = any('{company_id,tenant_id}') and not a.attisdropped)
      or exists (select from pg_constraint f
                 where f.conrelid = c.oid and f.contype = 'f' and f.confrelid = to_regclass('public.companies'))
      or exists (select from pg_class root
                 where root.oid = pg_partition_root(c.oid) and root.oid in (select to_regclass(contract.name) from contract)))
    and not exists (select from pg_depend d where d.objid = c.oid and d.classid = 'pg_class'::regclass and d.deptype = 'e')
)
