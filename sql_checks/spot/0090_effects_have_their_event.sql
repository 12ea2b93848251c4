-- id: sql/spot/effects-have-their-event
-- claim: Every effect of the last hour with an event id belongs to an event, an outbox row or a dead letter, and the times of every task are finite and not in the future.
-- cost: A retry came under a new id: the agent cannot refuse it, and does its work twice.
-- severity: warn
-- covers: K06
with recent as (
  select id, event_id, company_id, agent_name, created_at
  from public.agent_tasks
  where created_at > now() - interval '1 hour' and event_id is not null and status = 'completed' and {{not_excluded}}
  order by created_at desc {{at_most}}
), traced as materialized (
  -- looked up one by one: as EXISTS it would be hashed, and the whole table read
  select *, coalesce((select true from public.events e where e.id = r.event_id limit 1),
                     (select true from public.event_outbox o where o.event_id = r.event_id limit 1),
                     (select true from public.dead_letter_queue d where d.event_id = r.event_id limit 1), false) as has_event
  from recent r
)
select format('task %s', id) as subject, format('event %s is neither an event nor in the outbox nor a dead letter', event_id) as detail,
       company_id::text as witness
from traced
where not has_event
  -- a job that clears away what was delivered leaves no row of the outbox that is as old
  and coalesce((select min(processed_at) from (
                  select processed_at from public.event_outbox where processed_at is not null order by id limit 1000) oldest) <= created_at, true)
union all
select format('task %s', id), format('is of %s, and it is %s', created_at, now()), company_id::text
from public.agent_tasks where (created_at > now() + interval '30 minutes' or created_at = '-infinity') and {{not_excluded}}
union all
select format('task %s', id), format('was changed at %s, and it is %s', updated_at, now()), company_id::text
from public.agent_tasks where (updated_at > now() + interval '30 minutes' or updated_at = '-infinity') and {{not_excluded}}
limit 1000;

-- seen:
select count(*) as seen from (
  select from public.agent_tasks where created_at > now() - interval '1 day' and event_id is not null and {{not_excluded}} limit 1000
) t;
