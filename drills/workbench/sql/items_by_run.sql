-- What became of the items of runs. counted: successes, by the run; delivered: outbox rows that are processed;
-- altered: those like no letter of their event; unresolved, without_effect: processed ones that lack a resolved letter,
-- or an effect.
with run as materialized (
  select id, company_id, success_count from public.replay_runs where id = any(%s)
), item as materialized (
  select id, event_id, company_id, event_type, payload, processed_at, replay_run_id
  from public.event_outbox where replay_run_id in (select id from run)
), letter as materialized (
  select event_id, company_id, event_type, payload, status
  from public.dead_letter_queue where company_id in (select company_id from run)
), judged as (
  select i.id, i.replay_run_id, i.processed_at,
    bool_or(l.event_type = i.event_type and l.payload::jsonb = i.payload::jsonb) as is_like,
    bool_or(l.status = 'resolved') as is_resolved,
    exists (select from public.agent_tasks t where t.event_id = i.event_id and t.status = 'completed') as has_effect
  from item i left join letter l on l.event_id = i.event_id and l.company_id = i.company_id
  group by i.id, i.replay_run_id, i.processed_at, i.event_id
)
select r.id::text as id, r.success_count as counted, count(j.processed_at) as delivered,
  count(*) filter (where not j.is_like) as altered,
  count(*) filter (where j.processed_at is not null and not j.is_resolved) as unresolved,
  count(*) filter (where j.processed_at is not null and not j.has_effect) as without_effect
from run r left join judged j on j.replay_run_id = r.id
group by r.id, r.success_count
