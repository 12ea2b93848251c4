-- id: sql/spot/processed-has-effect
-- claim: Every outbox row processed in the last hour has its effect: a completed agent task of its event.
-- cost: The event is ticked off, and what the customer waits for never happened.
-- severity: page
-- covers: K18 K19
with processed as (
  select id, event_id, company_id, processed_at
  from public.event_outbox
  where processed_at > now() - interval '1 hour' and {{not_excluded}}
  order by processed_at desc {{at_most}}
)
select format('outbox row %s', p.id) as subject,
       format('processed %s, but event %s has no completed agent task', p.processed_at, p.event_id) as detail,
       p.company_id::text as witness
from processed p
where not exists (select from public.agent_tasks t where t.event_id = p.event_id and t.status = 'completed');

-- seen:
select count(*) as seen from (
  select from public.event_outbox where processed_at > now() - interval '1 hour' and {{not_excluded}} limit 1000
) o;
