UPDATE feature_flags SET enabled=false WHERE key='outbox.enabled';
