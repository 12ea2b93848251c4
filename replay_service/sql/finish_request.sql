-- What the request did, and the answer that a duplicate will get.
UPDATE public.replay_runs
SET
  status = %(status)s,
  target_count = %(target_count)s,
  budget_charged = %(budget_charged)s,
  completed_at = CASE WHEN %(status)s = 'completed' THEN now() END,
  response = %(response)s::jsonb
WHERE id = %(run_id)s::uuid
