-- Grants to others than the owner, on schema, tables, columns, views, sequences and functions. MAINTAIN exists from PostgreSQL 17 on.
with held as (
  select case c.relkind when 'S' then 'sequence ' else '' end || c.oid::regclass as object, c.relowner as owner, a.grantee, a.privilege_type
  from pg_class c, aclexplode(c.relacl) a
  where not c.relispartition and c.relnamespace in (select oid from pg_namespace where nspname = any('{public}')) and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')
  union all
  select format('%s.%s', c.oid::regclass, t.attname), c.relowner, a.grantee, a.privilege_type
  from pg_class c join pg_attribute t on t.attrelid = c.oid and t.attacl is not null, aclexplode(t.attacl) a
  where not c.relispartition and c.relnamespace in (select oid from pg_namespace where nspname = any('{public}'))
  union all
  select p.oid::regprocedure::text, p.proowner, a.grantee, a.privilege_type
  from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
  where p.pronamespace in (select oid from pg_namespace where nspname = any('{public}'))
    and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')
  union all
  select format('schema %s', n.nspname), n.nspowner, a.grantee, a.privilege_type
  from pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
  where n.nspname = any('{public}')
)
select format('%s to %s', object, coalesce(r.rolname, 'PUBLIC')) as name,
       string_agg(h.privilege_type, ', ' order by h.privilege_type) as definition
from held h
left join pg_roles r on r.oid = h.grantee
where h.grantee <> h.owner and h.privilege_type <> 'MAINTAIN'
group by 1
order by 1;
