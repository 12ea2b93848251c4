-- id: sql/spot/known-states
-- claim: Every status, and the path of every event of the last hour, is one that the contract knows.
-- cost: No worker, replay or check handles a row in an unknown state.
-- severity: warn
-- covers: K17
select 'replay_runs ' || id as subject, format('status %s', coalesce(status::text, 'NULL')) as detail, company_id::text as witness
from (select * from public.replay_runs order by requested_at desc {{at_most}}) r
where status is null or status::text not in ('started', 'completed', 'stopped', 'failed')
union all
select 'dead_letter_queue ' || id, format('status %s', coalesce(status::text, 'NULL')), company_id::text
from (select * from public.dead_letter_queue order by created_at desc {{at_most}}) d
where status is null or status::text not in ('pending', 'replaying', 'resolved', 'discarded')
union all
select 'agent_tasks ' || id, format('status %s', coalesce(status::text, 'NULL')), company_id::text
from (select * from public.agent_tasks order by id desc {{at_most}}) t
where status is null or status::text not in ('queued', 'running', 'completed', 'failed')
union all
select 'event ' || id, format('path %s', coalesce(path::text, 'NULL')), company_id::text
from (select * from public.events where created_at > now() - interval '1 hour' order by created_at desc {{at_most}}) e
where path is null or path::text not in ('outbox', 'direct');

-- seen:
select count(*) as seen from (select from public.agent_tasks limit 100) t;
