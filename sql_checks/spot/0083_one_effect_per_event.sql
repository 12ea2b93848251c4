-- id: sql/spot/one-effect-per-event
-- claim: No event of the last day has two effects.
-- cost: A customer is charged, mailed or shipped to twice.
-- severity: page
-- covers: K18 L05
with recent as (
  select event_id from public.agent_tasks
  where created_at > now() - interval '1 day' and event_id is not null and {{not_excluded}}
  order by created_at desc limit 10000
)
select format('event %s', t.event_id) as subject, format('%s agent tasks', count(*)) as detail,
       string_agg(t.id::text, ', ') as witness
from public.agent_tasks t
where t.event_id in (select event_id from recent)
group by t.event_id having count(*) > 1;

-- seen:
select count(*) as seen from (
  select from public.agent_tasks where created_at > now() - interval '1 day' and event_id is not null and {{not_excluded}} limit 1000
) t;
