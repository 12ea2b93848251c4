SELECT action, created_at, scope, target_count, success_count, failure_count
FROM public.audit_logs
WHERE action IN ('dlq_replay', 'dlq_replay_started', 'dlq_replay_completed')
ORDER BY created_at DESC LIMIT 10;
