-- Refused replays of the last hour, by reason.
select metadata ->> 'code' as code, sum(coalesce((metadata ->> 'count')::bigint, 1)) as times, count(distinct scope) as tenants
from public.audit_logs where created_at > now() - interval '1 hour' and action = 'dlq_replay_refused'
group by 1 order by 2 desc;
