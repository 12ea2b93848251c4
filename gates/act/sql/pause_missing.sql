-- Creates the row for everybody, which always exists in a healthy deployment, if it is missing.
insert into public.agent_controls (company_id, agents_paused)
select null, true
where not exists (select from public.agent_controls where company_id is null);
