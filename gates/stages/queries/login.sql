-- The login of this session, whether it is a superuser, and which roles let it become as strong as one.
select
  session_user::text as login,
  r.rolsuper as superuser,
  (select string_agg(p.rolname::text, ', ' order by p.rolname)
   from pg_catalog.pg_roles p
   where p.oid <> r.oid
     and (p.rolsuper or p.rolname in ('pg_execute_server_program', 'pg_write_server_files'))
     and pg_has_role(r.oid, p.oid, 'member')) as may_become
from pg_catalog.pg_roles r
where r.rolname = session_user;
