-- Pauses or resumes one tenant, as the checklist does: without a reason, unless one is demanded. It asks for no unique key
-- of a certain shape.
with given as (
  select %s::uuid as tenant, %s::boolean as is_paused
), kept as (
  update public.agent_controls c set agents_paused = given.is_paused
  from given where c.company_id = given.tenant
  returning c.company_id
)
insert into public.agent_controls (company_id, agents_paused, pause_reason)
select given.tenant, given.is_paused,
  case when exists (
    select from pg_catalog.pg_attribute a
    where a.attrelid = to_regclass('public.agent_controls') and a.attnotnull
      and a.attname = (parse_ident('public.agent_controls.pause_reason'))[3]
  ) then 'drill' end
from given where not exists (select from kept)
