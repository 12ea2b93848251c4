-- id: sql/spot/one-effect-per-event
-- claim: No event of the last day has two effects.
-- cost: A customer is charged, mailed or shipped to twice.
-- severity: page
-- covers: K18 L05
with recent as (
  select id, event_id from public.agent_tasks
  where created_at > now() - interval '1 day' and event_id is not null and {{not_excluded}}
  order by created_at desc limit 10000
)
select format('event %s', r.event_id) as subject, 'more than one agent task' as detail,
       format('%s, %s', twin.id, r.id) as witness
from recent r
-- one look-up a row: a join would read the whole table
cross join lateral (
  select t.id from public.agent_tasks t where t.event_id = r.event_id and t.id <> r.id limit 1
) twin;

-- seen:
select count(*) as seen from (
  select from public.agent_tasks where created_at > now() - interval '1 day' and event_id is not null and {{not_excluded}} limit 1000
) t;
