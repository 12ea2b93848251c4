-- Events with their outbox rows and effects. The identity of an outbox row grows with its time, as in real life.

insert into public.events (id, company_id, event_type, aggregate_key, payload, path, created_at)
select event_id, current_setting('seed.company')::uuid, event_type, aggregate_key, payload, 'outbox', inserted_at
from seed_events
union all
select
    event_id, current_setting('seed.company')::uuid, event_type, null, payload, 'outbox', created_at - interval '31 seconds'
from seed_items
where ours
order by inserted_at;

insert into public.event_outbox (
    event_id, company_id, event_type, aggregate_key, payload,
    inserted_at, processed_at, dead_at, attempts, next_attempt_at, replay_run_id
)
select
    event_id, current_setting('seed.company')::uuid, event_type, aggregate_key, payload,
    inserted_at, processed_at, dead_at, attempts, inserted_at, run_id
from (
    select event_id, event_type, aggregate_key, payload, inserted_at, processed_at,
        null::timestamptz as dead_at, 1 as attempts, null::uuid as run_id
    from seed_events
    union all
    select event_id, event_type, null, payload, created_at - interval '31 seconds', null, created_at, 5, null
    from seed_items
    where ours
    union all
    select event_id, event_type, null, payload, requested_at, completed_at, null, 1, run_id
    from seed_items
    where resolved
) as rows
order by inserted_at;

insert into public.agent_tasks (company_id, agent_name, event_id, status, created_at, updated_at)
select
    current_setting('seed.company')::uuid, 'dispatcher', event_id, status, created_at, updated_at
from (
    select event_id, 'completed' as status, processed_at as created_at, processed_at as updated_at from seed_events
    union all
    select event_id, 'completed', coalesce(case when ours then created_at end, completed_at), completed_at
    from seed_items
    where resolved
    union all
    select event_id, 'failed', completed_at, completed_at
    from seed_items
    where not resolved and run_id is not null
) as rows
order by created_at;
