-- The rolling rate limit in one statement: at most `allowed` hits in any window of `window_s` seconds.
-- A key that is full in the snapshot is refused without a lock, so a flood of refusals writes nothing. Otherwise the
-- insert or update locks the row and counts again: DO UPDATE reads the clock and the hits after the lock is held.
WITH seen AS MATERIALIZED (
  SELECT live.hits
  FROM public.edge_rate_limits r,
  LATERAL (
    SELECT array(
      SELECT h FROM unnest(r.hits) h WHERE h >= clock_timestamp() - make_interval(secs => %(window_s)s) ORDER BY h
    ) AS hits
  ) live
  WHERE r.key = %(key)s
), admitted AS (
  INSERT INTO public.edge_rate_limits AS r (key, hits)
  SELECT %(key)s, ARRAY[clock_timestamp()]
  WHERE NOT EXISTS (SELECT FROM seen WHERE cardinality(seen.hits) >= %(allowed)s)
  ON CONFLICT (key) DO UPDATE
  SET hits = (
    SELECT array_agg(h ORDER BY h)
    FROM (
      SELECT h FROM unnest(r.hits) h WHERE h >= clock_timestamp() - make_interval(secs => %(window_s)s)
      UNION ALL
      SELECT clock_timestamp()
    ) kept
  )
  WHERE (
    SELECT count(*) FROM unnest(r.hits) h WHERE h >= clock_timestamp() - make_interval(secs => %(window_s)s)
  ) < %(allowed)s
  RETURNING true
)
-- The wait ends when so many hits have left the window that one more fits. A key that filled up after the snapshot
-- was taken filled up just now: the whole window.
SELECT
  EXISTS (SELECT FROM admitted) AS admitted,
  least(%(window_s)s, greatest(1, ceil(extract(epoch FROM coalesce(
    (SELECT seen.hits[greatest(1, cardinality(seen.hits) - %(allowed)s + 1)] FROM seen), clock_timestamp()
  ) + make_interval(secs => %(window_s)s) - clock_timestamp()))))::integer AS retry_after_s
