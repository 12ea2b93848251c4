-- Pauses or resumes one tenant. It asks for no unique key of a certain shape.
with given as (
  select %s::uuid as tenant, %s::boolean as is_paused
), kept as (
  update public.agent_controls c set agents_paused = given.is_paused
  from given where c.company_id = given.tenant
  returning c.company_id
)
insert into public.agent_controls (company_id, agents_paused, pause_reason)
select given.tenant, given.is_paused, 'drill' from given where not exists (select from kept)
