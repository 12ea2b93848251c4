-- Status and counts of a run.
SELECT
  id::text, company_id::text, idempotency_key, status, target_count, success_count, failure_count, requested_at, completed_at
FROM public.replay_runs
WHERE id = %(run_id)s::uuid
