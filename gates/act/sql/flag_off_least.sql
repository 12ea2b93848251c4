-- The checklist's own statement, for a table with only the columns that it needs. %(flag)s
with changed as (
  update public.feature_flags set enabled = false where key = %(flag)s and enabled is distinct from false
  returning enabled
)
select count(*) as changed from changed where enabled is false;
