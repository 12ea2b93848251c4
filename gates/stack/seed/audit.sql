-- Audit rows in the order of time: the schema chains them. Three rows a run. Every six hours, and just now, a sixth
-- operator made three dry runs and was refused the fourth call.

insert into public.audit_logs (action, actor, scope, target_count, success_count, failure_count, metadata, request_id, created_at)
select action, actor, current_setting('seed.company'), target_count, success_count, failure_count, metadata, request_id, at
from (
    select
        s.step, s.action, 'operator-' || r.operator as actor, r.items as target_count,
        case when s.step = 1 or r.failed then 0 else r.items end as success_count,
        case when s.step > 1 and r.failed then r.items else 0 end as failure_count,
        jsonb_build_object('replay_run_id', r.run_id, 'idempotency_key', r.idempotency_key, 'dry_run', false) as metadata,
        md5('request ' || r.n) as request_id,
        case when s.step = 1 then r.requested_at else r.completed_at end as at
    from seed_runs as r
    cross join (values (1, 'dlq_replay_started'), (2, 'dlq_replay_completed'), (3, 'dlq_replay')) as s (step, action)
    union all
    select
        4, 'dlq_replay_dry_run', 'operator-5', 1, 0, 0, jsonb_build_object('dry_run', true),
        md5('dry run ' || hour || '.' || call), now() - make_interval(hours => hour, secs => 100 + 10 * call)
    from generate_series(0, 18, 6) as hour
    cross join generate_series(1, 3) as call
    union all
    select
        5, 'dlq_replay_refused', 'operator-5', 0, 0, 0, jsonb_build_object('code', 'rate_limited', 'count', 1),
        md5('refused ' || hour), now() - make_interval(hours => hour, secs => 95)
    from generate_series(0, 18, 6) as hour
) as rows
order by at, step;
