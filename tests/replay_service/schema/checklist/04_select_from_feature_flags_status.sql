SELECT * FROM feature_flags_status WHERE key LIKE 'dlq%';
