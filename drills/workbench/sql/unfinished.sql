-- How many items of a replay run are still on their way.
select count(*) from public.event_outbox where replay_run_id = %s and processed_at is null and dead_at is null
