-- Which of the ids asked for belong to the company, and whether each is eligible in itself.
SELECT
  id::text,
  status = 'pending'
  AND retry_count < max_retries
  AND (%(force)s OR retry_after <= now())
  AND (%(error_type)s::text IS NULL OR error_type = %(error_type)s::text)
FROM public.dead_letter_queue
WHERE company_id = %(company_id)s::uuid AND id = ANY(%(dlq_ids)s::uuid[])
