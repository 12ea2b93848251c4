-- Read back: rows that an emergency since the resume before it paused and that still are; whether everybody is paused for
-- another reason. The resume that is read back is on record already: it came after the last emergency.
with emergencies as (
  select a.metadata ->> 'reason' as reason, coalesce(a.metadata ->> 'paused_at', '-infinity')::timestamptz as paused_at
  from public.audit_logs a
  where a.action = 'agents_paused' and a.scope = 'all' and a.id > coalesce(
    (select max(r.id) from public.audit_logs r
     where r.action = 'agents_resumed' and r.scope = 'all' and r.id < (
       select max(e.id) from public.audit_logs e where e.action = 'agents_paused' and e.scope = 'all')), 0)
)
select (select count(*) from emergencies) as emergencies,
       count(*) filter (where c.agents_paused and c.ours) as left_paused,
       count(*) filter (where c.company_id is null and c.agents_paused and not c.ours) as others,
       count(*) as rows
from (select k.company_id, k.agents_paused,
             exists (select from emergencies e where e.reason = k.pause_reason and e.paused_at <= k.updated_at) as ours
      from public.agent_controls k) c;
