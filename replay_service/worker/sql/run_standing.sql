-- How many of a locked run's items are not settled.
SELECT count(*)
FROM public.event_outbox e
WHERE e.replay_run_id = %(run_id)s::uuid AND e.processed_at IS NULL AND e.dead_at IS NULL
