-- The checklist's emergency: everybody pauses, tenants' own rows included. %(reason)s
update public.agent_controls
set agents_paused = true, pause_reason = %(reason)s, updated_at = now()
where agents_paused is distinct from true;
