-- One request of a key at a time: false means that it runs elsewhere. The lock ends with the transaction, however that
-- ends. The short lock_timeout is for the next statement: a run of this key that somebody else has not committed yet.
SELECT
  pg_try_advisory_xact_lock(hashtextextended(%(idempotency_key)s, uuid_hash_extended(%(company_id)s::uuid, 1))),
  set_config('lock_timeout', '200ms', true)
