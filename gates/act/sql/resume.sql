-- Ends the pause that the last emergency made; a pause for another reason is somebody else's, and stays.
update public.agent_controls
set agents_paused = false, pause_reason = null, updated_at = now()
where agents_paused and pause_reason = (
  select a.metadata ->> 'reason' from public.audit_logs a
  where a.action = 'agents_paused' and a.scope = 'all' order by a.id desc limit 1
);
