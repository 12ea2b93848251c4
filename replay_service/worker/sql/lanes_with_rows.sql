-- Which lanes have unfinished rows above the given ids (one id a lane, in lane order).
SELECT t.lane
FROM unnest(%(after)s::bigint[]) WITH ORDINALITY AS a (after, position)
CROSS JOIN LATERAL (SELECT (a.position - 1)::smallint AS lane) t
WHERE EXISTS (
  SELECT FROM public.event_outbox e
  WHERE e.lane = t.lane AND e.processed_at IS NULL AND e.dead_at IS NULL AND e.id > a.after
)
