-- This worker is alive.
INSERT INTO public.worker_heartbeats AS w (worker_id, agent, release, commit_sha)
VALUES (%(worker_id)s, %(agent)s, %(release)s, %(commit)s)
ON CONFLICT (worker_id) DO UPDATE SET beat_at = clock_timestamp()
