-- The event that has this id already: its path, and whether it is the same event.
SELECT
  path,
  company_id = %(company_id)s::uuid
  AND event_type = %(event_type)s
  AND aggregate_key IS NOT DISTINCT FROM %(aggregate_key)s
  AND payload = (%(body)s::jsonb) -> 'payload'
FROM public.events
WHERE id = %(event_id)s::uuid
