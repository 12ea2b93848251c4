-- Dead letters of these companies whose replay has not ended.
select count(*) as items
from public.dead_letter_queue
where company_id = any(%s::uuid[])
  and status = 'replaying'
