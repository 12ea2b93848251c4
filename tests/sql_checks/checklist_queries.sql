SELECT conname, pg_get_constraintdef(c.oid)
FROM pg_constraint c
WHERE c.conrelid = 'public.replay_runs'::regclass;

SELECT key, count, window_start FROM public.edge_rate_limits
WHERE key LIKE 'replay:%' ORDER BY window_start DESC LIMIT 5;

SELECT action, created_at, scope, target_count, success_count, failure_count
FROM public.audit_logs
WHERE action IN ('dlq_replay', 'dlq_replay_started', 'dlq_replay_completed')
ORDER BY created_at DESC LIMIT 10;

SELECT * FROM public.feature_flags_status WHERE key LIKE 'dlq%';

SELECT * FROM public.replay_budgets_status;
