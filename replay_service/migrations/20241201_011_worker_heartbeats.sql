-- Workers that are alive: one row each, beaten every second or so. /readyz asks for a fresh one.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE replay_owner;

CREATE TABLE public.worker_heartbeats (
  worker_id text PRIMARY KEY,
  agent text NOT NULL DEFAULT 'sql',
  release text NOT NULL DEFAULT '',
  commit_sha text NOT NULL DEFAULT '',
  started_at timestamptz NOT NULL DEFAULT now(),
  beat_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

GRANT SELECT ON public.worker_heartbeats TO replay_service, replay_worker, replay_gate;
GRANT INSERT, UPDATE, DELETE ON public.worker_heartbeats TO replay_worker;
