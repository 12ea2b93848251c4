-- id: sql/spot/processed-has-effect
-- claim: Every outbox row processed in the last hour has its effect: a completed agent task of its event.
-- cost: The event is marked as done, and what the customer waits for never happened.
-- severity: page
-- covers: K18 K19
with processed as (
  select id, event_id, company_id, inserted_at, processed_at, replay_run_id
  from public.event_outbox
  where processed_at > now() - interval '1 hour' and {{not_excluded}}
  order by processed_at desc {{at_most}}
), kept as materialized (
  -- asked only where an effect is missing. Of effects: what failed may be kept for longer
  select min(created_at) as begun, min(updated_at) as done
  from (select created_at, updated_at from public.agent_tasks where event_id is not null and status = 'completed' order by id limit 1000) oldest
)
select format('outbox row %s', p.id) as subject,
       format('processed %s, but event %s has no completed agent task', p.processed_at, p.event_id) as detail,
       p.company_id::text as witness
from processed p
where not exists (select from public.agent_tasks t where t.event_id = p.event_id and t.status = 'completed')
  -- a job that clears old tasks leaves none that is as old, by its beginning or by its end
  and coalesce((select done from kept) <= p.processed_at, true)
  and coalesce((select begun from kept) <= least(
        p.inserted_at,
        -- of a replay whose dead letter was cleared away, too, nobody knows
        coalesce((select min(d.created_at) from public.dead_letter_queue d where d.event_id = p.event_id and d.company_id = p.company_id),
                 case when p.replay_run_id is not null then '-infinity'::timestamptz end)), true);

-- seen:
select count(*) as seen from (
  select from public.event_outbox where processed_at > now() - interval '1 hour' and {{not_excluded}} limit 1000
) o;
