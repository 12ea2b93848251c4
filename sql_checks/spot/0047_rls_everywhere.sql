-- id: sql/spot/rls-everywhere
-- claim: Row-level security is enabled and forced also on tables of the contract's schema with tenant data that tenants hold no right on, save partitions that only their owner holds one on, and every view over tenant data in public runs with its caller's rights.
-- cost: After a single GRANT every tenant reads every other tenant's rows.
-- severity: warn
-- reads: catalogue
-- covers: J02 J15
with recursive {{tenant_tables}}, {{tenant_views}}
select name as subject,
       format('row-level security is not %s', case when relrowsecurity then 'forced' else 'enabled' end) as detail,
       pg_get_userbyid(relowner)::text as witness
from tenant_tables where not (relrowsecurity and relforcerowsecurity) and is_public and not (promised or is_reachable or is_behind)
union all
select name, 'the view is not security_invoker', options
from tenant_views where not is_invoker and not is_reachable and is_public;

-- seen:
with {{tenant_tables}}
select count(*) as seen from tenant_tables;
