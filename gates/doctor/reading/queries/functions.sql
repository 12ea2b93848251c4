-- Functions of the deployment that return a boolean, with the types and names of their arguments.
select n.nspname as schema, p.proname as name,
       array(select format_type(t, null) from unnest(p.proargtypes) with ordinality as a (t, place) order by place) as arguments,
       coalesce(p.proargnames, '{}') as argument_names, format_type(p.prorettype, null) as returns,
       pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_function_privilege(p.oid, 'execute') as callable,
       substr(coalesce(nullif(p.prosrc, ''), pg_catalog.pg_get_function_sqlbody(p.oid)), 1, 4000) as source
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where p.prokind = 'f' and not p.proretset and p.pronargs between 1 and 4 and p.prorettype = 'boolean'::regtype
  and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
  and not exists (
    select from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
  )
order by p.proname = any(%(names)s) desc, 1, 2
limit 2000;
