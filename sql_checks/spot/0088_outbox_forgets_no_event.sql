-- id: sql/spot/outbox-forgets-no-event
-- claim: Every event of the last day has an outbox row that waits or is dead, a task or a dead letter within a minute, where earlier events have their effects.
-- cost: The customer's request was accepted, and the event is lost.
-- severity: page
-- covers: K01 K18
with emitted as (
  select id, company_id, event_type, path, created_at
  from public.events
  where created_at between now() - interval '1 day' and now() - interval '1 minute' and {{not_excluded}}
  order by created_at desc {{at_most}}
), traced as materialized (
  -- looked up one by one: as EXISTS it would be hashed, and the whole table read
  select e.*, (select true from public.agent_tasks t where t.event_id = e.id and t.status = 'completed' limit 1) is true as has_effect
  from emitted e
), neighbours as (
  -- what is old is cleared away in the order of time, and each kind in its own: where three in a row of its kind before it
  -- have their effects, it is not old
  select *, count(*) filter (where has_effect)
              over (partition by company_id, event_type order by created_at, id rows between 3 preceding and 1 preceding) as before_it
  from traced
)
select format('event %s', n.id) as subject,
       format('of %s, by the path %s: no outbox row that waits, no task and no dead letter', n.created_at, n.path) as detail,
       n.company_id::text as witness
from neighbours n
where not n.has_effect and n.before_it = 3
  -- a row that is processed should have its effect
  and not exists (select from public.event_outbox o where o.event_id = n.id and o.processed_at is null)
  -- one that is not done for an hour is no effect
  and not exists (select from public.agent_tasks t where t.event_id = n.id
                  and (t.status = 'failed' or greatest(t.created_at, t.updated_at) > now() - interval '1 hour'))
  and not exists (select from public.dead_letter_queue d where d.event_id = n.id)
limit 1000;

-- seen:
select count(*) as seen from (
  select from public.events where created_at > now() - interval '1 day' and {{not_excluded}} limit 1000
) e;
