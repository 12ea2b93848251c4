-- Runs with items to lease, locked so that two workers never count the same free places. Busy runs are another's work.
-- An item that waits for an older event of its key does not count: runs of such items alone would fill the limit.
SELECT r.id
FROM public.replay_runs r
WHERE r.status = 'started'
  AND EXISTS (
    SELECT FROM public.event_outbox e
    WHERE e.replay_run_id = r.id AND e.processed_at IS NULL AND e.dead_at IS NULL
      AND e.next_attempt_at <= now() AND (e.claimed_until IS NULL OR e.claimed_until <= now())
      AND (e.aggregate_key IS NULL OR (
        SELECT b.id FROM public.event_outbox b
        WHERE b.processed_at IS NULL AND b.dead_at IS NULL AND b.aggregate_key IS NOT NULL
          AND b.company_id = ANY(ARRAY[e.company_id, NULL]) AND b.aggregate_key = e.aggregate_key AND b.id < e.id
        ORDER BY b.company_id, b.id
        LIMIT 1
      ) IS NULL)
  )
  AND public.is_feature_enabled('outbox.enabled', r.company_id) AND NOT public.is_company_paused(r.company_id)
ORDER BY r.requested_at
LIMIT %(limit)s
FOR UPDATE OF r SKIP LOCKED
