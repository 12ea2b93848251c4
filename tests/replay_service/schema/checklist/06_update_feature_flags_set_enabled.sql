UPDATE feature_flags 
SET enabled = true, rollout_percentage = 10 
WHERE key = 'outbox.enabled';
