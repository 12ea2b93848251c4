-- Events that were acknowledged and that the outbox should have, but neither it, a task nor a dead letter has. $1: ids.
SELECT count(*) AS lost, min(e.id::text) AS first, pg_is_in_recovery() AS is_behind
FROM public.events e
WHERE e.id = ANY (%s::uuid[]) AND e.path = 'outbox'
  AND NOT EXISTS (SELECT FROM public.event_outbox o WHERE o.event_id = e.id)
  AND NOT EXISTS (SELECT FROM public.agent_tasks t WHERE t.event_id = e.id)
  AND NOT EXISTS (SELECT FROM public.dead_letter_queue d WHERE d.event_id = e.id)
