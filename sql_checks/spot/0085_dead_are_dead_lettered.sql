-- id: sql/spot/dead-are-dead-lettered
-- claim: Every event given up in the last day is in the dead-letter queue, as its own tenant's.
-- cost: It was given up, and nobody can replay it: lost.
-- severity: page
-- covers: K14 K18
with dead as (
  select id, event_id, company_id, dead_at, replay_run_id from public.event_outbox
  where dead_at > now() - interval '1 day' and {{not_excluded}}
  order by dead_at desc {{at_most}}
), missing as materialized (
  select d.* from dead d
  where not exists (select from public.dead_letter_queue q where q.event_id = d.event_id and q.company_id = d.company_id)
    -- it was replayed since: its dead letter, and the row of the replay, may have been cleared away when it was resolved
    and not exists (select from public.event_outbox later where later.event_id = d.event_id and later.id > d.id)
    and not exists (select from public.agent_tasks t where t.event_id = d.event_id and t.status = 'completed')
    -- after an hour a job may have cleared its letter away: then no settled letter, or no task, is as old as it
    and (d.dead_at > now() - interval '1 hour'
      or coalesce((select min(q.created_at) from public.dead_letter_queue q where q.status in ('resolved', 'discarded')) <= d.dead_at, true)
      and coalesce((select min(updated_at) from (select updated_at from public.agent_tasks order by id limit 1000) oldest) <= d.dead_at, true))
)
select format('outbox row %s', d.id) as subject,
       format('dead since %s, but event %s is not in the dead-letter queue', d.dead_at, d.event_id) as detail,
       d.company_id::text as witness
from missing d
left join lateral (
  -- a dead letter that came without an event id need not have the one of its replay written back
  select q.id from public.dead_letter_queue q
  where q.company_id = d.company_id and d.replay_run_id is not null and q.event_id is null and q.status <> 'resolved'
  limit 1
) nameless on true
where nameless.id is null;

-- seen:
select count(*) as seen from (select from public.event_outbox limit 1000) o;
