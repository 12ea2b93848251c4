-- id: sql/spot/tenants-cannot-truncate
-- claim: Tenants hold no TRUNCATE on tables with tenant data.
-- cost: TRUNCATE is not subject to row-level security: one statement wipes every tenant.
-- severity: page
-- reads: catalogue
-- covers: J24
with {{tenant_tables}}
select distinct t.name as subject, format('%s holds TRUNCATE', r.rolname) as detail, t.relacl::text as witness
from tenant_tables t
join pg_roles r on r.rolname in ('authenticated', 'anon') and not r.rolsuper
-- itself, or once it is another role (SET ROLE)
join pg_roles o on pg_has_role(r.oid, o.oid, 'MEMBER') and not o.rolsuper
where has_table_privilege(o.oid, t.oid, 'TRUNCATE');

-- seen:
with {{tenant_tables}}
select count(*) as seen from tenant_tables t
join pg_roles r on r.rolname in ('authenticated', 'anon');
