-- Replay runs and the dead letters that they moved.

insert into public.replay_runs (
    id, idempotency_key, company_id, actor, payload_hash, status,
    target_count, success_count, failure_count, requested_at, completed_at
)
select
    run_id, idempotency_key, current_setting('seed.company')::uuid, 'operator-' || operator,
    encode(sha256(convert_to(idempotency_key, 'UTF8')), 'hex'), 'completed',
    items, case when failed then 0 else items end, case when failed then items else 0 end, requested_at, completed_at
from seed_runs
order by requested_at;

insert into public.dead_letter_queue (
    id, company_id, event_id, event_type, payload, error_type, error_message,
    retry_count, max_retries, retry_after, status, created_at
)
select
    item_id, current_setting('seed.company')::uuid, event_id, event_type, payload, error_type, 'seeded ' || error_type,
    case when run_id is not null and not resolved then 1 else 0 end, 5,
    case when run_id is not null and not resolved then completed_at + interval '1 minute' else created_at end,
    case when resolved then 'resolved' else 'pending' end, created_at
from seed_items
order by seed_items.created_at;
