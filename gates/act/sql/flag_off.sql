-- Every row of the flag goes off, overrides included; how many the table left off. %(flag)s
with changed as (
  update public.feature_flags
  set enabled = false, updated_at = now()
  where key = %(flag)s and enabled is distinct from false
  returning enabled
)
select count(*) as changed from changed where enabled is false;
