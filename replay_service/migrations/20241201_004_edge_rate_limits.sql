-- The exact rolling rate limit: one row per key, with the admitted requests of the window, oldest first.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE replay_owner;

CREATE TABLE public.edge_rate_limits (
  key text PRIMARY KEY,
  hits timestamptz[] NOT NULL DEFAULT '{}',
  count integer GENERATED ALWAYS AS (cardinality(hits)) STORED,
  window_start timestamptz GENERATED ALWAYS AS (hits[1]) STORED
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
CREATE INDEX edge_rate_limits_window_idx ON public.edge_rate_limits (window_start DESC);
-- LIKE 'replay:%' must find its rows by index whatever the collation of the database.
CREATE INDEX edge_rate_limits_prefix_idx ON public.edge_rate_limits (key text_pattern_ops);
-- the tenant of a key 'replay:<company>:<ip>', for row-level security
CREATE INDEX edge_rate_limits_company_idx ON public.edge_rate_limits (lower(split_part(key, ':', 2)));

GRANT SELECT ON public.edge_rate_limits TO replay_service, replay_worker, replay_gate, authenticated;
GRANT INSERT, UPDATE, DELETE ON public.edge_rate_limits TO replay_service, replay_gate;
