-- id: sql/spot/tenants-cannot-truncate
-- claim: Tenants hold no TRUNCATE on tables with tenant data.
-- cost: TRUNCATE is not subject to row-level security: one statement wipes every tenant.
-- severity: page
-- reads: catalogue
-- covers: J24
with {{tenant_tables}}
select t.name as subject, format('%s holds TRUNCATE', r.rolname) as detail, t.relacl::text as witness
from tenant_tables t
join pg_roles r on r.rolname in ('authenticated', 'anon') and not r.rolsuper
where exists (
  -- to everybody, to itself, or to another role that it may take (SET ROLE)
  select from aclexplode(coalesce(t.relacl, acldefault('r', t.relowner))) a
  left join pg_roles o on o.oid = a.grantee
  where a.privilege_type = 'TRUNCATE' and o.rolsuper is not true
    and case a.grantee when 0 then true else pg_has_role(r.oid, a.grantee, 'MEMBER') end);

-- seen:
with {{tenant_tables}}
select count(*) as seen from tenant_tables t
join pg_roles r on r.rolname in ('authenticated', 'anon');
