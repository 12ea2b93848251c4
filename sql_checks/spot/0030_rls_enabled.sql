-- id: sql/spot/rls-enabled
-- claim: Row-level security is enabled on every table of the contract, and on every other table with tenant data, partitions included, that tenants hold a right on.
-- cost: Every tenant reads every other tenant's rows.
-- severity: page
-- reads: catalogue
-- covers: D16 J02
with {{tenant_tables}}
select name as subject, 'row-level security is not enabled' as detail, relacl::text as witness
from tenant_tables where not relrowsecurity and (promised or is_reachable)
union all
select contract.name, 'the table is missing; row-level security cannot be judged', null
from contract where contract.name is not null and to_regclass(contract.name) is null
  and exists (select from tenant_tables where promised);

-- seen:
with {{tenant_tables}}
select count(*) as seen from tenant_tables;
