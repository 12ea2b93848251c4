-- id: sql/spot/no-public-grants
-- claim: anon and PUBLIC hold nothing on tables with tenant data, their views and sequences, and cannot create in public.
-- cost: One missing policy, and the whole world reads the table.
-- severity: page
-- reads: catalogue
-- covers: J23
with {{tenant_tables}}, relations as (
  select oid, name, relacl from tenant_tables
  union
  select c.oid, c.oid::regclass::text, c.relacl
  from pg_class c
  join pg_rewrite r on r.ev_class = c.oid
  join pg_depend d on d.objid = r.oid and d.classid = 'pg_rewrite'::regclass
  where c.relkind in ('v', 'm') and d.refobjid in (select oid from tenant_tables)
  union
  select s.oid, s.oid::regclass::text, s.relacl
  from pg_class s
  join pg_depend d on d.objid = s.oid and d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i')
  where s.relkind = 'S' and d.refobjid in (select oid from tenant_tables)
), held as (
  select r.name, a.grantee, a.privilege_type from relations r, aclexplode(r.relacl) a
  union all
  select format('%s.%s', r.name, t.attname), a.grantee, a.privilege_type
  from relations r join pg_attribute t on t.attrelid = r.oid and t.attacl is not null, aclexplode(t.attacl) a
  union all
  select 'schema public', a.grantee, a.privilege_type
  from pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
  where n.nspname = 'public' and a.privilege_type = 'CREATE'
)
select name as subject,
       format('%s holds %s', case grantee when 0 then 'PUBLIC' else 'anon' end, string_agg(privilege_type, ', ')) as detail,
       null::text as witness
from held
where grantee = 0 or grantee = to_regrole('anon')
group by name, grantee;

-- seen:
with {{tenant_tables}}
select count(*) as seen from tenant_tables;
