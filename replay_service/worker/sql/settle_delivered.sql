-- The effect of a leased event and its acknowledgement; no row where the lease is another's by now.
WITH held AS (
  SELECT e.id, e.event_id, e.company_id
  FROM public.event_outbox e
  WHERE e.id = %(id)s AND e.claim_token = %(token)s AND e.processed_at IS NULL AND e.dead_at IS NULL
  FOR UPDATE
), effect AS (
  INSERT INTO public.agent_tasks AS t (company_id, agent_name, event_id, status, created_at, updated_at)
  SELECT h.company_id, %(agent)s, h.event_id, 'completed', clock_timestamp(), clock_timestamp()
  FROM held h
  ON CONFLICT (event_id) DO UPDATE SET status = 'completed', agent_name = excluded.agent_name, updated_at = excluded.updated_at
  WHERE t.status <> 'completed'
)
UPDATE public.event_outbox e
SET processed_at = clock_timestamp(), claimed_until = NULL, attempts = e.attempts + 1, last_error = NULL
FROM held h
WHERE e.id = h.id
RETURNING e.id
