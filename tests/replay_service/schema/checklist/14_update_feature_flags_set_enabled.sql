UPDATE feature_flags SET enabled=true, rollout_percentage=50 WHERE key='outbox.enabled';
