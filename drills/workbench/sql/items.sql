-- The dead letters of a tenant, in the order in which a replay takes them.
select id, company_id, event_id, event_type, aggregate_key, payload, error_type, error_message, retry_count,
       max_retries, least(retry_after, '9000-01-01') as retry_after, status, created_at
from public.dead_letter_queue where company_id = %s order by created_at, id
