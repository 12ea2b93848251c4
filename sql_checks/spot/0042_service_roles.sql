-- id: sql/spot/service-roles
-- claim: The service's and the worker's roles are neither superuser nor BYPASSRLS nor owner of a table of the contract.
-- cost: Row-level security does not bind the service: one forgotten condition shows a tenant the rows of all.
-- severity: page
-- reads: catalogue
-- covers: J01
with {{tenant_tables}}
select r.rolname::text as subject,
       concat_ws(', ', case when r.rolsuper then 'superuser' end, case when r.rolbypassrls then 'BYPASSRLS' end) as detail,
       null::text as witness
from pg_roles r
where r.rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon') and (r.rolsuper or r.rolbypassrls)
union all
select r.rolname::text, format('owns, or may act as the owner of, %s', string_agg(t.name, ', ')), null
from pg_roles r
join tenant_tables t on t.promised and pg_has_role(r.oid, t.relowner, 'MEMBER')
where r.rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon') and not r.rolsuper
group by r.rolname;

-- seen:
select count(*) as seen from pg_roles where rolname in ('replay_service', 'replay_worker');
