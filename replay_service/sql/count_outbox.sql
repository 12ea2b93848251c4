-- Events not yet delivered, apart from held ones (contract, section 4): how many, and the age of the oldest.
WITH per_company AS MATERIALIZED (
  SELECT company_id, count(*) AS rows, min(inserted_at) AS oldest
  FROM public.event_outbox
  WHERE processed_at IS NULL AND dead_at IS NULL
  GROUP BY company_id
), judged AS MATERIALIZED (
  SELECT
    p.rows, p.oldest,
    public.is_company_paused(p.company_id) OR NOT public.is_feature_enabled('outbox.enabled', p.company_id) AS held
  FROM per_company p
)
SELECT
  coalesce(sum(rows) FILTER (WHERE NOT held), 0)::bigint,
  coalesce(sum(rows) FILTER (WHERE held), 0)::bigint,
  coalesce(extract(epoch FROM clock_timestamp() - min(oldest) FILTER (WHERE NOT held)), 0)::double precision
FROM judged
