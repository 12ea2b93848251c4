-- Functions: language, rights, settings and body.
select p.oid::regprocedure::text as name,
       concat_ws(' ', l.lanname, 'returns ' || pg_get_function_result(p.oid), 'volatility ' || p.provolatile::text,
                 case when p.prosecdef then 'security definer' end, array_to_string(p.proconfig, ', '), p.prosrc,
                 pg_get_function_sqlbody(p.oid)) as definition
from pg_proc p
join pg_language l on l.oid = p.prolang
where (p.pronamespace in (select oid from pg_namespace where nspname = any('{public}')) or (p.pronargs = 0 and p.proname = 'jwt'
       and p.pronamespace in (select oid from pg_namespace where nspname = 'auth')))
  and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')
order by 1;
