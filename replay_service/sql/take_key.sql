-- One request of a key at a time, and the run that this request starts: (free, first).
-- Not free: it runs elsewhere. Not first: the key was used before. The lock ends with the transaction, however that ends.
-- The short lock_timeout is for a run of this key that somebody else has written and not committed yet.
WITH taken AS MATERIALIZED (
  SELECT
    pg_try_advisory_xact_lock(hashtextextended(%(idempotency_key)s, uuid_hash_extended(%(company_id)s::uuid, 1))) AS free,
    set_config('lock_timeout', '200ms', true)
), inserted AS (
  INSERT INTO public.replay_runs (id, idempotency_key, company_id, actor, payload_hash, request_id)
  SELECT
    %(run_id)s::uuid, %(idempotency_key)s, %(company_id)s::uuid, %(actor)s, %(payload_hash)s, %(request_id)s
  FROM taken
  WHERE taken.free
  ON CONFLICT (idempotency_key, company_id) DO NOTHING
  RETURNING true
)
SELECT taken.free, EXISTS (SELECT FROM inserted) FROM taken
