-- Pending dead letters of a tenant that are younger than those of other drills: tenant, payload, how many.
insert into public.dead_letter_queue (company_id, event_id, event_type, payload, error_type, created_at)
select %s, gen_random_uuid(), 'drill.item', %s, 'drill', now() - interval '1 minute'
from generate_series(1, %s)
