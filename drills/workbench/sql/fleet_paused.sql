-- Whether everybody is paused.
select coalesce(bool_or(agents_paused), false) as paused from public.agent_controls where company_id is null
