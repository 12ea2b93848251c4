-- The last twenty replay runs.
select id, company_id, actor, status, target_count, success_count, failure_count, requested_at, completed_at - requested_at as took
from public.replay_runs order by requested_at desc limit 20;
