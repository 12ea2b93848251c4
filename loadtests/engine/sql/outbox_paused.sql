-- Whether deliveries are paused for everybody, and how much of outbox.enabled and of dlq.replay.enabled is rolled out
-- (null: no global row).
SELECT
  coalesce((SELECT bool_or(agents_paused) FROM public.agent_controls WHERE company_id IS NULL), false) AS paused,
  (SELECT CASE WHEN enabled THEN rollout_percentage ELSE 0 END
   FROM public.feature_flags WHERE key = 'outbox.enabled' AND company_id IS NULL) AS percentage,
  (SELECT CASE WHEN enabled THEN rollout_percentage ELSE 0 END
   FROM public.feature_flags WHERE key = 'dlq.replay.enabled' AND company_id IS NULL) AS replay_percentage
