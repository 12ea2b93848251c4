-- Every row of the flag goes off, overrides included; one row for each that the table left off. %(flag)s
with changed as (
  update public.feature_flags
  set enabled = false, updated_at = now()
  where key = %(flag)s and enabled is distinct from false
  returning enabled
)
select from changed where enabled is false;
