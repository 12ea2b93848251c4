-- Rows of workers that ended: our own at a graceful stop, others' after a day.
DELETE FROM public.worker_heartbeats
WHERE worker_id = %(worker_id)s OR beat_at < clock_timestamp() - interval '1 day'
