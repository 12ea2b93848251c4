-- Policies: command, kind, roles and expressions.
select format('%s.%s', c.oid::regclass, p.polname) as name,
       format('%s %s to %s using (%s) check (%s)', p.polcmd, case when p.polpermissive then 'permissive' else 'restrictive' end,
              (select string_agg(coalesce(g.rolname, 'public'), ', ' order by g.rolname)
               from unnest(p.polroles) r left join pg_roles g on g.oid = r),
              pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) as definition
from pg_policy p
join pg_class c on c.oid = p.polrelid
where not c.relispartition and c.relnamespace in (select oid from pg_namespace where nspname = any('{public}'))
order by 1;
