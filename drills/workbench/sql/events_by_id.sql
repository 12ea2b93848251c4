-- Events as their rows say, each with its outbox rows and its effects.
select e.id::text as id, e.company_id::text as company, e.event_type, e.aggregate_key, e.payload, e.path,
  (select count(*) from public.event_outbox o where o.event_id = e.id) as outbox_rows,
  (select count(*) from public.event_outbox o where o.event_id = e.id and o.processed_at is not null) as processed,
  (select count(*) from public.agent_tasks t where t.event_id = e.id and t.status = 'completed') as effects
from public.events e where e.id = any(%s::uuid[])
