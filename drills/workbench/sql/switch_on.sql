-- Overrides for a tenant of those flags that are not on for it.
insert into public.feature_flags (company_id, key, enabled, rollout_percentage)
select tenant.id, flag.key, true, 100 from (select %s::uuid as id) tenant, unnest(%s::text[]) flag (key)
where public.is_feature_enabled(flag.key, tenant.id) is not true
on conflict (key, company_id)
do update set enabled = excluded.enabled, rollout_percentage = excluded.rollout_percentage
