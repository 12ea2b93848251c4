-- Whether any worker's heartbeat is younger than the limit.
SELECT EXISTS (
  SELECT FROM public.worker_heartbeats WHERE beat_at > clock_timestamp() - make_interval(secs => %(fresh_s)s)
)
