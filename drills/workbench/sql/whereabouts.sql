-- The state of each of these events in the outbox and in the agent tasks.
select case when processed_at is not null then 'processed' when dead_at is not null then 'dead'
            when claimed_until > now() then 'in flight, its claim ends in ' || ceil(extract(epoch from claimed_until - now())) || ' s'
            when claimed_until is not null then 'pending after a claim ran out'
            when attempts > 0 then 'pending after a failure' else 'pending'
       end as what
from public.event_outbox where event_id = any(%s::uuid[])
union all
select 'with a task that is ' || status from public.agent_tasks where event_id = any(%s::uuid[])
