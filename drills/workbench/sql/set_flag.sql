-- The override row of a flag for a tenant.
insert into public.feature_flags (key, company_id, enabled, rollout_percentage) values (%s, %s, %s, %s)
on conflict (key, company_id)
do update set enabled = excluded.enabled, rollout_percentage = excluded.rollout_percentage
