-- Ends the pause of every emergency since the last resume; a pause for another reason is somebody else's, and stays.
update public.agent_controls
set agents_paused = false, pause_reason = null, updated_at = now()
where agents_paused and pause_reason in (
  select a.metadata ->> 'reason' from public.audit_logs a
  where a.action = 'agents_paused' and a.scope = 'all' and a.id > coalesce(
    (select max(r.id) from public.audit_logs r
     where r.action = 'agents_resumed' and r.scope = 'all' and r.id < (
       select max(e.id) from public.audit_logs e where e.action = 'agents_paused' and e.scope = 'all')), 0)
);
