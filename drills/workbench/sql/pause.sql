-- Pauses or resumes one tenant.
insert into public.agent_controls (company_id, agents_paused, pause_reason) values (%s, %s, 'drill')
on conflict (company_id) do update set agents_paused = excluded.agents_paused
