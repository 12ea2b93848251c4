-- An event with its latest outbox row and its effect.
SELECT
  e.company_id::text,
  e.created_at AS committed_at,
  t.updated_at AS effect_at,
  CASE
    WHEN t.id IS NOT NULL OR o.processed_at IS NOT NULL THEN 'processed'
    WHEN o.dead_at IS NOT NULL THEN 'dead'
    WHEN o.claimed_until > now() THEN 'in_flight'
    ELSE 'pending'
  END AS status
FROM public.events e
LEFT JOIN public.agent_tasks t ON t.event_id = e.id AND t.status = 'completed'
LEFT JOIN LATERAL (
  SELECT x.processed_at, x.dead_at, x.claimed_until
  FROM public.event_outbox x
  WHERE x.event_id = e.id
  ORDER BY x.id DESC
  LIMIT 1
) o ON true
WHERE e.id = %(event_id)s::uuid
