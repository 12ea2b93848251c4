-- The 20 percent rail: what a locked run has not attempted goes back untouched, and its budget is refunded to the period in
-- which it was charged, never below 0. Returns how many went back.
WITH run AS (
  SELECT r.id, r.company_id, r.budget_charged, (r.requested_at AT TIME ZONE 'UTC')::date AS day
  FROM public.replay_runs r
  WHERE r.id = %(run_id)s::uuid
), gone AS (
  DELETE FROM public.event_outbox e
  USING run r
  WHERE e.replay_run_id = r.id AND e.processed_at IS NULL AND e.dead_at IS NULL AND e.claim_token IS NULL
  RETURNING e.event_id, e.company_id, e.dlq_id
), letters AS (
  UPDATE public.dead_letter_queue d
  SET status = 'pending', replay_run_id = NULL
  FROM gone g
  WHERE d.status = 'replaying' AND d.company_id = g.company_id
    AND (d.id = g.dlq_id OR (g.dlq_id IS NULL AND d.event_id = g.event_id))
), refund AS (
  SELECT r.company_id, r.day, least((SELECT count(*) FROM gone), r.budget_charged)::integer AS items
  FROM run r
), budget AS (
  UPDATE public.replay_budgets b
  SET
    daily_used = CASE WHEN b.day = f.day THEN greatest(b.daily_used - f.items, 0) ELSE b.daily_used END,
    monthly_used = CASE WHEN b.month = date_trunc('month', f.day)::date
      THEN greatest(b.monthly_used - f.items, 0) ELSE b.monthly_used END
  FROM refund f
  WHERE b.company_id = f.company_id AND f.items > 0
), stopping AS (
  UPDATE public.replay_runs r
  SET stopping_at = clock_timestamp(), budget_charged = r.budget_charged - f.items
  FROM refund f
  WHERE r.id = %(run_id)s::uuid
)
SELECT count(*) FROM gone
