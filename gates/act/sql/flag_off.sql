-- Every row of the flag goes off, overrides included; which of them the table left off. No WITH: a rule of the table may
-- forbid it. %(flag)s
update public.feature_flags
set enabled = false, updated_at = now()
where key = %(flag)s and enabled is distinct from false
returning enabled is false as changed;
