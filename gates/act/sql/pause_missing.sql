-- The row for everybody, which always exists, is made where it does not.
insert into public.agent_controls (company_id, agents_paused)
select null, true
where not exists (select from public.agent_controls where company_id is null);
