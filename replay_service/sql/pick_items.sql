-- The eligible items of a company, oldest first, locked; what others hold is skipped.
WITH picked AS MATERIALIZED (
  SELECT id, created_at
  FROM public.dead_letter_queue
  WHERE
    company_id = %(company_id)s::uuid
    AND status = 'pending'
    AND retry_count < max_retries
    AND (%(force)s OR retry_after <= now())
    AND (%(error_type)s::text IS NULL OR error_type = %(error_type)s::text)
  ORDER BY created_at, id
  LIMIT %(limit)s
  FOR UPDATE SKIP LOCKED
)
SELECT picked.id::text FROM picked ORDER BY picked.created_at, picked.id
