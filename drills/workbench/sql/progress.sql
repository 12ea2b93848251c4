-- How many events of a tenant are in flight, processed and dead.
select count(*) filter (where claimed_until > now() and processed_at is null and dead_at is null) as flying,
       count(processed_at) as processed, count(dead_at) as dead
from public.event_outbox where company_id = %s
