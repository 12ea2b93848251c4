-- One statement, so one transaction: the business row with its outbox row, or with its effect.
-- No row comes back where the event id was used before.
WITH route AS MATERIALIZED (
  SELECT
    CASE
      WHEN
        public.is_company_paused(%(company_id)s::uuid)
        OR public.is_feature_enabled('outbox.enabled', %(company_id)s::uuid)
        THEN 'outbox'
      ELSE 'direct'
    END AS path
), stored AS (
  INSERT INTO public.events (id, company_id, event_type, aggregate_key, payload, path)
  SELECT
    %(event_id)s::uuid, %(company_id)s::uuid, %(event_type)s, %(aggregate_key)s, (%(body)s::jsonb) -> 'payload', route.path
  FROM route
  ON CONFLICT (id) DO NOTHING
  RETURNING id, company_id, event_type, aggregate_key, payload, path
), queued AS (
  INSERT INTO public.event_outbox (event_id, company_id, event_type, aggregate_key, payload)
  SELECT id, company_id, event_type, aggregate_key, payload FROM stored WHERE path = 'outbox'
), performed AS (
  INSERT INTO public.agent_tasks (company_id, agent_name, event_id, status)
  SELECT company_id, 'direct', id, 'completed' FROM stored WHERE path = 'direct'
  ON CONFLICT (event_id) DO UPDATE SET status = 'completed', updated_at = now() WHERE agent_tasks.status <> 'completed'
)
SELECT path FROM stored
