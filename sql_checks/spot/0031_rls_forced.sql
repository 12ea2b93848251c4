-- id: sql/spot/rls-forced
-- claim: Row-level security is forced, so that it binds the owner too, on every table of the contract and every other with tenant data that tenants hold a right on.
-- cost: Definer functions and whatever runs as the owner see all tenants.
-- severity: page
-- reads: catalogue
-- covers: D16 J02
with {{tenant_tables}}
select name as subject, 'row-level security is not forced' as detail, pg_get_userbyid(relowner)::text as witness
from tenant_tables where not relforcerowsecurity and (promised or is_reachable);

-- seen:
with {{tenant_tables}}
select count(*) as seen from tenant_tables;
