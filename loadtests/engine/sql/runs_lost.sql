-- Replays that were acknowledged and have no row. $1: idempotency keys of this run, which nobody else uses.
SELECT count(*) AS lost, min(a.key) AS first, pg_is_in_recovery() AS is_behind
FROM unnest(%s::text[]) AS a (key)
WHERE NOT EXISTS (SELECT FROM public.replay_runs r WHERE r.idempotency_key = a.key)
