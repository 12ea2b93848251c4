-- Let claims of this company wait while a preview looks; where a claim is running, look at what it leaves.
SELECT pg_try_advisory_xact_lock(hashtextextended('dlq-preview', uuid_hash_extended(%(company_id)s::uuid, 2)))
