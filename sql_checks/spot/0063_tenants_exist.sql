-- id: sql/spot/tenants-exist
-- claim: Of the tenants that had events in the last day, some are in companies.
-- cost: Every tenant is unknown: each replay and each event is refused, and the gate's own tenants are not.
-- severity: page
with active as materialized (
  select distinct company_id
  from (
    select company_id from public.events
    where created_at > now() - interval '1 day' and {{not_excluded}}
    order by created_at desc {{at_most}}
  ) recent
)
select 'companies' as subject,
       format('%s tenants had events in the last day, and none of them is there', count(*)) as detail,
       min(company_id::text) as witness
from active
where not exists (select from active known join public.companies c on c.id = known.company_id)
having count(*) > 1
    -- a customer who left takes its row along; the last one does not
    or count(*) = 1 and not exists (select from public.companies c where c.name not like 'drill-%');

-- seen:
select count(*) as seen from (
  select from public.events where created_at > now() - interval '1 day' and {{not_excluded}} limit 1000
) e;
