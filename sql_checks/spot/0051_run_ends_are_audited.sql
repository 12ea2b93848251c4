-- id: sql/spot/run-ends-are-audited
-- claim: Every run of the last day that ended has its end row and its summary in the audit trail, and both have the counts of a run that completed.
-- cost: The trail does not say how the replay ended.
-- severity: page
-- covers: I01
with ended as (
  select company_id, count(*) as runs,
         count(*) filter (where status = 'completed') as completed,
         count(*) filter (where status = 'stopped') as stopped
  from public.replay_runs
  where requested_at > now() - interval '1 day' and completed_at < now() and status in ('completed', 'stopped')
    and {{not_excluded}}
  group by company_id
), trail as (
  select scope,
         count(*) filter (where action = 'dlq_replay_completed') as completed,
         count(*) filter (where action = 'dlq_replay_stopped') as stopped,
         count(*) filter (where action = 'dlq_replay') as summaries
  from public.audit_logs
  where created_at > now() - interval '25 hours'
    and action in ('dlq_replay_completed', 'dlq_replay_stopped', 'dlq_replay')
  group by scope
), lacking as materialized (
  select e.*, coalesce(t.completed, 0) as told_completed, coalesce(t.stopped, 0) as told_stopped, coalesce(t.summaries, 0) as summaries
  from ended e
  left join trail t on t.scope = e.company_id::text
  where coalesce(t.completed, 0) < e.completed or coalesce(t.stopped, 0) < e.stopped or coalesce(t.summaries, 0) < e.runs
), orphans as materialized (
  select merged.txid
  from public.audit_logs merged
  left join public.companies k on k.id::text = merged.scope
  where k.id is null and merged.scope <> 'all' and merged.action = 'dlq_replay_started'
    and merged.created_at > now() - interval '25 hours' and exists (select from lacking)
)
select format('runs of %s', e.company_id) as subject,
       format('%s completed, %s stopped; audited: %s completed, %s stopped, %s summaries', e.completed, e.stopped,
              e.told_completed, e.told_stopped, e.summaries) as detail,
       e.company_id::text as witness
from lacking e
-- a tenant that was merged into another took its runs along; its trail stays as it is
where not exists (
    select from public.replay_runs r
    join orphans on orphans.txid = r.txid
    where r.company_id = e.company_id and r.requested_at > now() - interval '1 day'
      and exists (select from public.companies into_it where into_it.id = e.company_id))
  and {{trail_has_replays}}
union all
-- in one pass: a join of the two would pair all rows where the statistics are old
select format('run %s', run), string_agg(format('%s: target %s, success %s, failure %s', said_by, target, success, failure), '; ' order by said_by desc),
       company
from (
  (select id::text as run, company_id::text as company, 'the run' as said_by, target_count as target,
          coalesce(success_count, 0) as success, coalesce(failure_count, 0) as failure
   from public.replay_runs
   where requested_at > now() - interval '1 day' and status = 'completed' and {{not_excluded}}
   order by requested_at desc limit 1000)
  union all
  select metadata ->> 'replay_run_id', scope, action, target_count, success_count, failure_count
  from public.audit_logs
  where created_at > now() - interval '25 hours' and action in ('dlq_replay', 'dlq_replay_completed')
) told
group by run, company
having bool_or(said_by = 'the run') and (min(target), min(success), min(failure)) is distinct from (max(target), max(success), max(failure));

-- seen:
select count(*) as seen from (
  select from public.replay_runs
  where requested_at > now() - interval '1 day' and status in ('completed', 'stopped') and {{not_excluded}}
    and {{trail_has_replays}}
  limit 10000
) runs;
