-- Compare and set: the row must be on, at the version that was read. %(flag)s %(version)s %(percent)s
update public.feature_flags
set rollout_percentage = %(percent)s, updated_at = now()
where key = %(flag)s and company_id is null and enabled and version = %(version)s
returning enabled, rollout_percentage;
