-- id: sql/spot/rls-forced
-- claim: Row-level security is forced on every table with tenant data, so that it binds the owner too.
-- cost: Definer functions and whatever runs as the owner see all tenants.
-- severity: page
-- reads: catalogue
-- covers: D16 J02
with {{tenant_tables}}
select name as subject, 'row-level security is not forced' as detail, pg_get_userbyid(relowner)::text as witness
from tenant_tables where not relforcerowsecurity;

-- seen:
with {{tenant_tables}}
select count(*) as seen from tenant_tables;
