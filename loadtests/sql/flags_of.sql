-- Which of these companies may use the outbox and replays. $1: companies.
SELECT id::text AS id
FROM unnest(%s::uuid[]) AS id
WHERE is_feature_enabled('outbox.enabled', id) AND is_feature_enabled('dlq.replay.enabled', id)
