-- The end of a locked run, once: its status, the audit row of the end and the summary.
WITH run AS (
  UPDATE public.replay_runs r
  SET status = %(status)s, completed_at = clock_timestamp()
  WHERE r.id = %(run_id)s::uuid AND r.status = 'started'
  RETURNING
    r.actor, r.company_id::text AS scope, r.target_count, r.success_count, r.failure_count, r.request_id,
    jsonb_build_object(
      'replay_run_id', r.id, 'idempotency_key', r.idempotency_key, 'status', r.status,
      'returned', greatest(r.target_count - r.success_count - r.failure_count, 0)
    ) AS metadata
)
SELECT
  public.append_audit('dlq_replay_' || %(status)s, r.actor, r.scope, r.target_count, r.success_count, r.failure_count,
                      r.metadata, r.request_id),
  public.append_audit('dlq_replay', r.actor, r.scope, r.target_count, r.success_count, r.failure_count,
                      r.metadata, r.request_id)
FROM run r
