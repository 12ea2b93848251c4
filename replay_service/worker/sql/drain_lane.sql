-- Claim, effect and acknowledgement of ordinary events in one statement: the rows examined next in a lane, those delivered.
-- A window of rows is examined, however many of them qualify, so held or blocked rows cost one pass and never a search.
-- Order: a row is delivered only if every earlier unfinished row of its key is delivered with it, that is, locked by us.
-- A stale snapshot can only show a finished row as unfinished, which holds back and never overtakes.
WITH win AS MATERIALIZED (
  SELECT
    e.ctid, e.id, e.company_id, e.aggregate_key,
    e.next_attempt_at <= now() AND (e.claimed_until IS NULL OR e.claimed_until <= now()) AS is_due,
    e.replay_run_id IS NOT NULL AS is_replay,
    e.event_type LIKE 'drill.%%' AND e.payload ? 'drill' AS is_scripted
  FROM public.event_outbox e
  -- as a row comparison, so that no index but (lane, id) can give the order: the primary key would walk all finished rows
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
  -- IN and NOT IN, because they are hashed whatever the planner expects; a join could become a loop over all pairs
  SELECT
    w.ctid, w.id, w.company_id, w.aggregate_key,
    w.is_replay OR (w.is_scripted AND w.company_id IN (SELECT t.company_id FROM tenants t WHERE t.is_drill)) AS is_leased
  FROM win w
  WHERE w.is_due AND w.company_id NOT IN (SELECT t.company_id FROM tenants t WHERE NOT t.is_on)
), ordinary AS MATERIALIZED (
  SELECT a.ctid, a.id, a.company_id, a.aggregate_key FROM able a WHERE NOT a.is_leased
), blocked AS MATERIALIZED (
  -- before any lock, so that followers of a blocked head are not locked in vain with every sweep
  SELECT u.id
  FROM (
    SELECT r.company_id, r.aggregate_key, max(r.id) AS last_id, array_agg(r.id) AS ids
    FROM ordinary r
    WHERE r.aggregate_key IS NOT NULL
    GROUP BY r.company_id, r.aggregate_key
  ) k
  CROSS JOIN LATERAL (
    -- = ANY of one, so that here, too, one index alone gives the order: the one that has the key
    SELECT e.id
    FROM public.event_outbox e
    WHERE e.processed_at IS NULL AND e.dead_at IS NULL AND e.aggregate_key IS NOT NULL
      AND e.company_id = ANY(ARRAY[k.company_id, NULL]) AND e.aggregate_key = k.aggregate_key AND e.id < k.last_id
      AND e.id NOT IN (SELECT r.id FROM ordinary r)
    ORDER BY e.company_id, e.id
    LIMIT 1
  ) first
  CROSS JOIN LATERAL unnest(k.ids) AS u (id)
  WHERE u.id > first.id
), free AS MATERIALIZED (
  SELECT o.ctid FROM ordinary o WHERE o.id NOT IN (SELECT b.id FROM blocked b)
), locked AS MATERIALIZED (
  SELECT e.ctid, e.id, e.event_id, e.company_id, e.aggregate_key
  FROM free f
  JOIN public.event_outbox e ON e.ctid = f.ctid
  WHERE e.processed_at IS NULL AND e.dead_at IS NULL
    AND e.next_attempt_at <= now() AND (e.claimed_until IS NULL OR e.claimed_until <= now())
  FOR UPDATE OF e SKIP LOCKED
), overtaking AS MATERIALIZED (
  -- once more, and only where another session had some of the rows: theirs may come before ours
  SELECT u.id
  FROM (
    SELECT r.company_id, r.aggregate_key, max(r.id) AS last_id, array_agg(r.id) AS ids
    FROM locked r
    WHERE r.aggregate_key IS NOT NULL AND (SELECT count(*) FROM locked) < (SELECT count(*) FROM free)
    GROUP BY r.company_id, r.aggregate_key
  ) k
  CROSS JOIN LATERAL (
    SELECT e.id
    FROM public.event_outbox e
    WHERE e.processed_at IS NULL AND e.dead_at IS NULL AND e.aggregate_key IS NOT NULL
      AND e.company_id = ANY(ARRAY[k.company_id, NULL]) AND e.aggregate_key = k.aggregate_key AND e.id < k.last_id
      AND e.id NOT IN (SELECT r.id FROM locked r)
    ORDER BY e.company_id, e.id
    LIMIT 1
  ) first
  CROSS JOIN LATERAL unnest(k.ids) AS u (id)
  WHERE u.id > first.id
), ready AS MATERIALIZED (
  SELECT l.ctid, l.id, l.event_id, l.company_id
  FROM locked l
  WHERE l.id NOT IN (SELECT o.id FROM overtaking o)
), made AS (
  INSERT INTO public.agent_tasks (company_id, agent_name, event_id, status, created_at, updated_at)
  SELECT r.company_id, 'sql', r.event_id, 'completed', c.at, c.at
  FROM ready r CROSS JOIN (SELECT clock_timestamp() AS at) c
  ORDER BY r.id
  ON CONFLICT (event_id) DO NOTHING
  RETURNING event_id
), tally AS MATERIALIZED (
  SELECT (SELECT count(*) FROM made) = (SELECT count(*) FROM ready) AS is_clean
), mended AS (
  -- only where a task of the event was there before: an unfinished one becomes the effect, a completed one is the effect
  UPDATE public.agent_tasks t
  SET status = 'completed', updated_at = clock_timestamp()
  FROM ready r
  WHERE NOT (SELECT y.is_clean FROM tally y) AND t.event_id = r.event_id AND t.status <> 'completed'
  RETURNING t.event_id
), effects AS (
  SELECT m.event_id FROM made m
  UNION ALL
  SELECT m.event_id FROM mended m
  UNION ALL
  SELECT t.event_id FROM public.agent_tasks t JOIN ready r USING (event_id) WHERE t.status = 'completed'
), acknowledged AS (
  UPDATE public.event_outbox e
  SET processed_at = c.at, claimed_until = NULL, attempts = e.attempts + 1
  FROM ready r CROSS JOIN (SELECT clock_timestamp() AS at) c
  WHERE e.ctid = r.ctid AND ((SELECT y.is_clean FROM tally y) OR r.event_id IN (SELECT f.event_id FROM effects f))
  RETURNING 1
)
SELECT
  (SELECT count(*) FROM win) AS examined,
  (SELECT coalesce(max(w.id), %(after)s) FROM win w) AS last_id,
  (SELECT count(*) FROM acknowledged) AS delivered,
  (SELECT coalesce(bool_or(a.is_leased), false) FROM able a) AS has_leased
