-- Take the picked items into a run: each gets an outbox row with the stable id of its event, oldest first.
WITH moved AS (
  UPDATE public.dead_letter_queue
  SET
    status = 'replaying', event_id = coalesce(event_id, gen_random_uuid()), replay_run_id = %(run_id)s::uuid, updated_at = now()
  WHERE id = ANY(%(ids)s::uuid[])
  RETURNING id, event_id, company_id, event_type, aggregate_key, payload, created_at
)
INSERT INTO public.event_outbox (event_id, company_id, event_type, aggregate_key, payload, replay_run_id, dlq_id)
SELECT event_id, company_id, event_type, aggregate_key, payload, %(run_id)s::uuid, id
FROM moved
ORDER BY moved.created_at, moved.id
