-- The global rows of all other flags: a step moves none of them. %(flag)s
select key, enabled, rollout_percentage from public.feature_flags
where key <> %(flag)s and company_id is null
order by key, enabled, rollout_percentage
limit 1000;
