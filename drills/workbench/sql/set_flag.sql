-- The override row of a flag for a tenant. Key, tenant, enabled, percentage. It asks for no unique key of a certain shape.
with given as (
  select %s::text as flag, %s::uuid as tenant, %s::boolean as is_on, %s::integer as percentage
), kept as (
  update public.feature_flags f set enabled = given.is_on, rollout_percentage = given.percentage
  from given where f.key = given.flag and f.company_id = given.tenant
  returning f.key
)
insert into public.feature_flags (key, company_id, enabled, rollout_percentage)
select given.flag, given.tenant, given.is_on, given.percentage from given where not exists (select from kept)
