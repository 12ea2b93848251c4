-- As pick_items.sql, among the ids that were asked for. Its own file, so that each has its own plan.
WITH picked AS MATERIALIZED (
  SELECT id, created_at
  FROM public.dead_letter_queue
  WHERE
    company_id = %(company_id)s::uuid
    AND id = ANY(%(dlq_ids)s::uuid[])
    AND status = 'pending'
    AND retry_count < max_retries
    AND (%(force)s OR retry_after <= now())
    AND (%(error_type)s::text IS NULL OR error_type = %(error_type)s::text)
  ORDER BY created_at, id
  LIMIT %(limit)s
  FOR UPDATE SKIP LOCKED
)
SELECT picked.id::text FROM picked ORDER BY picked.created_at, picked.id
