-- Which lanes have unfinished rows above the given ids (one id a lane, in lane order).
SELECT t.lane
FROM unnest(%(after)s::bigint[]) WITH ORDINALITY AS a (after, position)
CROSS JOIN LATERAL (SELECT (a.position - 1)::smallint AS lane) t
CROSS JOIN LATERAL (
  SELECT e.id
  FROM public.event_outbox e
  WHERE e.processed_at IS NULL AND e.dead_at IS NULL AND (e.lane, e.id) > (t.lane, a.after) AND e.lane <= t.lane
  ORDER BY e.lane, e.id
  LIMIT 1
) first
