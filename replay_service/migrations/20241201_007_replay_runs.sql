-- Replay runs: what a request asked for, its stored answer (idempotency) and how it went.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';
SET LOCAL ROLE replay_owner;

CREATE TABLE public.replay_runs (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  idempotency_key text NOT NULL DEFAULT gen_random_uuid()::text,
  company_id uuid NOT NULL,
  actor text NOT NULL DEFAULT session_user,
  payload_hash text NOT NULL DEFAULT '',
  status text NOT NULL DEFAULT 'started',
  target_count integer NOT NULL DEFAULT 0,
  success_count integer NOT NULL DEFAULT 0,
  failure_count integer NOT NULL DEFAULT 0,
  requested_at timestamptz NOT NULL DEFAULT now(),
  completed_at timestamptz,
  txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  request_id text,                           -- of the request that started the run; the worker's audit rows carry it on
  response jsonb,                            -- the stored body for duplicates of the request
  budget_charged integer NOT NULL DEFAULT 0, -- items charged to replay_budgets at requested_at (0 = budget control was off); a stop refunds out of it
  stopping_at timestamptz,                   -- the 20 % rail tripped; the run ends as stopped when its items in flight are settled
  CONSTRAINT replay_runs_status_known CHECK (status IN ('started', 'completed', 'stopped', 'failed')),
  CONSTRAINT replay_runs_idempotency_key_company_id_key UNIQUE (idempotency_key, company_id)
);
CREATE INDEX replay_runs_started_idx ON public.replay_runs (requested_at) WHERE status = 'started';
CREATE INDEX replay_runs_company_idx ON public.replay_runs (company_id, requested_at);
CREATE INDEX replay_runs_requested_idx ON public.replay_runs (requested_at);

GRANT SELECT ON public.replay_runs TO replay_service, replay_worker, replay_gate, authenticated;
GRANT INSERT, UPDATE ON public.replay_runs TO replay_service;
GRANT UPDATE ON public.replay_runs TO replay_worker;
GRANT INSERT, UPDATE, DELETE ON public.replay_runs TO replay_gate;
