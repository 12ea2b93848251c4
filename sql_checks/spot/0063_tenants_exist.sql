-- id: sql/spot/tenants-exist
-- claim: At least one tenant with events in the last day is in companies.
-- cost: The service refuses every replay and event as of an unknown company, except those of the gate's own tenants.
-- severity: page
with active as materialized (
  select company_id, max(created_at) as last_at
  from (
    select company_id, created_at from public.events
    where created_at > now() - interval '1 day' and {{not_excluded}}
    order by created_at desc {{at_most}}
  ) recent
  group by company_id
), stayed as materialized (
  -- a suite of tests makes tenants and removes them within hours
  select a.*, (select true from public.events e
               where e.company_id = a.company_id and e.created_at < a.last_at - interval '6 hours' limit 1) as has_stayed
  from active a
)
select 'companies' as subject,
       format('%s tenants had events in the last day, and none of them is there', count(*)) as detail,
       min(company_id::text) as witness
from stayed
where not exists (select from active known join public.companies c on c.id = known.company_id)
-- a customer that has left may be gone from companies, but not all of them
having count(*) > 1 and bool_or(has_stayed)
    or count(*) > 0 and not exists (select from public.companies c where c.name is null or c.name not like 'drill-%');

-- seen:
select count(*) as seen from (
  select from public.events where created_at > now() - interval '1 day' and {{not_excluded}} limit 1000
) e;
