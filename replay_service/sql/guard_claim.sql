-- Wait for a preview of this company, which holds its rows for a moment only: a dry run must not hide items.
SELECT pg_advisory_xact_lock_shared(hashtextextended('dlq-preview', uuid_hash_extended(%(company_id)s::uuid, 2)))
