-- Functions of the deployment that read request settings, directly or through others: name, and text, cut.
-- Without those of the hosting platform.
with recursive functions as (
  select p.oid, p.proname::text as name, coalesce(nullif(p.prosrc, ''), pg_catalog.pg_get_function_sqlbody(p.oid)) as source
  from pg_catalog.pg_proc p
  join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  where p.prokind = 'f' and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
    and n.nspname <> all (%(platform)s::text[])
    and octet_length(p.prosrc) < 20000
), readers as (
  select oid, name, source, 1 as step from functions
  where source like '%%request.jwt%%' or source like '%%auth.jwt%%' or source like '%%auth.uid%%' or source like '%%current_setting(%%'
  union
  select f.oid, f.name, f.source, r.step + 1
  from readers r
  join functions f on position(r.name || '(' in f.source) > 0 and f.oid <> r.oid
  where r.step < 3
)
select name, substr(source, 1, 2000) as source from (select distinct on (oid) * from readers order by oid, step) found
order by step, oid
limit 100;
