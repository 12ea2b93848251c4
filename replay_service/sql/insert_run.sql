-- The run that this request starts; no row where the key was used before.
INSERT INTO public.replay_runs (id, idempotency_key, company_id, actor, payload_hash, request_id)
VALUES (%(run_id)s::uuid, %(idempotency_key)s, %(company_id)s::uuid, %(actor)s, %(payload_hash)s, %(request_id)s)
ON CONFLICT (idempotency_key, company_id) DO NOTHING
RETURNING true
