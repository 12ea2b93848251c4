-- Give leases back at once when a worker stops: they end now, and keep their token as the trace of an attempt.
UPDATE public.event_outbox e
SET claimed_until = clock_timestamp()
WHERE e.id = ANY(%(ids)s::bigint[]) AND e.claim_token = %(token)s AND e.processed_at IS NULL AND e.dead_at IS NULL
