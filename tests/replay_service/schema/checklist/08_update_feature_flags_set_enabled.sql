UPDATE feature_flags 
SET enabled = true, rollout_percentage = 100 
WHERE key = 'outbox.enabled';
