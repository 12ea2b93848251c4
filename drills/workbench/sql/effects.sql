-- How many effects (completed agent tasks) each of these events has; events without one are absent.
select event_id::text as event, count(*) as n from public.agent_tasks
where event_id = any(%s::uuid[]) and status = 'completed' group by event_id
