-- The outbox rows of a tenant, each with its state: pending, in_flight, processed or dead.
select id, event_id::text as event, company_id, event_type, aggregate_key, payload, attempts, replay_run_id,
       processed_at is not null as processed,
       case when processed_at is not null then 'processed' when dead_at is not null then 'dead'
            when claimed_until > now() then 'in_flight' else 'pending' end as state
from public.event_outbox where company_id = %s order by id
