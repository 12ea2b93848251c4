-- Unresolved dead letters by kind of error, with how many have used up their retries.
select error_type, status, count(*) as items, count(*) filter (where retry_count >= max_retries) as exhausted,
       min(created_at) as oldest
from public.dead_letter_queue where status in ('pending', 'replaying')
group by error_type, status order by items desc limit 50;
