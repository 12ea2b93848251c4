-- What the roles of the contract may do, and whose members they are. Whether they may log in is the operator's choice.
select r.rolname::text as name,
       concat_ws(', ', case when r.rolsuper then 'superuser' end, case when r.rolbypassrls then 'bypassrls' end,
                 case when r.rolcreaterole then 'createrole' end, case when r.rolcreatedb then 'createdb' end,
                 case when r.rolreplication then 'replication' end,
                 'member of ' || (select string_agg(g.rolname, ', ' order by g.rolname)
                  from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = r.oid)) as definition
from pg_roles r
where r.rolname in ('replay_owner', 'replay_service', 'replay_worker', 'replay_gate', 'authenticated', 'anon')
order by 1;
