-- Runs as their rows say, each with its outbox rows, and how many of those are like no letter of their event.
select r.id::text as id, r.company_id::text as company, r.idempotency_key as key, r.status, r.target_count,
  r.success_count, r.failure_count, r.success_count + r.failure_count as settled,
  (select count(*) from public.event_outbox o where o.replay_run_id = r.id) as outbox_rows,
  (
    select count(*) from public.event_outbox o
    cross join lateral (
      select bool_or(d.event_type = o.event_type and d.payload::jsonb = o.payload::jsonb) as is_like
      from public.dead_letter_queue d where d.event_id = o.event_id and d.company_id = o.company_id
    ) as letters
    where o.replay_run_id = r.id and not letters.is_like
  ) as altered
from public.replay_runs r where r.id = any(%s)
