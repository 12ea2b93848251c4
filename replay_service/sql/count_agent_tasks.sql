-- Effects by status.
SELECT status, count(*) FROM public.agent_tasks GROUP BY status
