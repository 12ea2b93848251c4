-- Success of the agents in the last ten minutes, by agent.
select agent_name, count(*) filter (where status = 'completed') as completed, count(*) filter (where status = 'failed') as failed,
       round(avg((status = 'completed')::int), 4) as success
from public.agent_tasks where updated_at > now() - interval '10 minutes' and status in ('completed', 'failed')
group by agent_name order by failed desc limit 50;
