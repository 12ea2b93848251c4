relations as (
  select oid, name, relacl, relrowsecurity as is_guarded from tenant_tables
  union
  select c.oid, c.oid::regclass::text, c.relacl,
         coalesce((select option_value::boolean from pg_options_to_table(c.reloptions) where option_name = 'security_invoker'), false)
  from pg_class c
  join pg_rewrite r on r.ev_class = c.oid
  join pg_depend d on d.objid = r.oid and d.classid = 'pg_rewrite'::regclass
  where c.relkind in ('v', 'm') and d.refobjid in (select oid from tenant_tables)
  union
  select s.oid, s.oid::regclass::text, s.relacl, true
  from pg_class s
  join pg_depend d on d.objid = s.oid and d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i')
  where s.relkind = 'S' and d.refobjid in (select oid from tenant_tables)
), held as (
  select r.name, r.is_guarded, a.grantee, a.privilege_type from relations r, aclexplode(r.relacl) a
  union all
  select format('%s.%s', r.name, t.attname), r.is_guarded, a.grantee, a.privilege_type
  from relations r join pg_attribute t on t.attrelid = r.oid and t.attacl is not null, aclexplode(t.attacl) a
  union all
  select format('schema %s', n.nspname), true, a.grantee, a.privilege_type
  from pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
  where n.nspname = any('{public}') and a.privilege_type = 'CREATE'
), given as (
  -- what PUBLIC or anon hold, themselves or as members of another role, and whether row-level security stands between them and the rows
  select name, grantee, privilege_type, is_guarded and privilege_type <> 'TRUNCATE' as is_stopped
  from held
  where case grantee when 0 then true else pg_has_role((select oid from pg_roles where rolname = 'anon'), grantee, 'USAGE') end
)
