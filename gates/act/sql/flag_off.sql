-- Every row of the flag goes off, overrides included. %(flag)s
update public.feature_flags
set enabled = false, updated_at = now()
where key = %(flag)s and enabled is distinct from false;
