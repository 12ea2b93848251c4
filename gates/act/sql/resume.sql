-- Ends the pause of every emergency since the last resume; one for another reason, or one that is older than the emergency
-- that has its words, is somebody else's, and stays.
update public.agent_controls
set agents_paused = false, pause_reason = null, updated_at = now()
where agents_paused and exists (
  select from public.audit_logs a
  where a.action = 'agents_paused' and a.scope = 'all'
    and a.metadata ->> 'reason' = agent_controls.pause_reason
    and coalesce(a.metadata ->> 'paused_at', '-infinity')::timestamptz <= agent_controls.updated_at
    and a.id > coalesce(
      (select max(r.id) from public.audit_logs r
       where r.action = 'agents_resumed' and r.scope = 'all' and r.id < (
         select max(e.id) from public.audit_logs e where e.action = 'agents_paused' and e.scope = 'all')), 0)
);
