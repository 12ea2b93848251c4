-- The run that an idempotency key belongs to, with the answer that was given.
SELECT id::text, payload_hash, response, status, target_count
FROM public.replay_runs
WHERE idempotency_key = %(idempotency_key)s AND company_id = %(company_id)s::uuid
