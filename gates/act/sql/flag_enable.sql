-- Compare and set: the row must be off, at the version that was read. %(flag)s %(version)s %(percent)s
update public.feature_flags
set enabled = true, rollout_percentage = %(percent)s, updated_at = now()
where key = %(flag)s and company_id is null and not enabled and version = %(version)s
returning enabled, rollout_percentage;
