-- Events that wait for delivery and are not held, and for how long (ms) the most overdue one has been due.
-- An event behind an earlier one of its own key waits in order and is not overdue itself.
WITH waiting AS MATERIALIZED (
  SELECT o.id, o.company_id, o.aggregate_key, o.inserted_at, o.next_attempt_at, o.claimed_until
  FROM public.event_outbox o
  WHERE o.processed_at IS NULL AND o.dead_at IS NULL
), on_air AS MATERIALIZED (
  SELECT c.company_id
  FROM (SELECT DISTINCT company_id FROM waiting) c
  WHERE public.is_feature_enabled('outbox.enabled', c.company_id)
    AND NOT EXISTS (
      SELECT FROM public.agent_controls a
      WHERE a.agents_paused AND (a.company_id IS NULL OR a.company_id = c.company_id)
    )
), live AS MATERIALIZED (
  SELECT w.* FROM waiting w JOIN on_air USING (company_id)
), heads AS (
  SELECT min(id) AS id FROM live WHERE aggregate_key IS NOT NULL GROUP BY company_id, aggregate_key
  UNION ALL
  SELECT id FROM live WHERE aggregate_key IS NULL
)
SELECT
  (SELECT count(*) FROM live) AS backlog,
  coalesce((
    SELECT max(extract(epoch FROM clock_timestamp() - greatest(l.inserted_at, l.next_attempt_at))) * 1000
    FROM live l JOIN heads USING (id)
    WHERE (l.claimed_until IS NULL OR l.claimed_until <= now())
      AND (l.next_attempt_at IS NULL OR l.next_attempt_at <= now())
  ), 0)::double precision AS oldest_ms
