-- What became of the events of this run's companies. $1: companies. An event that the outbox calls processed without a
-- completed task is a failure: its effect was lost.
WITH outbox AS (
  SELECT event_id, bool_or(processed_at IS NOT NULL) AS processed, bool_or(dead_at IS NOT NULL) AS dead
  FROM public.event_outbox WHERE company_id = ANY (%s::uuid[]) GROUP BY event_id
), task AS (
  SELECT event_id, bool_or(status = 'completed') AS completed, bool_or(status = 'failed') AS failed
  FROM public.agent_tasks WHERE company_id = ANY (%s::uuid[]) AND event_id IS NOT NULL GROUP BY event_id
), event AS (
  SELECT coalesce(task.completed, false) AS completed,
         coalesce(outbox.processed, false) OR coalesce(outbox.dead, false) OR coalesce(task.failed, false) AS settled
  FROM outbox FULL JOIN task USING (event_id)
)
SELECT count(*) FILTER (WHERE completed) AS succeeded,
       count(*) FILTER (WHERE NOT completed AND settled) AS failed,
       count(*) FILTER (WHERE NOT completed AND NOT settled) AS open
FROM event
