-- id: sql/spot/views-security-invoker
-- claim: Every view of the contract, and every other view over tenant data that tenants hold a right on, runs with its caller's rights.
-- cost: The view shows all tenants to whoever may read it.
-- severity: page
-- reads: catalogue
-- covers: J15
with recursive {{tenant_tables}}, {{tenant_views}}
select name as subject, 'the view is not security_invoker' as detail, options as witness
from tenant_views where not is_invoker and is_reachable;

-- seen:
select count(*) as seen from pg_class where relkind in ('r', 'v') and relnamespace in (select oid from pg_namespace where nspname = any('{public}'));
