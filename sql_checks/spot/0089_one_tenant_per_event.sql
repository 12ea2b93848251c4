-- id: sql/spot/one-tenant-per-event
-- claim: Every agent task of the last day is of a tenant that has its event.
-- cost: One customer's event is done, shown and billed as another's.
-- severity: page
-- covers: J26 K18
with tasks as (
  select id, event_id, company_id, status from public.agent_tasks
  where created_at > now() - interval '1 day' and event_id is not null and {{not_excluded}}
  order by created_at desc {{at_most}}
), foreign_owner as (
  select t.*, coalesce(
    (select o.company_id from public.event_outbox o where o.event_id = t.event_id and o.company_id <> t.company_id limit 1),
    (select e.company_id from public.events e where e.id = t.event_id and e.company_id <> t.company_id limit 1)
  ) as owner
  from tasks t
)
select format('event %s', f.event_id) as subject,
       format('a %s agent task is of company %s; the event is of %s', f.status, f.company_id, f.owner) as detail,
       f.id::text as witness
from foreign_owner f
where f.owner is not null
  -- producers may give an event to several tenants under one id
  and not exists (select from public.event_outbox o where o.event_id = f.event_id and o.company_id = f.company_id)
  and not exists (select from public.events e where e.id = f.event_id and e.company_id = f.company_id)
  and not exists (select from public.dead_letter_queue q where q.event_id = f.event_id and q.company_id = f.company_id);

-- seen:
select count(*) as seen from (
  select from public.agent_tasks where created_at > now() - interval '1 day' and event_id is not null and {{not_excluded}} limit 1000
) t;
