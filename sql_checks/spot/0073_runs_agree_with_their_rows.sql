-- id: sql/spot/runs-agree-with-their-rows
-- claim: The outbox rows of a run agree with it: its counts, its limits of items and of ten in flight, its end, and its dead letters.
-- cost: Items are delivered after their run has ended, or twice, and its counts are wrong.
-- severity: warn
-- covers: K18
with waiting as materialized (
  select o.id, o.event_id, o.company_id, o.replay_run_id, o.claimed_until, r.id is null as is_lost, r.status::text as status
  from public.event_outbox o
  left join public.replay_runs r on r.id = o.replay_run_id and r.company_id = o.company_id
  where o.processed_at is null and o.dead_at is null and o.replay_run_id is not null and o.{{not_excluded}}
), recent as (
  select id, company_id, status::text as status, target_count, success_count, failure_count
  from public.replay_runs
  where requested_at > now() - interval '1 day' and {{not_excluded}}
  order by requested_at desc limit 1000
), counted as (
  select r.*, o.rows, o.delivered, o.dead
  from recent r
  cross join lateral (
    select count(*) as rows, count(o.processed_at) as delivered, count(o.dead_at) as dead
    from public.event_outbox o where o.replay_run_id = r.id and o.company_id = r.company_id) o
)
select format('outbox row %s', id) as subject,
       case when is_lost then format('waits for a run that is not there: %s', replay_run_id)
            else format('still waits, and its run %s has ended: %s', replay_run_id, status) end as detail,
       format('event %s of %s', event_id, company_id) as witness
from waiting
where is_lost or status in ('completed', 'stopped', 'failed')
union all
select format('dead letter %s', d.id), format('%s, and its replay still waits', d.status), format('event %s of %s', d.event_id, d.company_id)
from waiting w
join public.dead_letter_queue d on d.event_id = w.event_id and d.company_id = w.company_id
where d.status <> 'replaying'
  -- of several letters of one event, one is replayed
  and not exists (
    select from public.dead_letter_queue other where other.event_id = d.event_id and other.company_id = d.company_id and other.status = 'replaying')
union all
select format('dead letter %s', d.id), 'pending, and its replay has delivered it', format('event %s of %s', d.event_id, d.company_id)
from recent r
join public.event_outbox o on o.replay_run_id = r.id and o.company_id = r.company_id and o.processed_at is not null
join public.dead_letter_queue d on d.event_id = o.event_id and d.company_id = o.company_id and d.status = 'pending' and d.created_at < o.inserted_at
where not exists (
  select from public.dead_letter_queue other where other.event_id = d.event_id and other.company_id = d.company_id and other.status <> 'pending')
union all
select format('run %s', replay_run_id), format('%s items in flight at once; allowed: 10', count(*)), company_id::text
from waiting
where claimed_until > now()
group by replay_run_id, company_id having count(*) > 10
union all
select format('run %s', id),
       format('%s: target %s, success %s, failure %s; in the outbox %s rows, %s delivered, %s dead', status, target_count, success_count,
              failure_count, rows, delivered, dead),
       company_id::text
from counted
where rows > target_count
   -- rows may have been cleared away: then nothing can be compared
   or status = 'completed' and rows = target_count and delivered + dead = rows and (delivered, dead) is distinct from (success_count, failure_count)
union all
select format('run %s', id), format('%s items; allowed: {{limit_batch}}', target_count), company_id::text
from recent
where target_count > {{limit_batch}}
union all
select format('run %s', id), format('completed with %s of %s items failed, and was not stopped at 20 %%', failure_count, target_count), company_id::text
from recent
-- items in flight at the stop may finish
where status = 'completed' and target_count > 15 and failure_count > 0.2 * target_count + 10
limit 1000;

-- seen:
select count(*) as seen from (select from public.replay_runs where {{not_excluded}} limit 1000) r;
