-- Overrides for a tenant of those flags that are not on for it. It asks for no unique key of a certain shape.
with off as (
  select tenant.id as tenant, flag.name as flag from (select %s::uuid as id) tenant, unnest(%s::text[]) flag (name)
  where public.is_feature_enabled(flag.name, tenant.id) is not true
), kept as (
  update public.feature_flags f set enabled = true, rollout_percentage = 100
  from off where f.key = off.flag and f.company_id = off.tenant
  returning f.key
)
insert into public.feature_flags (company_id, key, enabled, rollout_percentage)
select off.tenant, off.flag, true, 100 from off where off.flag not in (select key from kept)
