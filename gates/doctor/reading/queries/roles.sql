-- Roles of the server except PostgreSQL's own; the contract's and this login's first.
select r.rolname as name, r.rolcanlogin as login, r.rolsuper as superuser, r.rolbypassrls as bypasses,
       array(
         select g.rolname::text from pg_catalog.pg_auth_members m join pg_catalog.pg_roles g on g.oid = m.roleid
         where m.member = r.oid order by 1 limit 100
       ) as member_of
from pg_catalog.pg_roles r
where r.rolname !~ '^pg_'
order by r.rolname = current_user desc, r.rolname = any(%(names)s) desc, 1
limit 500;
