-- Read back: rows that the last emergency paused and that still are; whether everybody is paused for another reason.
with last as (
  select a.metadata ->> 'reason' as reason from public.audit_logs a
  where a.action = 'agents_paused' and a.scope = 'all' order by a.id desc limit 1
)
select (select count(*) from last) as emergencies,
       count(*) filter (where c.agents_paused and c.pause_reason = l.reason) as left_paused,
       count(*) filter (where c.company_id is null and c.agents_paused and c.pause_reason is distinct from l.reason) as others,
       count(*) as rows
from public.agent_controls c left join last l on true;
