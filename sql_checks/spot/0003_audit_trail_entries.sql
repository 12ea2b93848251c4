-- id: sql/spot/audit-trail-entries
-- claim: The audit rows of replays have plausible counts (query 3 of the checklist).
-- cost: The trail shows something other than what happened.
-- severity: page
select format('audit row %s', id) as subject,
       format('%s: target %s, success %s, failure %s', action, target_count, success_count, failure_count) as detail,
       metadata::text as witness
from (
  select * from public.audit_logs
  where action in ('dlq_replay', 'dlq_replay_started', 'dlq_replay_completed')
  order by created_at desc limit 1000
) recent
where target_count < 0 or success_count < 0 or failure_count < 0 or success_count::bigint + failure_count > target_count
   or scope is null or scope <> 'all' and scope !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';

-- seen:
SELECT action, created_at, scope, target_count, success_count, failure_count
FROM public.audit_logs
WHERE action IN ('dlq_replay', 'dlq_replay_started', 'dlq_replay_completed')
ORDER BY created_at DESC LIMIT 10;
