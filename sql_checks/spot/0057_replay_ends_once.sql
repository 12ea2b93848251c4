-- id: sql/spot/replay-ends-once
-- claim: No run has two rows of its start, two of its end or two summaries in the trail (where the rows name their run).
-- cost: The trail shows more replays than there were.
-- severity: page
-- covers: I01
with ends as (
  select metadata ->> 'replay_run_id' as run, id,
         case action when 'dlq_replay' then 'summary' when 'dlq_replay_started' then 'start' else 'end' end as kind
  from public.audit_logs
  where created_at > now() - interval '1 day'
    and action in ('dlq_replay', 'dlq_replay_started', 'dlq_replay_completed', 'dlq_replay_stopped')
    and metadata ? 'replay_run_id' and metadata ->> 'replay_run_id' <> ''
)
select format('run %s', run) as subject, format('%s %s rows', count(*), kind) as detail, string_agg(id::text, ', ') as witness
from ends
group by run, kind having count(*) > 1;

-- seen:
select count(*) as seen from (
  select from public.audit_logs where action in ('dlq_replay', 'dlq_replay_completed', 'dlq_replay_stopped') limit 1000
) a;
