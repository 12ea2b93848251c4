-- Dead letters: events whose last attempt failed, and what other producers put here.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE replay_owner;

CREATE TABLE public.dead_letter_queue (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  company_id uuid NOT NULL,
  event_id uuid, -- null: a replay gives the event a stable id
  event_type text NOT NULL,
  aggregate_key text,
  payload jsonb NOT NULL DEFAULT '{}',
  error_type text NOT NULL DEFAULT 'unknown',
  error_message text,
  retry_count integer NOT NULL DEFAULT 0,
  max_retries integer NOT NULL DEFAULT 5,
  retry_after timestamptz NOT NULL DEFAULT now(),
  status text NOT NULL DEFAULT 'pending',
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  replay_run_id uuid, -- the run that took the row last
  CONSTRAINT dead_letter_queue_status_known CHECK (status IN ('pending', 'replaying', 'resolved', 'discarded'))
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);
CREATE INDEX dead_letter_queue_pending_idx ON public.dead_letter_queue (company_id, created_at, id) WHERE status = 'pending';
CREATE INDEX dead_letter_queue_replaying_idx ON public.dead_letter_queue (replay_run_id) WHERE status = 'replaying';
CREATE INDEX dead_letter_queue_company_idx ON public.dead_letter_queue (company_id, created_at);
CREATE INDEX dead_letter_queue_created_idx ON public.dead_letter_queue (created_at);
CREATE INDEX dead_letter_queue_event_idx ON public.dead_letter_queue (event_id) WHERE event_id IS NOT NULL;

GRANT SELECT ON public.dead_letter_queue TO replay_service, replay_worker, replay_gate, authenticated;
GRANT INSERT, UPDATE ON public.dead_letter_queue TO replay_service, replay_worker;
GRANT INSERT, UPDATE, DELETE ON public.dead_letter_queue TO replay_gate;
