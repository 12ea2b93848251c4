-- The checklist's own statement, for a table with only the columns that it needs, or whose rule returns nothing. %(flag)s
update public.feature_flags set enabled = false where key = %(flag)s and enabled is distinct from false;
