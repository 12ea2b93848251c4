-- One replayed item: effect, outbox row, dead letter and the run's counts together. One attempt: it is resolved, or its
-- dead letter waits again with one more retry and a later retry_after.
WITH held AS (
  SELECT e.id, e.event_id, e.company_id, e.dlq_id, e.replay_run_id
  FROM public.event_outbox e
  WHERE e.id = %(id)s
), effect AS (
  INSERT INTO public.agent_tasks AS t (company_id, agent_name, event_id, status, created_at, updated_at)
  SELECT
    h.company_id, %(agent)s, h.event_id, CASE WHEN %(is_delivered)s THEN 'completed' ELSE 'failed' END,
    clock_timestamp(), clock_timestamp()
  FROM held h
  WHERE %(record_task)s
  ON CONFLICT (event_id) DO UPDATE
  SET status = excluded.status, agent_name = excluded.agent_name, updated_at = excluded.updated_at
  WHERE t.status <> 'completed'
), outbox AS (
  UPDATE public.event_outbox e
  SET
    processed_at = CASE WHEN %(is_delivered)s THEN clock_timestamp() END,
    dead_at = CASE WHEN %(is_delivered)s THEN NULL ELSE clock_timestamp() END,
    claimed_until = NULL,
    attempts = e.attempts + 1,
    last_error = %(error_type)s
  FROM held h
  WHERE e.id = h.id
), letter AS (
  UPDATE public.dead_letter_queue d
  SET
    status = CASE WHEN %(is_delivered)s THEN 'resolved' ELSE 'pending' END,
    retry_count = d.retry_count + CASE WHEN %(is_delivered)s THEN 0 ELSE 1 END,
    retry_after = CASE WHEN %(is_delivered)s THEN d.retry_after ELSE greatest(d.retry_after, clock_timestamp()) + make_interval(
      secs => least(%(retry_cap_s)s, %(retry_base_s)s * 2 ^ least(d.retry_count, 30)) * (0.5 + random() / 2)
    ) END,
    error_type = coalesce(%(error_type)s, d.error_type),
    error_message = coalesce(%(error_message)s, d.error_message),
    updated_at = clock_timestamp()
  FROM held h
  WHERE d.status = 'replaying' AND d.company_id = h.company_id AND d.id = coalesce(h.dlq_id, (
    SELECT x.id FROM public.dead_letter_queue x
    WHERE x.event_id = h.event_id AND x.company_id = h.company_id AND x.status = 'replaying'
    LIMIT 1
  ))
)
UPDATE public.replay_runs r
SET
  success_count = r.success_count + CASE WHEN %(is_delivered)s THEN 1 ELSE 0 END,
  failure_count = r.failure_count + CASE WHEN %(is_delivered)s THEN 0 ELSE 1 END
FROM held h
WHERE r.id = h.replay_run_id
RETURNING r.success_count, r.failure_count, r.stopping_at IS NOT NULL
