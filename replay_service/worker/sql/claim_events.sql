-- Lease the rows of a lane's window whose delivery crosses transactions: only heads of their key, only as many as there
-- are free slots. One row with the window's figures, joined to each leased row (none leased: nulls).
WITH win AS MATERIALIZED (
  SELECT
    e.ctid, e.id, e.company_id, e.aggregate_key, e.replay_run_id,
    e.next_attempt_at <= now() AND (e.claimed_until IS NULL OR e.claimed_until <= now()) AS is_due,
    e.event_type LIKE 'drill.%%' AND e.payload ? 'drill' AS is_scripted
  FROM public.event_outbox e
  -- conditions of one element here and below as in drain_lane.sql: they leave one index to choose
  WHERE e.processed_at IS NULL AND e.dead_at IS NULL
    AND (e.lane, e.id) > (%(lane)s::smallint, %(after)s::bigint) AND e.lane <= %(lane)s::smallint
  ORDER BY e.lane, e.id
  LIMIT %(window)s
), tenants AS MATERIALIZED (
  SELECT
    t.company_id,
    public.is_feature_enabled('outbox.enabled', t.company_id) AND NOT public.is_company_paused(t.company_id) AS is_on,
    t.has_scripted AND public.is_drill_company(t.company_id) AS is_drill
  FROM (SELECT w.company_id, bool_or(w.is_scripted) AS has_scripted FROM win w GROUP BY w.company_id) t
), able AS MATERIALIZED (
  -- a row of a run is the run's to lease; where its run is gone or over, it is an event like any other
  SELECT
    w.ctid, w.id, w.company_id, w.aggregate_key,
    w.is_scripted AND w.company_id IN (SELECT t.company_id FROM tenants t WHERE t.is_drill) AS is_scripted,
    w.replay_run_id IS NOT NULL
      AND EXISTS (SELECT FROM public.replay_runs r WHERE r.id = w.replay_run_id AND r.status = 'started') AS is_item,
    w.replay_run_id IS NOT NULL AS is_replay
  FROM win w
  WHERE w.is_due AND w.company_id NOT IN (SELECT t.company_id FROM tenants t WHERE NOT t.is_on)
), heads AS MATERIALIZED (
  SELECT a.ctid, a.id, a.is_scripted
  FROM able a
  WHERE NOT a.is_item AND (a.is_scripted OR a.is_replay OR %(every)s)
    AND (a.aggregate_key IS NULL OR (
      SELECT b.id FROM public.event_outbox b
      WHERE b.processed_at IS NULL AND b.dead_at IS NULL AND b.aggregate_key IS NOT NULL
        AND b.company_id = ANY(ARRAY[a.company_id, NULL]) AND b.aggregate_key = a.aggregate_key AND b.id < a.id
      ORDER BY b.company_id, b.id
      LIMIT 1
    ) IS NULL)
  ORDER BY a.id
  LIMIT %(slots)s
), locked AS MATERIALIZED (
  SELECT e.ctid, h.is_scripted
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
  RETURNING e.id, e.event_id, e.company_id, e.event_type, e.aggregate_key, e.payload, e.attempts, l.is_scripted
)
SELECT
  f.examined, f.last_id, f.has_items,
  l.id, l.event_id::text, l.company_id::text, l.event_type, l.aggregate_key, l.payload::text, l.is_scripted,
  l.attempts + (
    -- failures of the event in its earlier outbox rows: a scripted event counts them all
    SELECT coalesce(sum(o.attempts), 0) FROM public.event_outbox o
    WHERE l.is_scripted AND o.event_id = l.event_id AND o.dead_at IS NOT NULL
  ) AS failures
FROM (
  SELECT
    (SELECT count(*) FROM win) AS examined,
    (SELECT coalesce(max(w.id), %(after)s) FROM win w) AS last_id,
    (SELECT coalesce(bool_or(a.is_item), false) FROM able a) AS has_items
) f
LEFT JOIN leased l ON true
ORDER BY l.id
