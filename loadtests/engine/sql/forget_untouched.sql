-- Removes dead letters that the run made itself and that no replay touched: companies, then the type of those items.
delete from public.dead_letter_queue
where company_id = any(%s::uuid[])
  and event_type = %s
  and status = 'pending'
  and retry_count = 0
