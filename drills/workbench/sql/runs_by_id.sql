-- Runs as their rows say, each with its outbox rows.
select r.id::text as id, r.company_id::text as company, r.idempotency_key as key, r.status, r.target_count,
  r.success_count, r.failure_count,
  (select count(*) from public.event_outbox o where o.replay_run_id = r.id) as outbox_rows
from public.replay_runs r where r.id = any(%s)
