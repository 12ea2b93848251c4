-- Lease items of the locked runs: at most 10 of a run in flight, heads of their key only, oldest first. Flag and pause are
-- asked again: on a busy machine lock_runs gets its locks long after it asked. Now that it has them, no item settles.
WITH rooms AS MATERIALIZED (
  SELECT r.id, %(places)s - (
    SELECT count(*) FROM public.event_outbox e
    WHERE e.replay_run_id = r.id AND e.processed_at IS NULL AND e.dead_at IS NULL AND e.claimed_until > now()
  ) AS free
  FROM public.replay_runs r
  WHERE r.id = ANY(%(runs)s::uuid[])
    AND public.is_feature_enabled('outbox.enabled', r.company_id) AND NOT public.is_company_paused(r.company_id)
), heads AS MATERIALIZED (
  SELECT i.ctid, i.id
  FROM rooms r
  CROSS JOIN LATERAL (
    SELECT e.ctid, e.id
    FROM public.event_outbox e
    -- a range of one, so that the order cannot come from the primary key
    WHERE e.replay_run_id BETWEEN r.id AND r.id AND e.processed_at IS NULL AND e.dead_at IS NULL
      AND e.next_attempt_at <= now() AND (e.claimed_until IS NULL OR e.claimed_until <= now())
      AND (e.aggregate_key IS NULL OR (
        SELECT b.id FROM public.event_outbox b
        WHERE b.processed_at IS NULL AND b.dead_at IS NULL AND b.aggregate_key IS NOT NULL
          AND b.company_id = ANY(ARRAY[e.company_id, NULL]) AND b.aggregate_key = e.aggregate_key AND b.id < e.id
        ORDER BY b.company_id, b.id
        LIMIT 1
      ) IS NULL)
    ORDER BY e.replay_run_id, e.id
    LIMIT greatest(r.free, 0)
  ) i
  ORDER BY i.id
  LIMIT %(slots)s
), locked AS MATERIALIZED (
  SELECT e.ctid
  FROM heads h
  JOIN public.event_outbox e ON e.ctid = h.ctid
  WHERE e.processed_at IS NULL AND e.dead_at IS NULL
    AND e.next_attempt_at <= now() AND (e.claimed_until IS NULL OR e.claimed_until <= now())
  FOR UPDATE OF e SKIP LOCKED
), leased AS (
  UPDATE public.event_outbox e
  SET claimed_until = clock_timestamp() + make_interval(secs => %(lease_s)s), claim_token = %(token)s
  FROM locked l
  WHERE e.ctid = l.ctid
  RETURNING e.id, e.event_id, e.company_id, e.event_type, e.aggregate_key, e.payload, e.attempts, e.replay_run_id
)
SELECT
  l.id, l.event_id::text, l.company_id::text, l.event_type, l.aggregate_key, l.payload::text, l.replay_run_id::text,
  l.event_type LIKE 'drill.%%' AND l.payload ? 'drill' AND public.is_drill_company(l.company_id) AS is_scripted,
  l.attempts + (
    SELECT coalesce(sum(o.attempts), 0) FROM public.event_outbox o WHERE o.event_id = l.event_id AND o.dead_at IS NOT NULL
  ) AS failures
FROM leased l
ORDER BY l.id
