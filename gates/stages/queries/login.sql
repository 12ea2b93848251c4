-- The login of this session, whether it is a superuser, which roles let it become as strong as one, and how many
-- sessions the server has left for it. Workers of autovacuum have no user, and places of their own.
with sessions as (select datid, usesysid from pg_catalog.pg_stat_activity where datid is not null and usesysid is not null)
select
  session_user::text as login,
  r.rolsuper as superuser,
  (select string_agg(p.rolname::text, ', ' order by p.rolname)
   from pg_catalog.pg_roles p
   where p.oid <> r.oid
     and (p.rolsuper or p.rolname in ('pg_execute_server_program', 'pg_write_server_files'))
     and pg_has_role(r.oid, p.oid, 'member')) as may_become,
  (select min(left_over)
   from (values
     (current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
      - coalesce(nullif(current_setting('reserved_connections', true), '')::bigint, 0)
      - (select count(*) from sessions)),
     (case when d.datconnlimit >= 0 then d.datconnlimit - (select count(*) from sessions s where s.datid = d.oid) end),
     (case when r.rolconnlimit >= 0 then r.rolconnlimit - (select count(*) from sessions s where s.usesysid = r.oid) end)
   ) limits(left_over)) as room
from pg_catalog.pg_roles r
join pg_catalog.pg_database d on d.datname = current_database()
where r.rolname = session_user;
