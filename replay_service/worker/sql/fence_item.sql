-- Lock a leased item of a run; no row where the lease is another's by now. The outbox row is locked before its run.
SELECT e.id
FROM public.event_outbox e
WHERE e.id = %(id)s AND e.claim_token = %(token)s AND e.processed_at IS NULL AND e.dead_at IS NULL
FOR UPDATE
