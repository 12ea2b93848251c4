-- A failed attempt: back off, or after the last one dead in the outbox and a dead letter, in this one statement.
-- Backoff: exponential, capped, jittered to half..whole, by the database clock.
WITH held AS (
  SELECT e.*, e.attempts + 1 AS ended, e.attempts + 1 >= %(max_attempts)s AS is_last
  FROM public.event_outbox e
  WHERE e.id = %(id)s AND e.claim_token = %(token)s AND e.processed_at IS NULL AND e.dead_at IS NULL
  FOR UPDATE
), task AS (
  INSERT INTO public.agent_tasks AS t (company_id, agent_name, event_id, status, created_at, updated_at)
  SELECT h.company_id, %(agent)s, h.event_id, 'failed', clock_timestamp(), clock_timestamp()
  FROM held h
  WHERE %(record_task)s
  ON CONFLICT (event_id) DO UPDATE SET status = 'failed', updated_at = excluded.updated_at
  WHERE t.status <> 'completed'
), letter AS (
  INSERT INTO public.dead_letter_queue (company_id, event_id, event_type, aggregate_key, payload, error_type, error_message)
  SELECT h.company_id, h.event_id, h.event_type, h.aggregate_key, h.payload, %(error_type)s, %(error_message)s
  FROM held h
  WHERE h.is_last
)
UPDATE public.event_outbox e
SET
  attempts = h.ended,
  claimed_until = NULL,
  claim_token = NULL,
  last_error = %(error_type)s,
  dead_at = CASE WHEN h.is_last THEN clock_timestamp() END,
  next_attempt_at = CASE WHEN h.is_last THEN e.next_attempt_at ELSE clock_timestamp() + make_interval(
    secs => least(%(backoff_cap_s)s, %(backoff_base_s)s * 2 ^ least(h.ended - 1, 30)) * (0.5 + random() / 2)
  ) END
FROM held h
WHERE e.id = h.id
RETURNING e.dead_at IS NOT NULL
