-- Who is paused, and why; the row without a company is everybody.
select company_id, agents_paused, left(pause_reason, 500) as pause_reason, updated_at from public.agent_controls
order by agents_paused desc, company_id nulls first limit 50;
