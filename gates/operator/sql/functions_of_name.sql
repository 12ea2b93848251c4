-- The argument types of the functions of a name, as text. %(schema)s %(name)s
select array(select t::regtype::text from unnest(p.proargtypes) t) as arguments, p.prorettype::regtype::text as result
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = %(schema)s and p.proname = %(name)s;
