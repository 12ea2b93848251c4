-- Policies: who, for which command, and on which rows.
select p.polrelid::bigint as oid, p.polname as name, p.polcmd::text as command, p.polpermissive as permissive,
       array(
         select case r.oid when 0 then 'public' else pg_catalog.pg_get_userbyid(r.oid)::text end from unnest(p.polroles) as r (oid)
         union
         -- a policy of a role is one of its members, too
         select g.rolname::text from pg_catalog.pg_roles g join unnest(p.polroles) as r (oid) on r.oid <> 0
         where g.rolname in ('anon', 'authenticated') and not g.rolsuper and pg_catalog.pg_has_role(g.oid, r.oid, 'USAGE')
       ) as roles,
       substr(pg_catalog.pg_get_expr(p.polqual, p.polrelid), 1, 2000) as rows,
       substr(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), 1, 2000) as written
from pg_catalog.pg_policy p
where p.polrelid = any(%(oids)s::oid[])
order by 1, 2;
