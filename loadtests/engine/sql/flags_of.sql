-- What these companies may use. $1: companies.
SELECT id::text AS id,
       public.is_feature_enabled('outbox.enabled', id) AS outbox,
       public.is_feature_enabled('dlq.replay.enabled', id) AS replays
FROM unnest(%s::uuid[]) AS id
