-- One replay run.
select id, idempotency_key, status, target_count, success_count, failure_count, completed_at
from public.replay_runs where id = %s
